"""Fronts and hypervolumes over scored trials. Directions come from one table. No torch, no ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from types import MappingProxyType

import moocore
import numpy as np

from nas.candidate import Candidate
from nas.errors import InputError
from nas.finalist import Finalist, Role, retrained
from nas.metrics import BY_TRAINING, METRICS, Direction, EvaluationKind
from nas.trial import Trial, TrialKind, retrain_label

_PARTNERS: Mapping[Role, TrialKind] = MappingProxyType(
    {Role.UNIFORM: TrialKind.BASELINE, Role.RANDOM: TrialKind.RANDOM}
)


@dataclass(frozen=True)
class ParetoPoint:
    """A candidate as a point in the space of objectives.

    Args:
        number: Of its trial; of several trainings of one network the first.
        label: Of its trial, such as ``uniform 1/4``.
        kind: Of its trial; of networks beside a learned one in the final comparison what they are.
        architecture_id: Hash of its architecture.
        values: Metric to value in stored units (fractions, not percent); every objective is there.
        on_front: Whether no other point is at least as good in every objective and better in one.
        position: Of the candidate within its trial, from 0.
    """

    number: int
    label: str
    kind: TrialKind
    architecture_id: str
    values: Mapping[str, float]
    on_front: bool
    position: int = 0


def check_objectives(objectives: Sequence[str]) -> None:
    """Refuse objectives that are unknown or repeated.

    Raises:
        InputError: Names the value and what is known.
    """
    for name in objectives:
        if name not in METRICS:
            raise InputError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
    if not objectives or len(set(objectives)) != len(objectives):
        raise InputError(f"objectives must be one or more different metrics, but got {list(objectives)}")


def judged_metrics(objectives: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return the metric of quality and the costs that a comparison is made in.

    Args:
        objectives: Of the study; where they hold no quality it is top-1, and where no cost, multiply-adds.
    """
    quality = next((name for name in objectives if METRICS[name].direction is Direction.MAXIMIZE), "top1")
    costs = tuple(name for name in objectives if not METRICS[name].evaluated)
    return quality, costs or ("macs",)


def _maximise(objectives: Sequence[str]) -> list[bool]:
    return [METRICS[name].direction is Direction.MAXIMIZE for name in objectives]


def front_mask(values: Sequence[Sequence[float]], objectives: Sequence[str]) -> list[bool]:
    """Return for each row whether it is on the front; equal rows are on it together.

    Args:
        values: One row per point, one column per objective.
        objectives: Keys of :data:`nas.metrics.METRICS`.
    """
    if not values:
        return []
    rows = np.asarray(values, dtype=float)
    signs = np.where(_maximise(objectives), -1.0, 1.0)
    return [bool(flag) for flag in moocore.is_nondominated(rows * signs, keep_weakly=True)]


def default_kind(trials: Iterable[Trial]) -> EvaluationKind:
    """Return the kind of evaluation that a front compares where none is asked for.

    It is the one that most of the networks that were searched have, of several the best trained one: a final comparison
    retrains a few, and a front of these alone would hide the others.
    """
    counts = Counter(
        kind
        for trial in trials
        if trial.kind in (TrialKind.SEARCH, TrialKind.RANDOM)
        for candidate in trial.candidates
        for kind in {evaluation.kind for evaluation in candidate.evaluations}
    )
    best = max(BY_TRAINING, key=lambda kind: counts[kind])
    return best if counts[best] else EvaluationKind.FINETUNED


def shown_kind(trial: Trial, usual: EvaluationKind) -> EvaluationKind | None:
    """Return the kind that a list shows of a trial: ``usual``, where its first network has that, else the best trained.

    Networks of the final comparison have retrained scores only.
    """
    if not trial.candidates:
        return None
    first = trial.candidates[0]
    return usual if any(entry.kind is usual for entry in first.evaluations) else first.kind


def searched_kind(trials: Iterable[Trial]) -> EvaluationKind:
    """Return the kind of evaluation that the search ended with: inherited for a supernet, else fine-tuned."""
    return _first_kind(trials, tuple(kind for kind in BY_TRAINING if kind is not EvaluationKind.RETRAINED))


def _first_kind(trials: Iterable[Trial], kinds: Sequence[EvaluationKind]) -> EvaluationKind:
    searched = [trial for trial in trials if trial.kind in (TrialKind.SEARCH, TrialKind.RANDOM)]
    found = {entry.kind for trial in searched for candidate in trial.candidates for entry in candidate.evaluations}
    return next((kind for kind in kinds if kind in found), EvaluationKind.FINETUNED)


def _usual_fingerprints(candidates: Iterable[Candidate]) -> dict[str, str]:
    """Return for each measured metric the circumstances under which most candidates were measured."""
    counts: dict[str, Counter[str]] = {}
    for candidate in candidates:
        for metric, fingerprint in {(m.metric, m.fingerprint) for m in candidate.measurements}:
            counts.setdefault(metric, Counter())[fingerprint] += 1
    return {metric: max(sorted(count), key=count.__getitem__) for metric, count in counts.items()}


