"""What a network costs at every level of every layer whose split is learned.

In scope ``conv`` a layer's cost is closed: k^2 * n^2 weights, times H * W multiply-adds. In scope ``network`` it is
counted: the network is exported at each level, brought into its inference form, and counted there module by module.
A layer's cost depends on its own level only, so the total is a constant plus one entry per layer; it is not monotone in
n, since attention on the remaining channels becomes dearer as n falls.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from partialnet.errors import ArchitectureError, BudgetError
from partialnet.fuse import fuse
from partialnet.layers.dpconv import DPConv2d, dpconv_layers, fix_layers
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.search.budget import Budget, LatencyTable, Scope, Unit
from partialnet.search.operations import example_input, macs_by_module

_STAGE_AND_BLOCK = re.compile(r"(?:^|\.)stages\.(\d+)\.blocks\.(\d+)(?:\.|$)")


@dataclass(frozen=True)
class CostTable:
    """Cost of every layer at every level; the total is their sum plus what no level changes.

    Args:
        names: Module names, in forward order.
        levels: Per layer, its legal numbers of active channels, ascending.
        costs: Per layer, the cost at each of them.
        constant: Cost of the rest of the network; 0 in scope ``conv``.
    """

    names: tuple[str, ...]
    levels: tuple[tuple[int, ...], ...]
    costs: tuple[tuple[float, ...], ...]
    constant: float = 0

    def total(self, chosen: Sequence[int]) -> float:
        """Return the cost with level ``chosen[l]`` (an index) in layer l."""
        return self.constant + sum(row[level] for row, level in zip(self.costs, chosen, strict=True))

    def active_channels(self, chosen: Sequence[int]) -> dict[str, int]:
        """Return module name to active channels with level ``chosen[l]`` in layer l."""
        return {name: row[level] for name, row, level in zip(self.names, self.levels, chosen, strict=True)}

    @property
    def full(self) -> float:
        """Cost with all channels active in every layer."""
        return self.constant + sum(row[-1] for row in self.costs)

    @property
    def minimum(self) -> float:
        """Lowest reachable cost."""
        return self.constant + sum(min(row) for row in self.costs)

    @property
    def maximum(self) -> float:
        """Highest reachable cost."""
        return self.constant + sum(max(row) for row in self.costs)


@dataclass(frozen=True)
class SplitRow:
    """The split of one layer of a network.

    Args:
        layer: Module name.
        index: Zero-based, in forward order.
        channels: Width C.
        active_channels: Convolved channels n.
        macs: Multiply-adds of the layer's convolution for one input.
        stage: Zero-based; None where the network has none.
        block: Zero-based within the stage.
    """

    layer: str
    index: int
    channels: int
    active_channels: int
    macs: int
    stage: int | None = None
    block: int | None = None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module of ``model`` into eval mode for a while, without autograd."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def map_positions(model: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, int]:
    """Return H * W of the map at every partial convolution, summed over its calls, in forward order.

    Args:
        model: Searchable or fixed.
        input_shape: Channels, height, width of one input.

    Raises:
        ArchitectureError: If there is no partial convolution, or one is never called.
        BudgetError: If the network does not run on such an input.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, (DPConv2d, PartialConv2d))}
    if not layers:
        raise ArchitectureError(f"{type(model).__name__} contains no partial convolution")
    positions: dict[str, int] = {}

    def record(name: str, inputs: tuple[Tensor, ...]) -> None:
        positions[name] = positions.get(name, 0) + inputs[0].shape[2] * inputs[0].shape[3]

    handles = [
        layer.register_forward_pre_hook(lambda _module, inputs, name=name: record(name, inputs))
        for name, layer in layers.items()
    ]
    try:
        with evaluating(model):
            model(example_input(model, input_shape))
    except (RuntimeError, ValueError) as error:
        raise BudgetError(f"the network does not run on an input of shape {input_shape}: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
    missing = sorted(set(layers) - set(positions))
    if missing:
        raise ArchitectureError(f"partial convolutions that the forward never calls: {', '.join(missing)}")
    return positions


def split_rows(model: nn.Module, input_shape: tuple[int, int, int]) -> list[SplitRow]:
    """Return the split of every partial convolution of a searchable or fixed network, in forward order.

    Raises:
        ArchitectureError: If there is no partial convolution.
        BudgetError: If the network does not run on an input of this shape.
    """
    rows = []
    for index, (name, positions) in enumerate(map_positions(model, input_shape).items()):
        layer = model.get_submodule(name)
        assert isinstance(layer, (DPConv2d, PartialConv2d))
        n = layer.active_channels
        found = _STAGE_AND_BLOCK.search(name)
        stage, block = (int(found[1]), int(found[2])) if found else (None, None)
        rows.append(SplitRow(name, index, layer.channels, n, layer.kernel_size**2 * positions * n**2, stage, block))
    return rows


def layer_costs(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    unit: Unit = "macs",
    scope: Scope = "conv",
    table: LatencyTable | None = None,
) -> CostTable:
    """Return what ``model`` costs at every level of its ``DPConv2d`` layers.

    Args:
        model: Contains ``DPConv2d`` layers; not changed.
        input_shape: Channels, height, width of one input.
        unit: ``"macs"``, ``"params"`` or ``"latency"``.
        scope: ``"conv"`` or ``"network"``.
        table: Of the unit ``"latency"``.

    Raises:
        ArchitectureError: If there is no such layer.
        BudgetError: If the network does not run on such an input, or the table lacks an entry.
    """
    layers = dpconv_layers(model)
    positions = {name: count for name, count in map_positions(model, input_shape).items() if name in layers}
    names = tuple(positions)
    levels = tuple(layers[name].levels for name in names)
    if unit == "latency":
        if table is None:
            raise BudgetError("unit 'latency' needs a latency table")
        return _from_latency_table(table, names, levels, scope)
    if scope == "network":
        return _counted(model, input_shape, unit, names, levels)
    costs = tuple(
        tuple(layers[name].kernel_size ** 2 * (positions[name] if unit == "macs" else 1) * n * n for n in row)
        for name, row in zip(names, levels, strict=True)
    )
    return CostTable(names, levels, costs)


def budget_costs(model: nn.Module, budget: Budget) -> CostTable:
    """Return :func:`layer_costs` in the unit and scope of ``budget``."""
    return layer_costs(model, budget.input_shape, budget.unit, budget.scope, budget.table)


def reachable_costs(model: nn.Module, budget: Budget) -> tuple[float, float]:
    """Return the lowest and the highest cost that the levels of ``model`` can reach, in the unit of ``budget``."""
    table = budget_costs(model, budget)
    return table.minimum, table.maximum


def _from_latency_table(
    table: LatencyTable, names: tuple[str, ...], levels: tuple[tuple[int, ...], ...], scope: Scope
) -> CostTable:
    for name, row in zip(names, levels, strict=True):
        missing = [n for n in row if n not in table.layers.get(name, {})]
        if missing:
            raise BudgetError(f"the latency table has no entry for {name} at n = {', '.join(map(str, missing))}")
    costs = tuple(tuple(table.layers[name][n] for n in row) for name, row in zip(names, levels, strict=True))
    return CostTable(names, levels, costs, table.constant if scope == "network" else 0.0)


def _counted(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    unit: Unit,
    names: tuple[str, ...],
    levels: tuple[tuple[int, ...], ...],
) -> CostTable:
    """Count the exported network with all layers at their highest level, then one lower, and so on."""
    costs = [[0.0] * len(row) for row in levels]
    constants = []
    shapes = _shapes_only(model)
    for step in range(max(map(len, levels))):
        chosen = [max(0, len(row) - 1 - step) for row in levels]
        at_level = dict(zip(names, chosen, strict=True))
        try:
            counts = _count_at(shapes, at_level, input_shape, unit)
        except RuntimeError:
            # A module that computes with tensors of its own, or reads numbers, needs real ones.
            shapes = model
            counts = _count_at(shapes, at_level, input_shape, unit)
        for costs_of_layer, name, level in zip(costs, names, chosen, strict=True):
            costs_of_layer[level] = counts[name]
        constants.append(counts[""] - sum(counts[name] for name in names))
    # All are equal where layers are independent, which the inference form keeps.
    return CostTable(names, levels, tuple(map(tuple, costs)), constants[len(constants) // 2])


def _shapes_only(model: nn.Module) -> nn.Module:
    """Return a copy on the meta device: counting needs no numbers, and without them takes a fraction of the time."""
    copies: dict[int, Tensor] = {}
    for tensor in chain(model.parameters(), model.buffers()):
        shape = torch.empty_like(tensor, device="meta")
        copies[id(tensor)] = nn.Parameter(shape, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else shape
    return copy.deepcopy(model, copies)


def _count_at(
    model: nn.Module, at_level: Mapping[str, int], input_shape: tuple[int, int, int], unit: Unit
) -> dict[str, int]:
    network = copy.deepcopy(model)
    for name, level in at_level.items():
        layer = network.get_submodule(name)
        assert isinstance(layer, DPConv2d)
        layer.set_level(level)
    network = fuse(fix_layers(network))
    if unit == "macs":
        return macs_by_module(network, input_shape)
    return {name: sum(p.numel() for p in network.get_submodule(name).parameters()) for name in ("", *at_level)}
