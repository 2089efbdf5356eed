"""The networks of the final comparison: learned ones of the front, and others of equal cost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from nas.definition.searched import SPLIT_ALONE
from nas.definition.shapes import shape_options
from nas.definition.study import StudyDefinition, cost_metric
from nas.errors import InputError
from nas.finalist import Finalist, Role
from nas.findings.pareto import ParetoPoint, pareto_points
from nas.findings.scores import chosen_by, judged_metrics
from nas.sweep.ablated_networks import AblatedNetworks
from nas.sweep.learned_network import LearnedNetwork
from nas.sweep.measured_latency import MeasuredLatency
from nas.sweep.scaled_networks import ScaledNetworks, nearest_legal
from nas.sweep.space_networks import SpaceNetworks
from nas.training.build import build_finalist, build_network, reshaped, split_alone, split_layers
from nas.trial import Trial, TrialKind, trial_seed
from partialnet.blocks import BlockChoices
from partialnet.errors import ArchitectureError, BudgetError
from partialnet.layers.partial_conv import legal_active_channels
from partialnet.search.cost import CostTable, layer_costs
from partialnet.search.latency_table import LatencyTable
from partialnet.search.method import ABSENT
from partialnet.search.selection import presence_weights, sample_within


class FinalNetworks(NamedTuple):
    """The networks of a final comparison; each is trained with all seeds of the study's ``final``."""

    networks: tuple[Finalist, ...] = ()
    left_out: tuple[str, ...] = ()
    """Sentences on networks that were requested, but do not exist."""


def plan_final(
    definition: StudyDefinition,
    trials: Sequence[Trial],
    latency: LatencyTable | None = None,
    *,
    measure: Callable[[nn.Module], float] | None = None,
) -> FinalNetworks:
    """Return the networks of the final comparison.

    Beside each learned network are the uniform one with the closest cost, random ones within 2 % of its cost, and the
    published shape, scaled to its cost; fewer if no other network has that cost, or if ``final.against`` leaves a kind
    out. With a budget in milliseconds equal cost means a measured latency within 5 %.

    Args:
        definition: Definition of the study.
        trials: Trials of the study, all ended.
        latency: Latency table of the study, for a budget in milliseconds.
        measure: Function that returns the latency of a network in milliseconds, for a budget in milliseconds; without
            it no shape is scaled to such a budget, and others have equal latency by the table.

    Raises:
        DefinitionError: If the study's network cannot be built.
        BudgetError: If its cost cannot be counted.
    """
    choices = choose_learned(definition, trials) if definition.final.candidates else []
    if not choices:
        return FinalNetworks()
    classes = int(choices[0].candidate.architecture.options["num_classes"])
    shapes = {
        trial.number: shape_options(definition.model, {**definition.constants, **trial.parameters})
        for trial in trials
        if trial.kind is TrialKind.SEARCH
    }
    measured = MeasuredLatency(measure) if measure is not None and definition.budget.unit == "latency" else None
    planners: dict[str, _Networks] = {}
    rivals = _ScaledRivals(definition, classes, measured)
    groups: list[tuple[Finalist, ...]] = []
    left_out: dict[str, None] = {}
    for choice in choices:
        options = shapes[choice.of]
        key = json.dumps(options, sort_keys=True)
        if key not in planners:
            planners[key] = _Networks.of(reshaped(definition, options), classes, latency, measured)
        beside = planners[key].around(choice)
        if options:  # a trial of the comparison is built from the study's own network
            beside = [replace(finalist, options=key) for finalist in beside]
        scaled, why = rivals.beside(choice, options)
        groups.append((*beside, *scaled))
        left_out |= dict.fromkeys(why)
    return FinalNetworks(tuple(finalist for group in groups for finalist in group), tuple(left_out))


class _ScaledRivals:
    """The published shape beside learned networks; the shapes of each resolution are set up once."""

    def __init__(self, definition: StudyDefinition, classes: int, latency: MeasuredLatency | None) -> None:
        self._definition = definition
        self._classes = classes
        self._latency = latency
        self._known: dict[str, ScaledNetworks] = {}

    def beside(
        self, choice: LearnedNetwork, options: Mapping[str, Any]
    ) -> tuple[tuple[Finalist, ...], tuple[str, ...]]:
        """Return the scaled shape, which sees images of the same resolution; or why there is none."""
        if "scaled" not in self._definition.final.against:
            return (), ()
        kept = {key: value for key, value in options.items() if key == "resolution"}
        key = json.dumps(kept)
        try:
            if key not in self._known:
                self._known[key] = ScaledNetworks(self._definition, self._classes, self._latency, kept)
            return (self._known[key].beside(choice),), ()
        except (ArchitectureError, BudgetError) as error:
            return (), (f"The published shape was not scaled to equal cost: {error}.",)


