"""Early stopping: asynchronous successive halving on one metric, or by non-dominated sorting over the objectives.

A decision depends on the scores of the trials that have reached the rung before. The tables record it with the epoch,
in one transaction. A trial that repeats the epoch after an interruption therefore meets the same decision, and the rung
is the same for all later trials.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import moocore
import numpy as np
from numpy.typing import NDArray
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from nas.definition.space import Parameters
from nas.definition.study import StudyDefinition
from nas.findings.scores import judged_metrics
from nas.metrics import METRICS, Direction
from nas.store import Store
from nas.study import Study
from nas.sweep.ray_words import from_ray_config, from_ray_result
from nas.trial import EPOCH_SCORES, EpochRecord, Fidelity, Rung, TrialKind, TrialSpec
from partialnet.search.latency_table import LatencyTable

logger = logging.getLogger(__name__)

_MARGIN = 0.1


class EarlyStopper:
    """Decides at each rung whether a search trial continues.

    Trials of other kinds always continue: baselines and the final comparison are what the search is measured against.

    Args:
        definition: Objectives, parameters and early stopping of the study.
        rungs: Decisions of earlier runs of the same study.
        costs: Function that returns the expected costs of a trial by metric, from its parameters and the report of an
            epoch.
    """

    def __init__(
        self,
        definition: StudyDefinition,
        rungs: Iterable[Rung] = (),
        costs: Callable[[Parameters, EpochRecord], Mapping[str, float]] = lambda _parameters, _record: {},
    ) -> None:
        spec = definition.sweep.early_stopping
        self._definition = definition
        self._spec = spec
        self._compared = () if spec is None else compared_metrics(definition)
        self._costs = costs
        self._known: dict[tuple[int, int], Rung] = {(rung.number, rung.epoch): rung for rung in rungs}

    def decide(self, spec: TrialSpec, record: EpochRecord) -> Rung | None:
        """Return the decision on a trial after an epoch; None if there is no rung.

        A trial that lacks one of the scores continues without a decision. A repeated question gets the same answer.
        """
        if self._spec is None or spec.kind is not TrialKind.SEARCH:
            return None
        known = self._known.get((spec.number, record.epoch))
        if known is not None:
            return known
        if record.epoch not in self._definition.rungs_of(spec.parameters):
            return None
        scores = self._scores(spec.parameters, record)
        if scores is None:
            return None
        reached = [rung.scores for (_, epoch), rung in self._known.items() if epoch == record.epoch]
        directions = [METRICS[name].direction for name in self._compared]
        best = best_of([*reached, scores], directions, self._spec.reduction_factor)
        rung = Rung(spec.number, record.epoch, scores, kept=len(reached) in best)
        self._known[spec.number, record.epoch] = rung
        return rung

    def _scores(self, parameters: Parameters, record: EpochRecord) -> tuple[float, ...] | None:
        """Return the scores of a trial at a rung; None if one is missing."""
        evaluated = {name: record.metrics.get(key) for name, key in EPOCH_SCORES.items()}
        measured = any(name not in evaluated for name in self._compared)
        try:
            known = {**evaluated, **(self._costs(parameters, record) if measured else {})}
        except Exception:  # raising would end the whole search
            logger.exception("the cost of a trial could not be counted, and early stopping does not decide on it")
            return None
        values = [value for name in self._compared if (value := known.get(name)) is not None]
        return tuple(values) if len(values) == len(self._compared) else None

    def stopped(self, number: int) -> bool:
        """Return whether trial ``number`` was stopped."""
        return any(not rung.kept for (trial, _), rung in self._known.items() if trial == number)

    def fidelity(self, spec: TrialSpec, rung: Rung) -> Fidelity:
        """Return how far a trial was trained that a rung stopped."""
        return Fidelity(rung.epoch, self._definition.epochs_of(spec.parameters))

    def reason(self, rung: Rung) -> str:
        """Return why a trial was stopped, for people."""
        assert self._spec is not None
        ranked = "by non-dominated sorting" if self._spec.method == "mo_asha" else f"by {self._compared[0]}"
        best = f"the best 1/{self._spec.reduction_factor}"
        return f"stopped early at epoch {rung.epoch}: not among {best} of the trials there, {ranked}"


def early_stopper(store: Store, study: Study, table: LatencyTable | None = None) -> EarlyStopper | None:
    """Return the early stopping of a study with its decisions so far; None without early stopping.

    Args:
        store: Store of the study.
        study: Study that is searched.
        table: Latency table of the study, if it has one.
    """
    if study.definition.sweep.early_stopping is None:
        return None
    from nas.training.expected_cost import ExpectedCosts
    from nas.training.feasibility import class_count

    definition = study.definition
    classes = class_count(definition) if study.data is None else len(study.data.classes)
    costs = tuple(name for name in compared_metrics(definition) if not METRICS[name].evaluated)
    expected = ExpectedCosts(definition, classes, costs, table)
    return EarlyStopper(
        definition, store.rungs(study.id), lambda parameters, record: expected.of_shape(parameters)(record)
    )


def compared_metrics(definition: StudyDefinition) -> tuple[str, ...]:
    """Return the metrics that trials at a rung are compared by: one for ``asha``, the objectives for ``mo_asha``."""
    spec = definition.sweep.early_stopping
    assert spec is not None
    if spec.method == "asha":
        return (spec.metric or judged_metrics(definition.objectives)[0],)
    return definition.objectives


def best_of(scores: Sequence[Sequence[float]], directions: Sequence[Direction], factor: int) -> list[int]:
    """Return the indices of the best ``1 / factor`` of some trials, rounded up.

    Trials are ranked by non-dominated sorting. Of the layer that does not fit as a whole, the trial with the smallest
    hypervolume contribution is left out, again and again, until the rest fits. Of equal trials, the earlier ones stay.

    Args:
        scores: Scores of each trial, in the order in which they reached the rung.
        directions: Direction of each score.
        factor: Reduction factor.
    """
    signs = np.where([direction is Direction.MAXIMIZE for direction in directions], -1.0, 1.0)
    rows = np.asarray(scores, dtype=float) * signs
    places = -(-len(rows) // factor)
    ranks = moocore.pareto_rank(rows) if len(directions) > 1 else np.unique(rows, return_inverse=True)[1].ravel()
    kept: list[int] = []
    for rank in range(int(ranks.max()) + 1):
        layer = np.flatnonzero(ranks == rank)
        kept += [int(place) for place in layer[_spread_out(rows[layer], places - len(kept))]]
        if len(kept) == places:
            break
    return kept


def _spread_out(points: NDArray[np.float64], places: int) -> list[int]:
    """Return the ``places`` points of a layer that remain if the one with the least contribution goes, time after time.

    The reference point lies beyond the worst values of the layer, by a share of their range: the ends of the layer
    contribute as well, but do not outweigh all others.
    """
    remaining = list(range(len(points)))
    if points.shape[1] == 1:  # a layer of one metric holds equal trials
        return remaining[:places]
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / np.where(high > low, high - low, 1.0)
    while len(remaining) > places:
        shares = moocore.hv_contributions(scaled[remaining], ref=np.full(points.shape[1], 1.0 + _MARGIN))
        remaining.pop(int(np.flatnonzero(shares == shares.min())[-1]))
    return remaining


class RungScheduler(FIFOScheduler):  # type: ignore[misc]  # ray has no types
    """Ray's scheduler interface over :class:`EarlyStopper`.

    Args:
        stopper: Source of the decisions; the recorder asks it again, and writes what it answers.
    """

    def __init__(self, stopper: EarlyStopper) -> None:
        super().__init__()
        self._stopper = stopper

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        """Return whether the trial continues."""
        try:
            report = from_ray_result(result)
            if isinstance(report, EpochRecord):
                rung = self._stopper.decide(from_ray_config(trial.config), report)
                if rung is not None and not rung.kept:
                    return str(TrialScheduler.STOP)
        except Exception:  # raising here would end the whole search; the recorder reports what cannot be read
            logger.exception("early stopping could not decide on a trial, which continues")
        return str(super().on_trial_result(tune_controller, trial, result))

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        # Ray writes its driver's state to disk, ours included; nothing reads it.
        return object, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> RungScheduler:
        return self
