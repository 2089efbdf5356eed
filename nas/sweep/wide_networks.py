"""The final comparison of a study that searches more than the split: its uniform, random and ablated networks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from nas.definition.study import StudyDefinition
from nas.finalist import Finalist, Role
from nas.sweep.scaled_networks import LearnedNetwork
from nas.training.build import build_network
from nas.trial import trial_seed
from partialnet.architecture import Architecture
from partialnet.layers.choice import choices_of
from partialnet.networks import architecture_of
from partialnet.search.ablation import only_kind
from partialnet.search.cost import layer_costs
from partialnet.search.selection import presence_weights, sample_within
from partialnet.search.units import TOLERANCE

_SPLITS = (1.0, 2.0, 1 / 2, 4.0, 1 / 4)
"""Uniform splits that are tried, relative to the published ones, in this order."""
_SHARES = tuple(step / 64 for step in range(16, 97))
"""Hidden widths of all MLPs that are tried, relative to the usual ones."""
_ABSENT = 0.25
"""Probability that a random network lacks a block, before its cost is known."""


class WideNetworks:
    """Networks beside a learned one, in a space of several kinds of choices.

    Args:
        definition: Definition of the study.
        classes: Number of classes of the data set.
    """

    def __init__(self, definition: StudyDefinition, classes: int) -> None:
        self._definition = definition
        network = build_network(definition, classes)
        self._table = layer_costs(network, definition.data.input_shape, definition.budget.unit, "network")
        choices = choices_of(network)
        self._published = {name: choice.chosen for name, choice in choices.items()}
        self._quantity = {name: choice.quantity for name, choice in choices.items()}
        self._kinds = {choice.quantity: choice.kind for choice in choices.values()}
        self._active = dict(architecture_of(network).active_channels)

    def around(self, choice: LearnedNetwork) -> list[Finalist]:
        """Return a learned network and those to compare it with."""
        against = self._definition.final.against
        learned = self._of_architecture(choice)
        found, known = [learned], {_network(learned)}
        if "uniform" in against:
            found += [finalist for finalist in [self._uniform(choice)] if _network(finalist) not in known]
            known |= {_network(finalist) for finalist in found}
        if "random" in against and self._definition.final.random:
            draws = [finalist for finalist in self._random(choice, len(known)) if _network(finalist) not in known]
            found += draws[: self._definition.final.random]
        return [*found, *(self._ablated(choice) if self._definition.final.ablate else ())]

    def _of_architecture(self, choice: LearnedNetwork) -> Finalist:
        architecture = choice.candidate.architecture
        known = architecture.active_channels
        active = tuple(known[name] for name in self._active if name in known)
        return Finalist(Role.LEARNED, *choice.place, active, blocks=_blocks(architecture))

    def _of_settings(self, role: Role, choice: LearnedNetwork, settings: Mapping[str, int], **facts: Any) -> Finalist:
        """Return a network with these values of its choices; those that are not given are the published ones."""
        of_kind: dict[str, dict[str, int]] = {}
        for name, value in {**self._published, **settings}.items():
            of_kind.setdefault(self._quantity[name], {})[name] = value
        absent = {name for name, value in of_kind.get("presence", {}).items() if not value}
        active = {**self._active, **of_kind.get("active_channels", {})}
        hidden = of_kind.get("hidden_channels", {})
        blocks = _written(
            {name: width for name, width in hidden.items() if width != self._published[name] and not _in(name, absent)},
            absent,
        )
        present = tuple(n for name, n in active.items() if not _in(name, absent))
        return Finalist(role, *choice.place, present, blocks=blocks, **facts)

    def _random(self, choice: LearnedNetwork, spare: int) -> list[Finalist]:
        """Return random networks within 2 % of a network's cost; one of them may be the network."""
        seed = trial_seed(self._definition.sweep.seed, -1 - choice.of) + choice.position
        generator = torch.Generator().manual_seed(seed)
        count, space = self._definition.final.random + spare, self._table.space
        weights = presence_weights(space, _ABSENT)
        drawn = sample_within(self._table, choice.cost, generator, count, weights=weights)
        return [
            self._of_settings(Role.RANDOM, choice, space.settings(levels), draw=draw)
            for draw, levels in enumerate(drawn)
        ]

    def _uniform(self, choice: LearnedNetwork) -> Finalist:
        """Return the network with all blocks, one ratio and one hidden width that costs as much.

        Its ratio is the published one if a hidden width meets the cost then.
        """
        kinds = self._table.space.kinds
        best: tuple[float, dict[str, int], float, float] | None = None
        for split in _SPLITS if "active_channels" in kinds else (1.0,):
            for share in _SHARES if "hidden_channels" in kinds else (1.0,):
                settings = self._uniform_settings(split, share)
                off = abs(self._cost(settings) / choice.cost - 1)
                if best is None or off < best[0]:
                    best = off, settings, split, share
            assert best is not None
            if best[0] <= TOLERANCE:
                break
        _, settings, split, share = best
        ratio = split / 4  # the published split is a quarter
        return self._of_settings(Role.UNIFORM, choice, settings, ratio=ratio, mlp=share)

    def _uniform_settings(self, split: float, share: float) -> dict[str, int]:
        settings = {}
        for (unit, place), values in zip(self._table.space.flat, self._table.space.values, strict=True):
            name = self._table.space.choices[unit][place]
            published, quantity = self._published[name], self._quantity[name]
            if quantity == "hidden_channels":
                settings[name] = max(1, round(share * published))
            else:
                wanted = split * published if quantity == "active_channels" else 1
                settings[name] = min(values, key=lambda value: abs(math.log2(value / wanted)) if value else math.inf)
        return settings

    def _cost(self, settings: Mapping[str, int]) -> float:
        """Return the cost of a network; it is linear in each hidden width, between those of the table and beyond."""
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

    def _ablated(self, choice: LearnedNetwork) -> Iterator[Finalist]:
        """Yield a network for each kind of choice, in which only this kind is as learned."""
        space = self._table.space
        learned = space.chosen(self._settings(choice.candidate.architecture))
        published = space.chosen(self._published)
        for quantity, kind in self._kinds.items():
            found = only_kind(self._table, learned, published, quantity, choice.cost)
            yield self._of_settings(Role.ABLATED, choice, space.settings(found.levels), kind=kind)

    def _settings(self, architecture: Architecture) -> dict[str, int]:
        """Return the values of all choices of an architecture, without those in absent blocks."""
        absent = set(architecture.absent_blocks)
        found = {}
        for name, published in self._published.items():
            if self._quantity[name] == "presence":
                found[name] = int(name not in absent)
            elif not _in(name, absent):
                given = {**architecture.active_channels, **architecture.hidden_channels}
                found[name] = given.get(name, published)
        return found


def _in(name: str, blocks: set[str]) -> bool:
    return any(name == block or name.startswith(f"{block}.") for block in blocks)


def _blocks(architecture: Architecture) -> str | None:
    return _written(architecture.hidden_channels, architecture.absent_blocks)


def _written(hidden: Mapping[str, int], absent: set[str] | Sequence[str]) -> str | None:
    """Return the choices besides the split as JSON text; None if there are none."""
    if not hidden and not absent:
        return None
    return json.dumps({"absent_blocks": sorted(absent), "hidden_channels": dict(hidden)}, sort_keys=True)


def _network(finalist: Finalist) -> tuple[tuple[int, ...], str | None]:
    return finalist.active_channels, finalist.blocks