def choose_learned(definition: StudyDefinition, trials: Sequence[Trial]) -> list[LearnedNetwork]:
    """Return the learned networks to retrain, by ascending cost.

    They come from the front of the learned networks over quality and cost, in the most reliable evaluation kind
    available. The most expensive one is the best; the others divide the range of cost below it evenly.
    """
    searched = {trial.number: trial for trial in trials if trial.kind is TrialKind.SEARCH}
    cost = cost_metric(definition)
    front: dict[str, ParetoPoint] = {}
    for point in _front(definition, list(searched.values()), cost):
        front.setdefault(point.architecture_id, point)  # several trials may settle on one network
    points = sorted(front.values(), key=lambda point: point.values[cost])
    chosen = spread_over_costs([point.values[cost] for point in points], definition.final.candidates)
    return [_choice(searched[points[index].number], points[index], cost) for index in chosen]


def _front(definition: StudyDefinition, searched: Sequence[Trial], cost: str) -> list[ParetoPoint]:
    quality = judged_metrics(definition.objectives)[0]
    kind, metric = chosen_by([candidate for trial in searched for candidate in trial.candidates], quality)
    points = pareto_points(searched, (metric, cost), kind, definition.constraints)
    return [point for point in points if point.on_front]


def _choice(trial: Trial, point: ParetoPoint, cost: str) -> LearnedNetwork:
    candidate, several = trial.candidates[point.position], len(trial.candidates) > 1
    return LearnedNetwork(trial.number, point.position, several, candidate, point.values[cost])


def spread_over_costs(costs: Sequence[float], count: int) -> list[int]:
    """Return the ascending indices of ``count`` of the ascending positive ``costs``; of all if there are no more.

    The highest is one of them; the others are the closest to equal factors of cost between the lowest and the highest.
    """
    if count >= len(costs):
        return list(range(len(costs)))
    places = [math.log(max(cost, 1e-300)) for cost in costs]
    goals = [places[0] + (places[-1] - places[0]) * step / count for step in range(1, count)]
    chosen = {len(places) - 1}
    for goal in reversed(goals):
        free = (index for index in range(len(places)) if index not in chosen)
        chosen.add(min(free, key=lambda index: abs(places[index] - goal)))
    return sorted(chosen)


_Network = tuple[tuple[int, ...], str | None]
"""Active channels of the present layers in forward order, and the other choices of blocks as JSON text."""


