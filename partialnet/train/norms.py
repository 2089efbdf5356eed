"""What batch normalisations need of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from partialnet.errors import DataError
from partialnet.layers.norms import batch_norms


def left_out(inputs: Tensor, model: nn.Module) -> bool:
    """Return whether what a pass leaves over is too little: one image, where images are normalised by their batch."""
    return len(inputs) == 1 and bool(batch_norms(model.modules()))


@contextmanager
def enough_images(inputs: Tensor, name: str) -> Iterator[None]:
    """Say which argument is to blame where a batch normalisation has one value for a channel.

    Args:
        inputs: Of the network that runs.
        name: Of the argument that they come from.

    Raises:
        DataError: Instead of torch's ValueError.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise DataError(
            f"{name} yields {len(inputs)} image(s) of {tuple(inputs.shape[1:])} at once, which batch normalisation "
            "cannot be trained with (one value for a channel); use larger batches"
        ) from error
