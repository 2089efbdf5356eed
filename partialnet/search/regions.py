"""Compiled steps of a network whose levels change: code for every block and level, not for the whole network.

The levels of a network with L layers of K levels make K^L networks, far too many to compile. Its blocks make few: code
for one block at one level, with or without probes, serves every block of the same shape, so that stages x levels x
kinds of probes bound what is compiled, and nothing is compiled once all have been seen. What is not in a block runs as
it is.

Compiled code is looked up by number, not by trial: each has a cache of its own in the compiler, so that a block does
not go through the conditions of all others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from partialnet.layers.dpconv import DPConv2d
from partialnet.train.compilation import check_compiler, compiled_apart

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_ALL = 4096  # pieces of code altogether; the compiler's own limit is 256


class CompiledRegions:
    """The blocks of a network with a layer whose split is learned, run by compiled code while they are installed.

    A block is the module that holds just one such layer directly (or the layer, where there is none).

    Args:
        model: The network.
        layers: Those of it whose split is learned.
        device: Of the network.
        backend: Of ``torch.compile``.

    Raises:
        PartialNetError: If there is no working compiler.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[DPConv2d], device: torch.device, backend: str = "inductor"
    ) -> None:
        if backend == "inductor":
            check_compiler(device)
        self._backend = backend
        self._regions = [(region_of(model, layer), layer) for layer in layers]
        self._shapes = [_shape(region) for region, _ in self._regions]
        self._code: dict[Hashable, Callable[..., Any]] = {}

    def __len__(self) -> int:
        """Return how many pieces of code there are."""
        return len(self._code)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Run the blocks by compiled code; afterwards nothing of it is left in them."""
        for (region, layer), shape in zip(self._regions, self._shapes, strict=True):
            region.__dict__["forward"] = partial(self._run, region, layer, shape)
        try:
            with torch._dynamo.config.patch(accumulated_recompile_limit=_ALL):
                yield
        finally:
            for region, _ in self._regions:
                region.__dict__.pop("forward", None)

    def _run(self, region: nn.Module, layer: DPConv2d, shape: Hashable, *inputs: Any) -> Any:
        sides = (layer.probe_removal, layer.probe_growth, layer.probe_fraction) if layer.probing else ()
        key = (shape, layer.level, sides)
        code = self._code.get(key)
        if code is None:
            code = self._code[key] = compiled_apart(_forward, self._backend)
        return code(region, *inputs)


def _forward(region: nn.Module, *inputs: Tensor) -> Any:
    return type(region).forward(region, *inputs)


def region_of(model: nn.Module, layer: DPConv2d) -> nn.Module:
    """Return what is compiled as one around ``layer``: the module that holds it, if that holds no other such layer."""
    for module in model.modules():
        if module is model or isinstance(module, _CONTAINERS) or all(child is not layer for child in module.children()):
            continue
        if sum(isinstance(inner, DPConv2d) for inner in module.modules()) == 1:
            return module
    return layer


def _shape(region: nn.Module) -> Hashable:
    tensors = tuple((name, tuple(tensor.shape)) for name, tensor in region.state_dict(keep_vars=True).items())
    return type(region), repr(region), tensors