class _Networks:
    """Uniform and random networks by their cost.

    Args:
        definition: Definition of the study.
        classes: Number of classes of the data set.
        table: Cost of the whole network at the levels of its layers.
        space: Cost of the whole network at the options of the study's space.
        wider: Uniform and ablated networks of a space of several kinds of choices; None for splits alone.
        latency: Measured latencies that decide which networks have equal cost; None for the cost by the table.
    """

    def __init__(
        self,
        definition: StudyDefinition,
        classes: int,
        table: CostTable,
        space: CostTable,
        wider: AblatedNetworks | None = None,
        latency: MeasuredLatency | None = None,
    ) -> None:
        self._wider = wider
        self._latency = latency
        self._classes = classes
        self._definition = definition
        self._table = table
        self._space = space
        self._layers = split_layers(definition, classes)
        self._networks = SpaceNetworks(definition, classes)
        self._uniform = self._uniform_networks()

    @classmethod
    def of(
        cls,
        definition: StudyDefinition,
        classes: int,
        table: LatencyTable | None,
        latency: MeasuredLatency | None,
    ) -> _Networks:
        """Return the networks of a study, with their costs in the unit of its budget."""
        unit, shape = definition.budget.unit, definition.data.input_shape
        known = table if unit == "latency" else None
        space = layer_costs(build_network(definition, classes), shape, unit, "network", known)
        if definition.searched == SPLIT_ALONE:
            return cls(definition, classes, space, space, latency=latency)
        splits = layer_costs(build_network(split_alone(definition), classes), shape, unit, "network", known)
        return cls(definition, classes, splits, space, AblatedNetworks(definition, classes, space), latency)

    def around(self, choice: LearnedNetwork) -> list[Finalist]:
        """Return a learned network and those to compare it with."""
        architecture = choice.candidate.architecture
        learned = self._network(architecture.active_channels, BlockChoices.of(architecture))
        found = [self._finalist(Role.LEARNED, choice, learned)]
        known = {learned}
        if "uniform" in self._definition.final.against:
            beside = self._uniform_beside(choice)
            uniform = beside.active_channels, beside.blocks
            if uniform != learned:
                found.append(beside)
            known.add(uniform)
        return [
            *found,
            *(replace(finalist, draw=draw) for draw, finalist in enumerate(self._random(choice, known))),
            *(self._wider.ablated(choice) if self._wider is not None and self._definition.final.ablate else ()),
        ]

    def _uniform_beside(self, choice: LearnedNetwork) -> Finalist:
        """Return the uniform network with the cost closest to that of a learned one."""

        def uniform(cost: float) -> Finalist:
            if self._wider is not None:
                return self._wider.uniform(choice, cost)
            ratio, active = self._nearest_uniform(cost)
            return self._finalist(Role.UNIFORM, choice, (active, None), ratio=ratio)

        return uniform(choice.cost) if self._latency is None else self._latency.closest(uniform, choice, self._build)

    def _build(self, finalist: Finalist) -> nn.Module:
        return build_finalist(self._definition, self._classes, finalist)

    def _finalist(
        self,
        role: Role,
        choice: LearnedNetwork,
        network: _Network,
        ratio: float | None = None,
    ) -> Finalist:
        active, blocks = network
        return Finalist(role, *choice.place, active, ratio=ratio, blocks=blocks)

    def _network(self, active: Mapping[str, int], blocks: BlockChoices) -> _Network:
        """Return active channels of the present layers in forward order, and the other choices as JSON text.

        Raises:
            InputError: If ``active`` names a layer that is absent or unknown.
        """
        present = [name for name in self._layers if not blocks.is_absent(name)]
        if strange := sorted(set(active) - set(present)):
            raise InputError(f"the network has active channels of {strange[0]}, no layer of the study's network")
        # A layer whose split is not searched keeps its usual one.
        return tuple(active.get(name, self._layers[name].active_channels) for name in present), blocks.to_json()

    def _random(self, choice: LearnedNetwork, known: Set[_Network]) -> list[Finalist]:
        """Return random networks of the space at a network's cost, without those that are ``known``."""
        count = self._definition.final.random
        if not count or "random" not in self._definition.final.against:
            return []
        seed = trial_seed(self._definition.sweep.seed, -1 - choice.of) + choice.position
        generator, space = torch.Generator().manual_seed(seed), self._space.space
        weights = presence_weights(space, ABSENT)
        # Some of those that the table calls equal are not, when they are measured.
        wanted = len(known) + (count if self._latency is None else 2 * count)

        def draw(cost: float) -> list[Finalist]:
            drawn = sample_within(self._space, cost, generator, wanted, weights=weights)
            networks = (self._networks.network(space.settings(options)) for options in drawn)
            return [self._finalist(Role.RANDOM, choice, network) for network in networks if network not in known]

        if self._latency is None:
            return draw(choice.cost)[:count]
        return list(self._latency.equal(draw, choice, self._build, count))

    def _uniform_networks(self) -> dict[tuple[int, ...], tuple[float, float]]:
        """Return all uniform networks with their ratio and their cost by the table.

        Between the levels of the table a layer's count is a polynomial of second degree: it depends on n through
        convolutions and linear layers of n and of C - n channels. At n = C there is no rest, so that cost comes from
        the table itself. A latency is interpolated linearly.
        """
        interpolated = _between if self._definition.budget.unit == "latency" else _interpolated
        legal = {
            name: legal_active_channels(layer.channels, layer.rest_kind, layer.num_heads)
            for name, layer in self._layers.items()
        }
        ratios = sorted({n / layer.channels for name, layer in self._layers.items() for n in legal[name]})
        costs = {
            name: interpolated(levels, row, legal[name])
            for name, levels, row in zip(self._table.names, self._table.levels, self._table.costs, strict=True)
        }
        highest = {name: row[-1] for name, row in zip(self._table.names, self._table.levels, strict=True)}
        networks: dict[tuple[int, ...], tuple[float, float]] = {}
        nearest: dict[tuple[int, ...], float] = {}
        for ratio in ratios:
            chosen = {name: nearest_legal(legal[name], ratio * layer.channels) for name, layer in self._layers.items()}
            if any(n > highest[name] for name, n in chosen.items()):
                continue  # outside of the space, which bounds the ratio of a layer
            split = tuple(chosen.values())
            off = sum(abs(chosen[name] / layer.channels - ratio) for name, layer in self._layers.items())
            if off < nearest.get(split, math.inf):  # of the ratios that round to one network, keep its exact one
                nearest[split] = off
                networks[split] = (ratio, self._table.constant + sum(costs[name][n] for name, n in chosen.items()))
        return networks

    def _nearest_uniform(self, target: float) -> tuple[float, tuple[int, ...]]:
        """Return ratio and active channels of the uniform network with the cost closest to ``target``."""
        best = min(self._uniform, key=lambda split: abs(self._uniform[split][1] - target))
        return self._uniform[best][0], best


def _between(levels: Sequence[int], costs: Sequence[float], legal: Sequence[int]) -> dict[int, float]:
    """Return the latency at each legal number of active channels, from that at some ``levels``."""
    return dict(zip(legal, map(float, np.interp(list(legal), list(levels), list(costs))), strict=True))


def _interpolated(levels: Sequence[int], costs: Sequence[float], legal: Sequence[int]) -> dict[int, float]:
    """Return the cost at each legal number of active channels, from the costs at some ``levels``."""
    known = dict(zip(levels, costs, strict=True))
    below = [n for n in levels if n < legal[-1]] or list(levels)
    degree = min(2, len(below) - 1)
    fitted = np.polyval(np.polyfit(below, [known[n] for n in below], degree), list(legal))
    return {n: known.get(n, float(value)) for n, value in zip(legal, fitted, strict=True)}
