"""The needs of batch normalisations for a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from partialnet.errors import DataError
from partialnet.layers.norms import batch_norms


def left_out(inputs: Tensor, model: nn.Module) -> bool:
    """Return whether a last batch is too small: one image, if batch statistics normalise images."""
    return len(inputs) == 1 and bool(batch_norms(model.modules()))


@contextmanager
def enough_images(inputs: Tensor, name: str) -> Iterator[None]:
    """Explain in the block which argument gives a batch normalisation only one value for a channel.

    Args:
        inputs: Inputs of the running network.
        name: Name of the argument that they come from.

    Raises:
        DataError: If it does, instead of torch's ValueError.
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