def candidate_values(
    candidate: Candidate, evaluation: EvaluationKind, fingerprints: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Return everything that is known of a candidate, by metric.

    Args:
        candidate: With its evaluations and measurements.
        evaluation: The kind that evaluated metrics are taken from (validation data).
        fingerprints: Circumstances a measured metric must have been measured under; the newest figure if absent.
    """
    values: dict[str, float] = {}
    for metric, facts in METRICS.items():
        if facts.evaluated:
            value = candidate.score(metric, evaluation)
        else:
            wanted = None if fingerprints is None else fingerprints.get(metric)
            figures = [
                m.value for m in candidate.measurements if m.metric == metric and wanted in (None, m.fingerprint)
            ]
            value = figures[-1] if figures else None
        if value is not None:
            values[metric] = value
    return values


def pareto_points(
    trials: Sequence[Trial],
    objectives: Sequence[str],
    evaluation: EvaluationKind | None = None,
) -> list[ParetoPoint]:
    """Turn the candidates of trials into points and mark the front.

    Candidates that lack one of the objectives are left out. Measurements compare only under equal circumstances: where
    candidates were measured under several, those of most candidates count.

    Args:
        trials: Of one study, in any state.
        objectives: Keys of :data:`nas.metrics.METRICS`; their directions decide what is better.
        evaluation: The one kind that evaluated metrics are taken from; that of :func:`default_kind` if absent.

    Returns:
        In the order of the trials, then of their candidates. Of kind ``retrained``, the uniform and random networks of
        the final comparison follow, each once, with the mean over its seeds.

    Raises:
        InputError: If an objective is unknown.
    """
    check_objectives(objectives)
    kind = default_kind(trials) if evaluation is None else evaluation
    fingerprints = _usual_fingerprints(candidate for trial in trials for candidate in trial.candidates)
    found = [
        ParetoPoint(trial.number, trial.label, trial.kind, candidate.architecture.id, values, False, position)
        for trial in trials
        if trial.kind is not TrialKind.RETRAIN
        for position, candidate in enumerate(trial.candidates)
        if (values := candidate_values(candidate, kind, fingerprints))
    ]
    if kind is EvaluationKind.RETRAINED:
        found += _partners(trials, fingerprints)
    found = [point for point in found if all(name in point.values for name in objectives)]
    mask = front_mask([[point.values[name] for name in objectives] for point in found], objectives)
    return [replace(point, on_front=flag) for point, flag in zip(found, mask, strict=True)]


def _partners(trials: Sequence[Trial], fingerprints: Mapping[str, str]) -> list[ParetoPoint]:
    """Return the uniform and random networks of the final comparison, each once, by the mean over its seeds.

    Learned ones are left out: what their retrainings say stands with the trial that found them.
    """
    networks: dict[Finalist, list[Trial]] = {}
    for finalist, trial in retrained(trials):
        if finalist.role in _PARTNERS and trial.candidates:
            networks.setdefault(finalist, []).append(trial)
    points = []
    for finalist, members in networks.items():
        found = [candidate_values(t.candidates[0], EvaluationKind.RETRAINED, fingerprints) for t in members]
        shared = set.intersection(*map(set, found))
        values = {name: fmean(row[name] for row in found) for name in METRICS if name in shared}
        first = members[0]
        label, network = retrain_label(first.parameters), first.candidates[0].architecture.id
        points.append(ParetoPoint(first.number, label, _PARTNERS[finalist.role], network, values, False))
    return points


def hypervolume(
    points: Iterable[ParetoPoint], objectives: Sequence[str], reference_point: Mapping[str, float]
) -> float:
    """Return the volume that the points dominate, bounded by the reference point, in the units of the objectives.

    Points that are not better than the reference point in every objective add nothing.

    Raises:
        InputError: If the reference point lacks an objective.
    """
    check_objectives(objectives)
    missing = [name for name in objectives if name not in reference_point]
    if missing:
        raise InputError(f"the reference point lacks {', '.join(missing)}; it has {', '.join(reference_point)}")
    rows = [[point.values[name] for name in objectives] for point in points]
    if not rows:
        return 0.0
    reference = [reference_point[name] for name in objectives]
    return float(moocore.hypervolume(np.asarray(rows, dtype=float), ref=reference, maximise=_maximise(objectives)))


def known_hypervolume(
    points: Sequence[ParetoPoint], objectives: Sequence[str], reference_point: Mapping[str, float]
) -> float | None:
    """Return :func:`hypervolume`, or None without points or where the reference point lacks an objective."""
    if not points or any(name not in reference_point for name in objectives):
        return None
    return hypervolume(points, objectives, reference_point)
