"""What an exporter begins with: the inference form, examples, and the outputs that its file must have."""

from __future__ import annotations

from torch import Tensor, nn

from partialnet.errors import ArchitectureError
from partialnet.exact import exact_outputs, random_input
from partialnet.export import known_input_shape
from partialnet.fuse import fuse

_BATCHES = (3, 1)  # the first is the example for the export: with one image, the batch would look constant


def exported_form(
    model: nn.Module, input_shape: tuple[int, int, int] | None
) -> tuple[nn.Module, list[Tensor], list[list[Tensor]]]:
    """Return the inference form in float32 on the CPU, inputs of batches of 3 and 1, and its outputs for each.

    Args:
        model: Network to export, which stays unchanged.
        input_shape: Channels, height, width of one image; networks of this package and of timm know theirs.

    Raises:
        ArchitectureError: If the model still learns its split, or no shape is known.
    """
    shape = input_shape or known_input_shape(model)
    if shape is None:
        raise ArchitectureError(f"{type(model).__name__}: input_shape must be given: channels, height, width")
    fused = fuse(model).cpu().float()
    examples = [random_input(shape, batch) for batch in _BATCHES]
    return fused, examples, [exact_outputs([fused], x)[0] for x in examples]
