"""The cost of a network at each level of each layer with a learned split.

In scope ``conv`` the cost of a layer has a closed form: k^2 * n^2 weights, times H * W multiply-adds. In scope
``network`` it is counted: the network is exported, brought into its inference form, and counted module by module, at as
many levels as determine the others. A layer's cost depends only on its own level, so the total is a constant plus one
entry for each layer. It is not monotone in n, since attention on the remaining channels becomes more expensive as n
falls.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import prod

import torch
from torch import Tensor, nn

from partialnet.errors import ArchitectureError, BudgetError
from partialnet.fuse import fuse
from partialnet.layers.dpconv import DPConv2d, dpconv_layers
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.search.latency_table import LatencyTable, LayerKey
from partialnet.search.operations import example_input, macs_by_module
from partialnet.search.units import Scope, Unit
from partialnet.train.evaluation import evaluation_mode

_STAGE_AND_BLOCK = re.compile(r"(?:^|\.)stages\.(\d+)\.blocks\.(\d+)(?:\.|$)")
_COUNTS = 3  # number of counts that determine a polynomial of degree two


@dataclass(frozen=True)
class CostTable:
    """Cost of each layer at each level; the total is their sum plus the constant part.

    Args:
        names: Module names in forward order.
        levels: Legal numbers of active channels of each layer, ascending.
        costs: Costs of each layer at each of them.
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
        """Return the active channels by module name, with level ``chosen[l]`` in layer l."""
        return {name: row[level] for name, row, level in zip(self.names, self.levels, chosen, strict=True)}

    def up_to(self, counts: Sequence[int]) -> CostTable:
        """Return the table with the first ``counts[l]`` levels of layer l."""
        return CostTable(
            self.names,
            tuple(row[:count] for row, count in zip(self.levels, counts, strict=True)),
            tuple(row[:count] for row, count in zip(self.costs, counts, strict=True)),
            self.constant,
        )

    @property
    def full(self) -> float:
        """Cost with the highest level in every layer."""
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
        layer: Module name of the layer.
        index: Zero-based index of the layer in forward order.
        channels: Width C.
        active_channels: Convolved channels n.
        macs: Multiply-adds of the layer's convolution for one input.
        stage: Zero-based stage; None in a network without stages.
        block: Zero-based block within the stage.
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
    """Put each module of ``model`` into evaluation mode inside the block, without autograd."""
    with evaluation_mode(model), torch.no_grad():
        yield


def map_sizes(model: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, list[tuple[int, int]]]:
    """Return height and width of the map in each call of each partial convolution, in forward order.

    Args:
        model: Searchable or fixed network.
        input_shape: Channels, height, width of one input.

    Raises:
        ArchitectureError: If there is no partial convolution, or one is never called.
        BudgetError: If the network cannot process such an input.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, (DPConv2d, PartialConv2d))}
    if not layers:
        raise ArchitectureError(f"{type(model).__name__} contains no partial convolution")
    sizes: dict[str, list[tuple[int, int]]] = {}

    def record(name: str, inputs: tuple[Tensor, ...]) -> None:
        height, width = inputs[0].shape[2:]
        sizes.setdefault(name, []).append((height, width))

    handles = [
        layer.register_forward_pre_hook(lambda _module, inputs, name=name: record(name, inputs))
        for name, layer in layers.items()
    ]
    try:
        with evaluating(model):
            model(example_input(model, input_shape))
    except (RuntimeError, ValueError) as error:
        raise BudgetError(f"the network cannot process an input of shape {input_shape}: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
    missing = sorted(set(layers) - set(sizes))
    if missing:
        raise ArchitectureError(f"partial convolutions that the forward never calls: {', '.join(missing)}")
    return sizes


def map_positions(model: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, int]:
    """Return H * W of the map at each partial convolution, summed over its calls, in forward order.

    Raises:
        ArchitectureError: If there is no partial convolution, or one is never called.
        BudgetError: If the network cannot process such an input.
    """
    return {name: sum(map(prod, calls)) for name, calls in map_sizes(model, input_shape).items()}


def latency_keys(
    model: nn.Module, input_shape: tuple[int, int, int]
) -> dict[str, tuple[tuple[LayerKey, ...], ...]]:
    """Return the rows of a latency table that ``model`` needs, in forward order.

    Args:
        model: Searchable or fixed network.
        input_shape: Channels, height, width of one input.

    Returns:
        Keys of the calls, for each layer and level (a fixed layer has one level).

    Raises:
        ArchitectureError: If there is no partial convolution, or one is never called.
        BudgetError: If the network cannot process such an input.
    """
    keys = {}
    for name, calls in map_sizes(model, input_shape).items():
        layer = model.get_submodule(name)
        assert isinstance(layer, (DPConv2d, PartialConv2d))
        heads = layer.num_heads if layer.rest_kind == "self_attention" else 0
        levels = layer.levels if isinstance(layer, DPConv2d) else (layer.active_channels,)
        keys[name] = tuple(
            tuple(LayerKey(*size, layer.channels, n, layer.kernel_size, layer.rest_kind, heads) for size in calls)
            for n in levels
        )
    return keys


def split_rows(model: nn.Module, input_shape: tuple[int, int, int]) -> list[SplitRow]:
    """Return the split of each partial convolution of a searchable or fixed network, in forward order.

    Raises:
        ArchitectureError: If there is no partial convolution.
        BudgetError: If the network cannot process an input of this shape.
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
    """Return the cost of ``model`` at each level of its ``DPConv2d`` layers that a search may choose.

    Args:
        model: Network with ``DPConv2d`` layers; it stays unchanged.
        input_shape: Channels, height, width of one input.
        unit: Unit of the cost: ``"macs"``, ``"params"`` or ``"latency"``.
        scope: Part of the network that counts: ``"conv"`` or ``"network"``.
        table: Latency table for the unit ``"latency"``.

    Raises:
        ArchitectureError: If there is no such layer.
        BudgetError: If the network cannot process such an input, or the table lacks an entry.
    """
    costs = _all_costs(model, input_shape, unit, scope, table)
    layers = dpconv_layers(model)
    rows = zip(costs.names, costs.levels, strict=True)
    return costs.up_to([sum(n <= layers[name].max_channels for n in row) for name, row in rows])


