"""Fronts and hypervolumes over scored trials. Directions come from one table. No torch, no ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import moocore
import numpy as np

from nas.errors import InputError
from nas.trial import METRICS, Candidate, Direction, EvaluationKind, Trial, TrialKind


@dataclass(frozen=True)
class ParetoPoint:
    """A candidate as a point in the space of objectives.

    Args:
        number: Of its trial.
        label: Of its trial, such as ``uniform 1/4``.
        kind: Of its trial.
        architecture_id: Hash of its architecture.
        values: Metric to value in stored units (fractions, not percent); every objective is there.
        on_front: Whether no other point is at least as good in every objective and better in one.
    """

    number: int
    label: str
    kind: TrialKind
    architecture_id: str
    values: Mapping[str, float]
    on_front: bool


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


def _maximise(objectives: Sequence[str]) -> list[bool]:
    return [METRICS[name].direction is Direction.MAXIMIZE for name in objectives]


def front_mask(values: Sequence[Sequence[float]], objectives: Sequence[str]) -> list[bool]:
    """Return for each row whether it is on the front; equal rows are on it together.

    Args:
        values: One row per point, one column per objective.
        objectives: Keys of :data:`nas.trial.METRICS`.
    """
    if not values:
        return []
    rows = np.asarray(values, dtype=float)
    signs = np.where(_maximise(objectives), -1.0, 1.0)
    return [bool(flag) for flag in moocore.is_nondominated(rows * signs, keep_weakly=True)]


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
    evaluation: EvaluationKind = EvaluationKind.FINETUNED,
) -> list[ParetoPoint]:
    """Turn the candidates of trials into points and mark the front.

    Candidates that lack one of the objectives are left out. Measurements compare only under equal circumstances: where
    candidates were measured under several, those of most candidates count.

    Args:
        trials: Of one study, in any state.
        objectives: Keys of :data:`nas.trial.METRICS`; their directions decide what is better.
        evaluation: The one kind that evaluated metrics are taken from.

    Returns:
        In the order of the trials, then of their candidates.

    Raises:
        InputError: If an objective is unknown.
    """
    check_objectives(objectives)
    fingerprints = _usual_fingerprints(candidate for trial in trials for candidate in trial.candidates)
    found = [
        (trial, candidate, candidate_values(candidate, evaluation, fingerprints))
        for trial in trials
        for candidate in trial.candidates
    ]
    found = [entry for entry in found if all(name in entry[2] for name in objectives)]
    mask = front_mask([[values[name] for name in objectives] for _, _, values in found], objectives)
    return [
        ParetoPoint(trial.number, trial.label, trial.kind, candidate.architecture.id, values, flag)
        for (trial, candidate, values), flag in zip(found, mask, strict=True)
    ]


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
