"""Export of a network with learned splits to a plain one with fixed splits and the same weights."""

from __future__ import annotations

from typing import Any

from torch import nn

from partialnet.errors import ArchitectureError
from partialnet.exact import check_equal, exact_outputs, random_input
from partialnet.layers.choice import choices_of
from partialnet.layers.copying import copied
from partialnet.layers.droppable import Droppable

_MAP_SIZE = 5


def to_fixed(model: nn.Module, *, input_shape: tuple[int, int, int] | None = None) -> nn.Module:
    """Return a copy of ``model`` with its present choices and without the others: plain layers and blocks.

    A ``DPConv2d`` becomes a ``PartialConv2d``, a searchable MLP a plain one, and an absent block the identity.

    The copy is compared with the original in eval mode before it is returned: layer by layer on random maps, and as a
    whole if the input shape is known. The comparison runs in float64 (``partialnet.exact``), so TF32, autocast and the
    type of the model's weights do not matter.

    Args:
        model: Network with learned splits; it stays unchanged.
        input_shape: Channels, height, width of one input; networks of this package know theirs.

    Raises:
        ArchitectureError: If there is no such layer, or outputs differ by more than 1e-5 relative to the largest output
            (at least 1); the message names the layer.
    """
    choices = choices_of(model)
    fixed = fixed_copy(model)
    kept = dict(fixed.named_modules())
    for name, choice in choices.items():
        # The parts of an absent block are gone with it.
        if name in kept:
            _compare(name or "the layer", choice, kept[name], (choice.channels, _MAP_SIZE, _MAP_SIZE))
    if hasattr(fixed, "searchable"):
        setattr(fixed, "searchable", False)  # noqa: B010 (no attribute of every module)
    shape = input_shape or known_input_shape(model)
    if shape is not None:
        _compare("the network", model, fixed, shape)
    return fixed


def fixed_copy(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` with the fixed form of each choice, without the comparison of :func:`to_fixed`.

    Raises:
        ArchitectureError: If there is no choice.
    """
    choices = choices_of(model)
    # The fixed layers replace the full-width ones in the copy, so that these need not be copied.
    alone = [choice for choice in choices.values() if choice.stands_alone and not isinstance(choice, Droppable)]
    fixed = copied(model, {id(choice): choice.fixed() for choice in alone})
    # Parts before the blocks that hold them, so that a block's fixed form receives fixed parts.
    for name, choice in reversed(list(choices.items())):
        if isinstance(choice, Droppable):
            block = fixed.get_submodule(name)
            assert isinstance(block, Droppable)
            if not name:
                return block.fixed()
            fixed.set_submodule(name, block.fixed(), strict=True)
    return fixed


def known_input_shape(model: nn.Module) -> tuple[int, int, int] | None:
    """Return channels, height and width of the images that a network of this package or timm is built for."""
    cfg: Any = getattr(model, "default_cfg", None)
    channels: Any = getattr(model, "in_chans", None)
    if not isinstance(cfg, dict) or not isinstance(channels, int) or "input_size" not in cfg:
        return None
    _, height, width = cfg["input_size"]
    return channels, height, width


def _compare(name: str, searched: nn.Module, fixed: nn.Module, shape: tuple[int, int, int]) -> None:
    expected, got = exact_outputs((searched, fixed), random_input(shape))
    if len(expected) != len(got):
        raise ArchitectureError(
            f"{name}: the searched form has {len(expected)} outputs and the fixed form {len(got)}, so the fixed form "
            "is not handed out"
        )
    for a, b in zip(expected, got, strict=True):
        check_equal(
            name, a, b, forms="the searched and the fixed form", consequence="the fixed form is not handed out"
        )
