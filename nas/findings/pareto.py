"""Fronts and hypervolumes over scored trials. One table decides the directions. Loads neither torch nor ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from nas.definition.constraints import Constraint, broken
from nas.errors import InputError
from nas.finalist import Finalist, Role
from nas.findings.scores import candidate_values, check_objectives, default_kind, retrained, usual_fingerprints
from nas.metrics import METRICS, Direction, EvaluationKind
from nas.trial import Trial, TrialKind

Rows = Sequence[Sequence[float]] | NDArray[np.float64]
"""Points as rows, with one column for each objective."""

_PARTNERS: Mapping[Role, TrialKind] = MappingProxyType(
    {Role.UNIFORM: TrialKind.BASELINE, Role.RANDOM: TrialKind.RANDOM, Role.SCALED: TrialKind.BASELINE}
)


@dataclass(frozen=True)
class ParetoPoint:
    """A candidate as a point in the space of objectives.

    Args:
        number: Number of its trial; for several trainings of one network, that of the first.
        label: Label of its trial, such as ``uniform 1/4``.
        kind: Kind of its trial; for uniform and random networks of the final comparison, the kind of their ratios.
        architecture_id: Hash of its architecture.
        values: Values by metric in stored units (fractions, not percent), with each objective.
        on_front: Whether no other point is at least as good in all objectives and better in one.
        position: Index of the candidate within its trial, from 0.
        broken: Constraints that it breaks, as texts; then it is not on the front, and dominates nothing.
        measured_within_budget: Whether its measured latency keeps the budget in milliseconds; None if it was not
            measured, or the budget has another unit.
    """

    number: int
    label: str
    kind: TrialKind
    architecture_id: str
    values: Mapping[str, float]
    on_front: bool
    position: int = 0
    broken: tuple[str, ...] = ()
    measured_within_budget: bool | None = None


def _maximise(objectives: Sequence[str]) -> list[bool]:
    return [METRICS[name].direction is Direction.MAXIMIZE for name in objectives]


def front_mask(values: Rows, objectives: Sequence[str]) -> list[bool]:
    """Return for each row whether it is on the front; equal rows are on it together.

    Args:
        values: Rows of points, with one column for each objective.
        objectives: Keys of :data:`nas.metrics.METRICS`.
    """
    if not len(values):
        return []
    import moocore  # slow to load, as below: the service starts without it

    mask: list[bool] = moocore.is_nondominated(_minimised(values, objectives), keep_weakly=True).tolist()
    return mask


def front_ranks(values: Rows, objectives: Sequence[str]) -> list[int]:
    """Return the rank of each row by non-dominated sorting: 0 on the front, 1 on the front of the rest, and so on.

    Equal rows have equal ranks. Arguments as for :func:`front_mask`.
    """
    if not len(values):
        return []
    import moocore

    ranks: list[int] = moocore.pareto_rank(_minimised(values, objectives)).tolist()
    return ranks


def _minimised(values: Rows, objectives: Sequence[str]) -> NDArray[np.float64]:
    signs: NDArray[np.float64] = np.where(_maximise(objectives), -1.0, 1.0)
    return np.asarray(values, dtype=np.float64) * signs


def pareto_points(
    trials: Sequence[Trial],
    objectives: Sequence[str],
    evaluation: EvaluationKind | None = None,
    constraints: Sequence[Constraint] = (),
) -> list[ParetoPoint]:
    """Turn the candidates of trials into points and mark the front.

    Candidates that lack one of the objectives are left out. Measurements can be compared only under equal
    circumstances: if there are several, the most frequent ones count.

    Args:
        trials: Trials of one study, in any state.
        objectives: Keys of :data:`nas.metrics.METRICS`; their directions decide what is better.
        evaluation: Evaluation kind of the evaluated metrics; that of :func:`default_kind` if absent.
        constraints: Constraints of the study. The front is that of the points that keep them.

    Returns:
        Points in the order of the trials, then of their candidates. For kind ``retrained``, the uniform and random
        networks of the final comparison follow, each once, with the mean over its seeds.

    Raises:
        InputError: If an objective is unknown.
    """
    check_objectives(objectives)
    kind = default_kind(trials) if evaluation is None else evaluation
    fingerprints = usual_fingerprints(candidate for trial in trials for candidate in trial.candidates)
    found = [
        ParetoPoint(
            trial.number,
            trial.label,
            trial.kind,
            candidate.architecture.id,
            values,
            False,
            position,
            measured_within_budget=candidate.measured_within_budget,
        )
        for trial in trials
        if trial.kind is not TrialKind.RETRAIN
        for position, candidate in enumerate(trial.candidates)
        if (values := candidate_values(candidate, kind, fingerprints))
    ]
    if kind is EvaluationKind.RETRAINED:
        found += _partners(trials, fingerprints)
    found = [point for point in found if all(name in point.values for name in objectives)]
    found = [replace(point, broken=tuple(map(str, broken(constraints, point.values)))) for point in found]
    kept = [point for point in found if not point.broken]
    mask = front_mask([[point.values[name] for name in objectives] for point in kept], objectives)
    on_front = {id(point) for point, flag in zip(kept, mask, strict=True) if flag}
    return [replace(point, on_front=id(point) in on_front) for point in found]


def _partners(trials: Sequence[Trial], fingerprints: Mapping[str, str]) -> list[ParetoPoint]:
    """Return the uniform, random and scaled networks of the final comparison, each once, with the mean over its seeds.

    Learned ones are left out: the trials that found them carry their retrained scores.
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
        network = first.candidates[0].architecture.id
        points.append(ParetoPoint(first.number, finalist.label, _PARTNERS[finalist.role], network, values, False))
    return points


def hypervolume(
    points: Iterable[ParetoPoint], objectives: Sequence[str], reference_point: Mapping[str, float]
) -> float:
    """Return the volume that the points dominate, bounded by the reference point, in the units of the objectives.

    Points that are not better than the reference point in all objectives, or break a constraint, add nothing.

    Raises:
        InputError: If the reference point lacks an objective.
    """
    check_objectives(objectives)
    missing = [name for name in objectives if name not in reference_point]
    if missing:
        raise InputError(f"the reference point lacks {', '.join(missing)}; it has {', '.join(reference_point)}")
    kept = [point for point in points if not point.broken]
    return volume([[point.values[name] for name in objectives] for point in kept], objectives, reference_point)


def volume(
    rows: Rows, objectives: Sequence[str], reference_point: Mapping[str, float]
) -> float:
    """Return :func:`hypervolume` of points as rows, with one column for each objective."""
    if not len(rows):
        return 0.0
    import moocore

    reference = [reference_point[name] for name in objectives]
    return float(moocore.hypervolume(np.asarray(rows, dtype=float), ref=reference, maximise=_maximise(objectives)))
