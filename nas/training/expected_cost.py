"""The cost that the network of a running search is going to have, from the report of an epoch. Loads torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
from torch import nn

from nas.definition.space import Parameters
from nas.definition.study import StudyDefinition
from nas.training.build import build_network
from nas.trial import EpochRecord
from partialnet.search.cost import CostTable, layer_costs
from partialnet.search.latency_table import LatencyTable
from partialnet.search.units import Scope, Unit

_COUNTED: Mapping[str, tuple[Unit, Scope]] = MappingProxyType(
    {
        "conv_macs": ("macs", "conv"),
        "params": ("params", "network"),
        "params_inference": ("params", "network"),
        "predicted_ms": ("latency", "network"),
    }
)
"""Counts that have a table of their own; for any other metric of cost, multiply-adds of the network stand."""
_UNDECIDED = frozenset({"warmup", "uniform"})
_RATIOS = tuple(2 ** (-quarter / 4) for quarter in range(24, -1, -1))


@dataclass(frozen=True)
class ExpectedCosts:
    """Expected costs of a study's networks. The tables are counted at the first question, which takes seconds.

    Once a training has begun to choose its split, the cost is that of the present split. Before, it is that of the
    uniform ratio that costs as much as the target, in the unit of the budget.

    Args:
        definition: Network, data and budget of the study.
        classes: Number of classes.
        metrics: Metrics of cost, keys of :data:`nas.metrics.METRICS`.
        table: Latency table of the study, if it has one.
    """

    definition: StudyDefinition
    classes: int
    metrics: tuple[str, ...]
    table: LatencyTable | None = None

    def of_shape(self, parameters: Parameters) -> ExpectedCosts:
        """Return the costs of the network's shape in a trial with these parameters; one object for each shape."""
        definition = self.definition.shaped(parameters)
        if definition is self.definition:
            return self
        key = json.dumps(definition.to_dict()["model"], sort_keys=True)
        return self._shapes.setdefault(key, ExpectedCosts(definition, self.classes, self.metrics, self.table))

    @cached_property
    def _shapes(self) -> dict[str, ExpectedCosts]:
        return {}

    def __call__(self, record: EpochRecord) -> dict[str, float]:
        """Return the expected costs of a trial by metric."""
        if record.phase in _UNDECIDED:
            target = record.metrics["target"]
            return {metric: float(np.interp(target, *curve)) for metric, curve in self._curves.items()}
        chosen = record.active_channels
        return {metric: table.total(table.space.chosen(chosen)) for metric, table in self._tables.items()}

    @cached_property
    def _network(self) -> nn.Module:
        return build_network(self.definition, self.classes)

    @cached_property
    def _known(self) -> dict[tuple[Unit, Scope], CostTable]:
        return {}

    def _costs(self, unit: Unit, scope: Scope) -> CostTable:
        """Return the costs of the network, counted once for each unit and scope."""
        if (unit, scope) not in self._known:
            shape = self.definition.data.input_shape
            self._known[unit, scope] = layer_costs(self._network, shape, unit, scope, self.table)
        return self._known[unit, scope]

    @cached_property
    def _tables(self) -> dict[str, CostTable]:
        return {metric: self._costs(*_COUNTED.get(metric, ("macs", "network"))) for metric in self.metrics}

    @cached_property
    def _curves(self) -> dict[str, tuple[list[float], list[float]]]:
        """Costs of uniform ratios, ascending in the unit of the budget: those of the budget, and of each metric."""
        paid = self._costs(self.definition.budget.unit, self.definition.budget.scope)
        curves = {}
        for metric, table in self._tables.items():
            pairs = {paid.total(_uniform(paid, ratio)): table.total(_uniform(table, ratio)) for ratio in _RATIOS}
            ascending = sorted(pairs.items())
            curves[metric] = ([cost for cost, _ in ascending], [cost for _, cost in ascending])
        return curves


def _uniform(table: CostTable, ratio: float) -> list[int]:
    """Return the options of the levels that are closest to a ratio of the highest one, with all blocks."""
    space = table.space
    values: list[list[int]] = [[] for _ in space.names]
    for (unit, place), levels in zip(space.flat, space.values, strict=True):
        wanted = 1.0 if space.droppable(unit) and place == 0 else ratio
        values[unit].append(min(levels, key=lambda level: abs(level - wanted * levels[-1])))
    return [space.place(unit, row) for unit, row in enumerate(values)]
