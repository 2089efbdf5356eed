"""A hard limit in milliseconds: the next cheaper levels of a network that exceeds it when it is measured.

A search aims below the limit by its latency table, so this is rare. If the best learned network still exceeds the
limit, cheaper levels are tried in turn and measured, until the whole interval of a measurement lies below it. The
network with these levels is then trained like a uniform baseline, as a trial of kind ``cheaper``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas.candidate import Candidate
from nas.definition.shapes import shape_options
from nas.definition.study import StudyDefinition
from nas.finalist import Finalist, Role
from nas.findings.scores import chosen_by, judged_metrics
from nas.store import Store
from nas.study import Study
from nas.sweep.first_proposals import middle_training
from nas.sweep.probing import probe_latencies
from nas.trial import LEARNED_KINDS, Trial, TrialKind, TrialSpec

if TYPE_CHECKING:
    from partialnet.search.cost import CostTable
    from partialnet.search.latency_table import LatencyTable
    from partialnet.search.space import Option, SearchSpace

_STEP = 0.02  # by which each further try is cheaper
_TRIES = 8
_UP = 1e3  # effort of a level above the present one, which no cheaper network needs


@dataclass(frozen=True)
class _Learned:
    trial: Trial
    position: int
    candidate: Candidate
    quality: float

    @property
    def kept(self) -> bool:
        return self.candidate.measured_within_budget is True

    def shape_options(self, definition: StudyDefinition) -> Mapping[str, Any]:
        """Return the constructor arguments in which its network differs from the study's network."""
        if self.trial.finalist is not None:
            return self.trial.finalist.shape_options
        return shape_options(definition.model, {**definition.constants, **self.trial.parameters})


def planned_cheaper(
    store: Store, study: Study, table: LatencyTable | None, tell: Callable[[str], bool]
) -> list[TrialSpec]:
    """Measure the front of an ended search; if its best network exceeds a hard limit, add a trial with cheaper levels.

    Args:
        store: Store of the study.
        study: Study whose search trials have ended.
        table: Latency table of the study, if it has one.
        tell: Function that receives the name of the next probe; False ends the probing.

    Returns:
        New trial, if one is needed and its levels keep the limit.

    Raises:
        NasError: If the network cannot be built or measured.
    """
    limit, trials = study.definition.budget.at_most, store.trials(study.id)
    last = {trial.kind: trial.number for trial in trials}  # ascending by number
    if limit is None or table is None or last.get(TrialKind.CHEAPER, -1) > last.get(TrialKind.SEARCH, -1):
        return []
    probe_latencies(store, study, trials, tell)
    best = _best_over(study, store.trials(study.id))
    stored = store.latency_table(study.id)
    if best is None or stored is None:
        return []
    finalist = _cheaper(study, best, table, str(stored["fingerprint"]), tell)
    if finalist is None:
        return []
    parameters = middle_training(study.definition)
    return store.add_finalists(study.id, [finalist], parameters, TrialKind.CHEAPER)


def _best_over(study: Study, trials: Sequence[Trial]) -> _Learned | None:
    """Return the best learned network if its measured latency exceeds the limit; None if it keeps it."""
    searched = [trial for trial in trials if trial.kind in LEARNED_KINDS]
    quality = judged_metrics(study.definition.objectives)[0]
    kind, metric = chosen_by([candidate for trial in searched for candidate in trial.candidates], quality)
    sign = -1 if metric == "loss" else 1
    judged = [
        _Learned(trial, position, candidate, sign * value)
        for trial in searched
        for position, candidate in enumerate(trial.candidates)
        if candidate.measured_within_budget is not None and (value := candidate.score(metric, kind)) is not None
    ]
    best = max(judged, key=lambda found: (found.quality, found.kept), default=None)
    return None if best is None or best.kept else best


def _cheaper(
    study: Study, best: _Learned, table: LatencyTable, fingerprint: str, tell: Callable[[str], bool]
) -> Finalist | None:
    """Return the first network with cheaper levels whose measured latency lies surely below the limit.

    Args:
        study: Study with a hard limit.
        best: Network that exceeds it.
        table: Latency table of the study.
        fingerprint: Circumstances of the table, under which the network exceeds the limit.
        tell: Function that receives the name of the next probe; False ends the probing.
    """
    from nas.probes.latency import probe_latency
    from nas.sweep.space_networks import SpaceNetworks
    from nas.training.build import build_network, build_split, reshaped
    from partialnet.blocks import BlockChoices
    from partialnet.search.cost import layer_costs

    options = best.shape_options(study.definition)
    definition, spec = reshaped(study.definition, options), study.definition.latency
    limit = definition.budget.at_most
    assert spec is not None
    assert limit is not None
    shape, classes = definition.data.input_shape, int(best.candidate.architecture.options["num_classes"])
    costs = layer_costs(build_network(definition, classes), shape, "latency", "network", table)
    # Other studies may have measured the same network elsewhere.
    wanted = ("latency_ms", fingerprint)
    newest = [m for m in best.candidate.measurements if (m.metric, m.fingerprint) == wanted][-1]
    usual = float(newest.figures["usual_reference_ms"])
    networks = SpaceNetworks(definition, classes)
    present = costs.space.chosen(networks.settings(best.candidate.architecture))
    for levels in _ladder(costs, present, newest.value / limit):
        if not tell(f"measuring cheaper levels of trial {best.trial.number}"):
            return None
        split, blocks = networks.network(costs.space.settings(levels))
        network = build_split(definition, classes, split, blocks=BlockChoices.from_json(blocks))
        measured = probe_latency(network, shape, spec, usual_ms=usual)
        if measured.figures["interval"][1] <= limit:
            position = best.position if len(best.trial.candidates) > 1 else None
            place = best.trial.number, position, costs.total(levels)
            written = json.dumps(options, sort_keys=True) if options else None
            return Finalist(Role.LEARNED, *place, split, options=written, blocks=blocks)
    return None


def _ladder(costs: CostTable, present: Sequence[int], over: float) -> Iterator[tuple[int, ...]]:
    """Yield options below those of a network, ever cheaper, each as close to its options as possible.

    Args:
        costs: Milliseconds of each unit at each option.
        present: Option (an index) of each unit in the network that exceeds the limit.
        over: Measured latency as a multiple of the limit.
    """
    from partialnet.search.projection import project

    efforts = [_efforts(costs.space, unit, own) for unit, own in enumerate(present)]
    cost, known = costs.total(present), {tuple(present)}
    for step in range(_TRIES):
        target = cost / over * math.prod([1 - _STEP] * (step + 1))
        found = project(costs, target, efforts).levels
        if found not in known:
            known.add(found)
            yield found


def _efforts(space: SearchSpace, unit: int, own: int) -> list[float]:
    """Return how many levels each option of a unit lies below its present one; ``_UP`` if a choice lies above it."""
    levels = [space.values[index] for index, (owner, _) in enumerate(space.flat) if owner == unit]

    def places(option: Option) -> list[int]:
        given = [row.index(value) for row, value in zip(levels, option, strict=False)]
        return given + [-1] * (len(levels) - len(given))  # in an absent block, below the lowest level

    before = places(space.options[unit][own])
    downs = [[a - b for a, b in zip(before, places(option), strict=True)] for option in space.options[unit]]
    return [float(sum(down)) if min(down) >= 0 else _UP for down in downs]