def full_cost(
    model: nn.Module, input_shape: tuple[int, int, int], unit: Unit = "macs", scope: Scope = "conv"
) -> float:
    """Return the cost with all channels active in every layer, whether or not a search may choose them; see
    :func:`layer_costs`.
    """
    return _all_costs(model, input_shape, unit, scope, None).full


def _all_costs(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    unit: Unit,
    scope: Scope,
    latencies: LatencyTable | None,
) -> CostTable:
    layers = dpconv_layers(model)
    if unit == "latency":
        if latencies is None:
            raise BudgetError("unit 'latency' needs a latency table")
        return _from_latency_table(model, input_shape, latencies, scope)
    positions = {name: count for name, count in map_positions(model, input_shape).items() if name in layers}
    names = tuple(positions)
    levels = tuple(layers[name].levels for name in names)
    if scope == "network":
        return _counted(model, input_shape, unit, positions, levels)
    costs = tuple(
        tuple(layers[name].kernel_size ** 2 * (positions[name] if unit == "macs" else 1) * n * n for n in row)
        for name, row in zip(names, levels, strict=True)
    )
    return CostTable(names, levels, costs)


def _from_latency_table(
    model: nn.Module, input_shape: tuple[int, int, int], table: LatencyTable, scope: Scope
) -> CostTable:
    """Look up each layer. A layer with a fixed split has no choice, so its time joins the constant."""
    layers = dpconv_layers(model)
    times = {
        name: tuple(sum(table.time(key, name) for key in calls) for calls in rows)
        for name, rows in latency_keys(model, input_shape).items()
        if name in layers or scope == "network"
    }
    names = tuple(name for name in times if name in layers)
    levels = tuple(layers[name].levels for name in names)
    constant = 0.0
    if scope == "network":
        constant = table.constant_ms + sum(row[0] for name, row in times.items() if name not in layers)
    return CostTable(names, levels, tuple(times[name] for name in names), constant)


def _counted(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    unit: Unit,
    positions: Mapping[str, int],
    levels: tuple[tuple[int, ...], ...],
) -> CostTable:
    """Count the exported network three times, and fit a parabola to the three counts of each layer.

    With D = C - n, the convolution costs n^2, products of the attention D^2, and operations on elements D. Only the
    table of relative positions does not shrink; it disappears at n = C, without a rest.
    """
    layers = dpconv_layers(model)
    counted: list[dict[int, int]] = [{} for _ in levels]
    constant = 0
    for step in range(_COUNTS):
        at_level = {name: min(step, len(row) - 2) for name, row in zip(positions, levels, strict=True)}
        counts = _count_at(model, at_level, input_shape, unit)
        for known, row, (name, level) in zip(counted, levels, at_level.items(), strict=True):
            known[row[level]] = counts[name]
        constant = counts[""] - sum(counts[name] for name in positions)
    costs = []
    for (name, count), known, row in zip(positions.items(), counted, levels, strict=True):
        full = layers[name].kernel_size ** 2 * (count if unit == "macs" else 1) * row[-1] ** 2
        costs.append((*(_interpolated(known, n) for n in row[:-1]), full))
    return CostTable(tuple(positions), levels, tuple(costs), constant)


def _interpolated(known: Mapping[int, int], n: int) -> int:
    """Return the value at ``n`` of the polynomial through the known points (Lagrange), exact for whole values."""
    value = Fraction(0)
    for at, count in known.items():
        value += count * prod((Fraction(n - other, at - other) for other in known if other != at), start=Fraction(1))
    assert value.denominator == 1
    return int(value)


def inference_form(model: nn.Module, at_level: Mapping[str, int]) -> nn.Module:
    """Return the inference form of a network at given levels of all its ``DPConv2d`` layers.

    Args:
        model: Network with ``DPConv2d`` layers; it stays unchanged.
        at_level: Index of the level by module name.
    """
    fixed = {}
    for name, level in at_level.items():
        twin = copy.copy(model.get_submodule(name))
        assert isinstance(twin, DPConv2d)
        twin.set_level(level)
        fixed[id(model.get_submodule(name))] = twin.fixed()
    # The fixed layers replace the full-width ones in the copy, so that these need not be copied.
    return fuse(copy.deepcopy(model, fixed))


def predicted_latency(network: nn.Module, input_shape: tuple[int, int, int], table: LatencyTable) -> float:
    """Return the milliseconds that a table predicts for a network with fixed splits; it interpolates between levels.

    Args:
        network: Network whose partial convolutions are fixed.
        input_shape: Channels, height, width of one input.
        table: Table with a constant.

    Raises:
        ArchitectureError: If there is no partial convolution, or one is never called.
        BudgetError: If the network cannot process such an input, or the table lacks a shape or the constant.
    """
    calls = ((name, key) for name, (level,) in latency_keys(network, input_shape).items() for key in level)
    return table.constant_ms + sum(table.estimate(key, name) for name, key in calls)


def _count_at(
    model: nn.Module, at_level: Mapping[str, int], input_shape: tuple[int, int, int], unit: Unit
) -> dict[str, int]:
    network = inference_form(model, at_level)
    if unit == "macs":
        return macs_by_module(network, input_shape)
    return {name: sum(p.numel() for p in network.get_submodule(name).parameters()) for name in ("", *at_level)}
