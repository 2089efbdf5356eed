"""Networks of a wider space that are uniform in all kinds of choices, or in all but one. Loads torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from nas.definition.study import StudyDefinition
from nas.finalist import Finalist, Role
from nas.sweep.learned_network import LearnedNetwork
from nas.sweep.space_networks import SpaceNetworks
from partialnet.kinds import KINDS
from partialnet.search.ablation import only_kind
from partialnet.search.cost import CostTable
from partialnet.search.units import TOLERANCE

_QUARTER = 1 / 4  # the published ratio
_SPLITS = (1.0, 2.0, 1 / 2, 4.0, 1 / 4)
"""Uniform splits that are tried, relative to the published ones, in this order."""
_SHARES = tuple(step / 64 for step in range(16, 97))
"""Hidden widths of all MLPs that are tried, relative to the usual ones."""


class AblatedNetworks:
    """Networks beside a learned one, in which no kind of choice, or only one, differs from block to block.

    Args:
        definition: Definition of the study.
        classes: Number of classes of the data set.
        table: Cost of the whole network at the options of the study's space.
    """

    def __init__(self, definition: StudyDefinition, classes: int, table: CostTable) -> None:
        self._table = table
        self._networks = SpaceNetworks(definition, classes)

    def uniform(self, choice: LearnedNetwork, cost: float) -> Finalist:
        """Return the network with all blocks, one ratio and one hidden width whose cost is the closest to ``cost``.

        Its ratio is the published one if a hidden width meets the cost then.
        """
        kinds = self._table.space.kinds
        tried: list[tuple[float, float, float, dict[str, int]]] = []
        for split in _SPLITS if "active_channels" in kinds else (1.0,):
            for share in _SHARES if "hidden_channels" in kinds else (1.0,):
                settings = self._uniform_settings(split, share)
                tried.append((abs(self._cost(settings) / cost - 1), split, share, settings))
            if min(tried, key=lambda entry: entry[0])[0] <= TOLERANCE:
                break
        _, split, share, settings = min(tried, key=lambda entry: entry[0])
        active, blocks = self._networks.network(settings)
        return Finalist(Role.UNIFORM, *choice.place, active, ratio=split * _QUARTER, blocks=blocks, mlp=share)

    def ablated(self, choice: LearnedNetwork) -> Iterator[Finalist]:
        """Yield a network of equal cost for each kind of choice, in which only this kind is as learned."""
        space = self._table.space
        learned = space.chosen(self._networks.settings(choice.candidate.architecture))
        published = space.chosen(self._networks.published)
        for quantity, kind in sorted(self._networks.kinds.items(), key=lambda item: KINDS.index(item[1])):
            found = only_kind(self._table, learned, published, quantity, choice.cost)
            active, blocks = self._networks.network(space.settings(found.levels))
            yield Finalist(Role.ABLATED, *choice.place, active, blocks=blocks, kind=kind)

    def _uniform_settings(self, split: float, share: float) -> dict[str, int]:
        settings = {}
        for (unit, place), values in zip(self._table.space.flat, self._table.space.values, strict=True):
            name = self._table.space.choices[unit][place]
            published, quantity = self._networks.published[name], self._networks.quantity[name]
            if quantity == "hidden_channels":
                settings[name] = max(1, round(share * published))
            else:
                wanted = {"active_channels": split * published, "presence": 1}.get(quantity, published)
                settings[name] = min(values, key=lambda value: abs(math.log2(value / wanted)) if value else math.inf)
        return settings

    def _cost(self, settings: Mapping[str, int]) -> float:
        """Return the cost of a network; it is linear in each hidden width, which need not be one of the table."""
        space, total = self._table.space, self._table.constant
        for unit, names in enumerate(space.choices):
            values = [settings[name] for name in names]
            place = next((k for k, kind in enumerate(space.quantities[unit]) if kind == "hidden_channels"), None)
            if place is None:
                total += self._table.cost(unit, values)
                continue
            widths = sorted({option[place] for option in space.options[unit] if len(option) > place})
            ends = widths[0], widths[-1]
            costs = [self._table.cost(unit, [*values[:place], width, *values[place + 1 :]]) for width in ends]
            total += float(np.polyval(np.polyfit(ends, costs, 1), values[place]))
        return total
