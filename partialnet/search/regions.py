"""Compiled steps of a network with changing levels: code for each block and level, not for the whole network.

The levels of a network with L layers of K levels make K^L networks, far too many to compile. Its blocks make few: code
for one block at one level, with or without probes, serves each block of the same shape. The number of compiled pieces
is at most stages x levels x kinds of probes, and nothing is compiled once all have occurred. Code outside of blocks
runs uncompiled.

Compiled code is found by number, not by trial. Each number has a cache of its own in the compiler, so that a block does
not check the conditions of all others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from partialnet.layers.choice import Choice
from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.droppable import Droppable
from partialnet.train.compilation import check_compiler, compiled_apart

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_ALL = 4096  # limit for all pieces of code; the compiler's own limit is 256


class CompiledRegions:
    """The blocks of a network with a learned split, run by compiled code while they are installed.

    A block is the module that directly holds exactly one such layer, or the layer itself without such a module. A block
    that may be absent is one as well, with all that it holds.

    Args:
        model: Network of the blocks.
        layers: Choices of the network: layers with a learned split, and others.
        device: Device of the network.
        backend: Backend of ``torch.compile``.

    Raises:
        PartialNetError: If there is no working compiler.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[Choice], device: torch.device, backend: str = "inductor"
    ) -> None:
        if backend == "inductor":
            check_compiler(device)
        self._backend = backend
        regions = {id(region): region for region in (region_of(model, layer) for layer in layers if layer.stands_alone)}
        self._regions = [(region, _choices(region)) for region in regions.values()]
        self._shapes = [_shape(region) for region, _ in self._regions]
        self._code: dict[Hashable, Callable[..., Any]] = {}

    def __len__(self) -> int:
        """Return the number of pieces of compiled code."""
        return len(self._code)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Run the blocks by compiled code inside the block, and restore them at its end."""
        for (region, choices), shape in zip(self._regions, self._shapes, strict=True):
            region.__dict__["forward"] = partial(self._run, region, choices, shape)
        try:
            with torch._dynamo.config.patch(accumulated_recompile_limit=_ALL):
                yield
        finally:
            for region, _ in self._regions:
                region.__dict__.pop("forward", None)

    def _run(self, region: nn.Module, choices: Sequence[Choice], shape: Hashable, *inputs: Any) -> Any:
        key = (shape, tuple((choice.level, _sides(choice)) for choice in choices))
        code = self._code.get(key)
        if code is None:
            code = self._code[key] = compiled_apart(_forward, self._backend)
        return code(region, *inputs)


def _sides(choice: Choice) -> tuple[bool | float, ...]:
    return (choice.probe_removal, choice.probe_growth, choice.probe_fraction) if choice.probing else ()


def _choices(region: nn.Module) -> list[Choice]:
    return [module for module in region.modules() if isinstance(module, Choice)]


def _forward(region: nn.Module, *inputs: Tensor) -> Any:
    return type(region).forward(region, *inputs)


def region_of(model: nn.Module, choice: Choice) -> nn.Module:
    """Return the region around ``choice`` that is compiled as one: the block that may be absent, or else the module
    that directly holds it and one layer with a learned split at most.
    """
    for module in model.modules():
        inside = list(module.modules())
        if isinstance(module, Droppable) and any(part is choice for part in inside):
            return module
        if module is model or isinstance(module, _CONTAINERS):
            continue
        held = any(child is choice for child in module.children())
        if held and sum(isinstance(part, DPConv2d) for part in inside) <= 1:
            return module
    return choice


def _shape(region: nn.Module) -> Hashable:
    tensors = tuple((name, tuple(tensor.shape)) for name, tensor in region.state_dict(keep_vars=True).items())
    return type(region), repr(region), tensors
