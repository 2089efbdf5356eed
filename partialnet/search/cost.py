"""The cost of a network at each option of each unit, such as each level of a layer with a learned split.

In scope ``conv`` the cost of a layer has a closed form: k^2 * n^2 weights, times H * W multiply-adds. In scope
``network`` it is counted: the network is exported, brought into its inference form, and counted module by module, at as
many levels as determine the others. The cost of a unit depends only on its own choices, so the total is a constant plus
one entry for each unit. It is not monotone in n, since attention on the remaining channels becomes more expensive as n
falls.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import InitVar, dataclass, field
from fractions import Fraction
from math import prod

from torch import nn

from partialnet.errors import ArchitectureError, BudgetError
from partialnet.export import fixed_copy
from partialnet.fuse import fuse_in_place
from partialnet.layers.choice import Choice, at_levels, choices_of
from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.droppable import Droppable
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.search.calls import called_sizes, map_positions
from partialnet.search.choices import space_of
from partialnet.search.latency_rows import unit_times
from partialnet.search.latency_table import LatencyTable
from partialnet.search.operations import macs_by_module, traced
from partialnet.search.space import SearchSpace
from partialnet.search.units import Scope, Unit

_STAGE_AND_BLOCK = re.compile(r"(?:^|\.)stages\.(\d+)\.blocks\.(\d+)(?:\.|$)")
_COUNTS = 3  # number of counts that determine a polynomial of degree two


@dataclass(frozen=True)
class CostTable:
    """Cost of each unit of a search space at each option; the total is their sum plus the constant part.

    Most units are layers with a learned split, whose options are their levels.

    Args:
        names: Module names of the units in forward order.
        levels: Values of the options of each unit, ascending: legal numbers of active channels, or hidden widths. For
            a unit with several choices the numbers of its options.
        costs: Costs of each unit at each of them.
        constant: Cost of the rest of the network; 0 in scope ``conv``.
        units: Units and their options; None for layers with a learned split.

    Attributes:
        space: Units and their options.
    """

    names: tuple[str, ...]
    levels: tuple[tuple[int, ...], ...]
    costs: tuple[tuple[float, ...], ...]
    constant: float = 0
    units: InitVar[SearchSpace | None] = None
    space: SearchSpace = field(init=False)

    def __post_init__(self, units: SearchSpace | None) -> None:
        object.__setattr__(self, "space", units or SearchSpace.of_layers(self.names, self.levels))

    @classmethod
    def of(cls, space: SearchSpace, costs: Sequence[Sequence[float]], constant: float = 0) -> CostTable:
        """Return the table of a space, with a cost for each unit and option."""
        levels = tuple(
            tuple(option[0] for option in row) if len(names) == 1 else tuple(range(len(row)))
            for names, row in zip(space.choices, space.options, strict=True)
        )
        return cls(space.names, levels, tuple(map(tuple, costs)), constant, space)

    def cost(self, unit: int, values: Sequence[int]) -> float:
        """Return the cost of a unit with these values of its choices; those in an absent block do not matter."""
        return self.costs[unit][self.space.place(unit, values)]

    def total(self, chosen: Sequence[int]) -> float:
        """Return the cost with option ``chosen[u]`` (an index) of unit u."""
        return self.constant + sum(row[level] for row, level in zip(self.costs, chosen, strict=True))

    def active_channels(self, chosen: Sequence[int]) -> dict[str, int]:
        """Return the active channels by module name, with option ``chosen[u]`` of unit u."""
        return self.space.active_channels(chosen)

    def kept(self, keep: Sequence[Sequence[int]]) -> CostTable:
        """Return the table of some options of each unit (indices, ascending)."""
        costs = [[row[place] for place in places] for row, places in zip(self.costs, keep, strict=True)]
        return CostTable.of(self.space.kept(keep), costs, self.constant)

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
    """Return the cost of ``model`` at each option of each unit that a search may choose, such as the levels of a split.

    Args:
        model: Network with choices; it stays unchanged.
        input_shape: Channels, height, width of one input.
        unit: Unit of the cost: ``"macs"``, ``"params"`` or ``"latency"``.
        scope: Part of the network that counts: ``"conv"`` or ``"network"``.
        table: Latency table for the unit ``"latency"``.

    Raises:
        ArchitectureError: If there is no choice.
        BudgetError: If the network cannot process such an input, the table lacks an entry, or unit and scope do not
            cover what is chosen.
    """
    return allowed(model, all_costs(model, input_shape, unit, scope, table))


def allowed(model: nn.Module, costs: CostTable) -> CostTable:
    """Return the table of the options that a search may choose: those above the upper bound of a layer are left out."""
    limits = {name: layer.max_channels for name, layer in choices_of(model).items() if isinstance(layer, DPConv2d)}
    return costs.kept(costs.space.up_to(limits))


def all_costs(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    unit: Unit = "macs",
    scope: Scope = "conv",
    table: LatencyTable | None = None,
) -> CostTable:
    """Return the cost of ``model`` at each option of each unit, whether or not a search may choose it; see
    :func:`layer_costs`.
    """
    choices = choices_of(model)
    _check_covered({choice.kind for choice in choices.values()}, scope)
    called = {name: choice for name, choice in choices.items() if choice.stands_alone}
    sizes = called_sizes(model, called, input_shape)
    if missing := sorted(set(called) - set(sizes)):
        raise ArchitectureError(f"searched layers that the forward never calls: {', '.join(missing)}")
    space = space_of(model, list(sizes))
    if unit == "latency":
        if table is None:
            raise BudgetError("unit 'latency' needs a latency table")
        return CostTable.of(space, *unit_times(model, input_shape, table, scope, space))
    positions = {
        name: sum(map(prod, sizes[name])) if unit == "macs" else 1
        for name, choice in choices.items()
        if isinstance(choice, DPConv2d)
    }
    if scope == "network":
        return _counted(model, input_shape, unit, space, positions, sizes)
    costs = []
    for name, names, options in zip(space.names, space.choices, space.options, strict=True):
        layer = choices[name]
        assert isinstance(layer, DPConv2d)
        values = [dict(zip(names, option, strict=True)) for option in options]
        kernels = [found.get(f"{name}.kernel", layer.kernel_size) for found in values]
        costs.append([convolution_cost(positions[name], v[name], k) for v, k in zip(values, kernels, strict=True)])
    return CostTable.of(space, costs)


def convolution_cost(positions: int, active_channels: int, kernel_size: int) -> int:
    """Return the multiply-adds of a partial convolution on a map of ``positions``; its parameters for 1."""
    return positions * (kernel_size * active_channels) ** 2


def _check_covered(kinds: Set[str], scope: Scope) -> None:
    """Refuse a cost that does not depend on all choices.

    Raises:
        BudgetError: If it leaves some out; the message names them.
    """
    more = ", ".join(sorted(set(kinds) - {"split", "attention", "kernel"}))
    if more and scope == "conv":
        raise BudgetError(f"scope 'conv' counts partial convolutions only, but {more} is searched; use scope 'network'")


def _counted(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    unit: Unit,
    space: SearchSpace,
    positions: Mapping[str, int],
    sizes: Mapping[str, Sequence[tuple[int, int]]],
) -> CostTable:
    """Count each choice of the exported network at three levels, and fit a polynomial; count the whole network once.

    With D = C - n, the convolution costs n^2 and the square of its kernel size, products of the attention D^2, and
    operations on elements D. With three parts D counts the attended channels alone. Only the table of relative
    positions does not shrink; it disappears without a rest. An MLP's cost is linear in its hidden width. The cost of a
    block is that of its layers and of what remains in it.

    Args:
        model: Network with choices.
        input_shape: Channels, height, width of one input.
        unit: Unit of the cost: ``"macs"`` or ``"params"``.
        space: Search space of the network.
        positions: Positions of the map of each partial convolution; 1 for the unit ``"params"``.
        sizes: Height and width of the map in each call of each choice that stands alone.
    """
    choices = choices_of(model)
    alone = [name for name, choice in choices.items() if choice.stands_alone and not isinstance(choice, Droppable)]
    usual = {name: layer.kernel_size for name, layer in choices.items() if isinstance(layer, DPConv2d)}
    known: dict[str, dict[int, int]] = {name: {} for name in alone}
    for step in range(_COUNTS):
        at_level = {name: _counted_level(choice, step) for name, choice in choices.items()}
        network = inference_form(model, at_level)
        # The last counts also tell what lies between the choices.
        last = step == _COUNTS - 1
        counts = _count(network, input_shape, unit) if last else _count_alone(network, alone, choices, sizes, unit)
        for name in alone:
            value = choices[name].levels[at_level[name]]
            convolved = convolution_cost(positions[name], value, usual[name]) if name in positions else 0
            known[name][value] = counts[name] - convolved

    def cost(name: str, value: int, values: Mapping[str, int]) -> int:
        if name not in positions:
            return _interpolated(known[name], value)
        channels = choices[name].channels
        start = max(value, channels - values.get(f"{name}.attended", channels))
        rest = 0 if start == channels else _interpolated(known[name], start)
        return rest + convolution_cost(positions[name], value, values.get(f"{name}.kernel", usual[name]))

    rows: list[list[int]] = []
    for index, (names, options) in enumerate(zip(space.choices, space.options, strict=True)):
        layers = [name for name in names if name in alone]
        remains = counts[space.names[index]] - sum(counts[name] for name in layers)
        rows.append([])
        for option in options:
            values = dict(zip(names, option, strict=False))
            whole = space.is_whole(index, option)
            rows[-1].append(remains + sum(cost(name, values[name], values) for name in layers) if whole else 0)
    return CostTable.of(space, rows, counts[""] - sum(counts[name] for name in space.names))


def _counted_level(choice: Choice, step: int) -> int:
    """Return the level of a choice at one of the counts: a block is there, and attention serves what it can."""
    if isinstance(choice, Droppable):
        return len(choice.levels) - 1
    if not choice.stands_alone:
        return choice.level if choice.kind == "kernel" else len(choice.levels) - 1
    # The full width of a convolution has no rest, so it does not lie on the polynomial.
    return min(step, len(choice.levels) - (2 if isinstance(choice, DPConv2d) else 1))


def _interpolated(known: Mapping[int, int], n: int) -> int:
    """Return the value at ``n`` of the polynomial through the known points (Lagrange), exact for whole values."""
    value = Fraction(0)
    for at, count in known.items():
        value += count * prod((Fraction(n - other, at - other) for other in known if other != at), start=Fraction(1))
    assert value.denominator == 1
    return int(value)


def inference_form(model: nn.Module, at_level: Mapping[str, int]) -> nn.Module:
    """Return the inference form of a network at given levels of all its choices.

    Args:
        model: Network with choices; it stays unchanged.
        at_level: Index of the level by module name.
    """
    choices = choices_of(model)
    with at_levels({choices[name]: level for name, level in at_level.items()}):
        return fuse_in_place(fixed_copy(model))


def _count(network: nn.Module, input_shape: tuple[int, int, int], unit: Unit) -> dict[str, int]:
    """Return the cost of each module of an inference form."""
    if unit == "macs":
        return macs_by_module(network, input_shape)
    return {name: _parameters(module) for name, module in network.named_modules()}


def _count_alone(
    network: nn.Module,
    names: Sequence[str],
    choices: Mapping[str, Choice],
    sizes: Mapping[str, Sequence[tuple[int, int]]],
    unit: Unit,
) -> dict[str, int]:
    """Return the cost of some modules of an inference form, without the operations between them.

    Args:
        network: Inference form.
        names: Names of the modules, which stand for choices.
        choices: Choices by module name.
        sizes: Height and width of the map in each call of each choice.
        unit: Unit of the cost.
    """
    parts = {name: network.get_submodule(name) for name in names}
    if unit != "macs":
        return {name: _parameters(part) for name, part in parts.items()}
    found = {}
    for name, part in parts.items():
        calls = Counter((choices[name].channels, *size) for size in sizes[name])
        found[name] = sum(count * int(traced(part, shape).total()) for shape, count in calls.items())
    return found


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
