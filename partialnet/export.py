"""From a network whose split is learned to a plain one with fixed splits, weights carried over."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from partialnet.errors import ArchitectureError
from partialnet.layers.dpconv import dpconv_layers, fix_layers

TOLERANCE = 1e-5
_MAP_SIZE = 5


def to_fixed(model: nn.Module, *, input_shape: tuple[int, int, int] | None = None) -> nn.Module:
    """Return a copy of ``model`` in which every ``DPConv2d`` is a plain ``PartialConv2d`` with the present split.

    The copy is compared with the original in eval mode before it is handed out: layer by layer on random maps, and as a
    whole where the shape of an input is known.

    Args:
        model: Not changed.
        input_shape: Channels, height, width of one input; for networks of this package it need not be given.

    Raises:
        ArchitectureError: If there is no such layer, or outputs differ by more than 1e-5 relative to the largest
            output (at least 1); names the layer.
    """
    layers = dpconv_layers(model)
    fixed = fix_layers(copy.deepcopy(model))
    for name, layer in layers.items():
        _compare(name or "the layer", layer, fixed.get_submodule(name), (layer.channels, _MAP_SIZE, _MAP_SIZE))
    if hasattr(fixed, "searchable"):
        setattr(fixed, "searchable", False)  # noqa: B010 (no attribute of every module)
    shape = input_shape or known_input_shape(model)
    if shape is not None:
        _compare("the network", model, fixed, shape)
    return fixed


def known_input_shape(model: nn.Module) -> tuple[int, int, int] | None:
    """Return channels, height and width of the images that a network of this package or timm's is made for."""
    cfg: Any = getattr(model, "default_cfg", None)
    channels: Any = getattr(model, "in_chans", None)
    if not isinstance(cfg, dict) or not isinstance(channels, int) or "input_size" not in cfg:
        return None
    _, height, width = cfg["input_size"]
    return channels, height, width


def _compare(name: str, searched: nn.Module, fixed: nn.Module, shape: tuple[int, int, int]) -> None:
    x = random_input(searched, shape)
    expected, got = outputs_of(searched, x), outputs_of(fixed, x)
    if len(expected) != len(got) or any(a.shape != b.shape for a, b in zip(expected, got, strict=False)):
        raise ArchitectureError(f"{name}: the fixed form has outputs of another shape, so it is not handed out")
    for a, b in zip(expected, got, strict=True):
        limit = TOLERANCE * max(1.0, float(a.abs().max()))
        difference = float((a - b).abs().max())
        if not difference <= limit:
            raise ArchitectureError(
                f"{name}: outputs of the searched and the fixed form differ by {difference:.3g}, but at most "
                f"{limit:.3g} is allowed, so the fixed form is not handed out"
            )


def random_input(model: nn.Module, shape: tuple[int, int, int], batch: int = 2) -> Tensor:
    """Return inputs of ``shape`` to compare forms with, always the same; on the device and in the type of ``model``."""
    # A generator of its own: exporting must not move the random numbers of a training.
    generator = torch.Generator().manual_seed(0)
    like = next(model.parameters())
    return torch.randn(batch, *shape, generator=generator).to(device=like.device, dtype=like.dtype)


def outputs_of(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Return what ``model`` makes of ``x`` in eval mode, its tensors if they are several; the mode stays as it is."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            out = model(x)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return [out] if isinstance(out, Tensor) else [part for part in out if isinstance(part, Tensor)]
