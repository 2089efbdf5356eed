"""Fronts and hypervolumes: reads of exactly the columns that they show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from nas.definition.constraints import Constraint, broken
from nas.findings.growth import Growth
from nas.findings.pareto import ParetoPoint, front_mask, pareto_points, volume
from nas.findings.scores import check_objectives
from nas.findings.thinning import thinned
from nas.metrics import METRICS, EvaluationKind
from nas.store.base import Repository, among
from nas.store.mapping import definition_from, spec_from
from nas.store.records import Front
from nas.store.score_reads import (
    MEASURED,
    Columns,
    bases,
    breaking,
    columns,
    ends_of,
    usual_evaluation,
)
from nas.store.scores import replayed, results_of, stored_growths
from nas.store.tables import CandidateTable, ScoreTable, StudyTable, TrialTable
from nas.store.trial_reads import trials_of
from nas.trial import TrialKind, TrialSpec

_SEARCHABLE = (TrialKind.SEARCH, TrialKind.BASELINE, TrialKind.RANDOM)
_RARE = (TrialKind.BASELINE, TrialKind.RANDOM)


class _Details(NamedTuple):
    """What the point of a network shows besides its trial."""

    architecture_id: str
    values: Mapping[str, float]
    measured_within_budget: bool | None


class Fronts(Repository):
    """Reads fronts and hypervolumes."""

    def usual_evaluation(self, study_id: str) -> EvaluationKind:
        """Return the evaluation kind that a front of the study compares by default.

        Raises:
            NotFoundError: If there is no such study.
        """
        with self._read() as session:
            return usual_evaluation(session, self._study_row(session, study_id), self._usual)

    def usual_fingerprints(self, study_id: str) -> dict[str, str]:
        """Return the circumstances under which lists and fronts of the study compare each measured metric.

        Raises:
            NotFoundError: If there is no such study.
        """
        with self._read() as session:
            kind = EvaluationKind.FINETUNED  # of no consequence: no measured metric has one
            return bases(session, self._study_row(session, study_id).id, MEASURED, kind)

    def front(
        self,
        study_id: str,
        objectives: Sequence[str] = (),
        evaluation: EvaluationKind | None = None,
        *,
        dominated: Collection[TrialKind] = (),
        infeasible: bool = False,
        most: int | None = None,
        fingerprint: str | None = None,
    ) -> Front:
        """Return the front of a study; it equals that of :func:`nas.findings.pareto.pareto_points`.

        Networks that break a constraint of the study are not on it.

        Args:
            study_id: Id of the study.
            objectives: Metrics of the objectives; empty for those of the study.
            evaluation: Evaluation kind; None for :meth:`usual_evaluation`.
            dominated: Kinds of trials whose dominated networks are returned as well.
            infeasible: Whether networks that break a constraint may be on the front.
            most: Largest number of dominated networks of searches; of more, those near the front and a selection over
                the whole plane. None for all.
            fingerprint: Circumstances of measured objectives; None for those of most networks.

        Raises:
            NotFoundError: If there is no such study.
            InputError: If an objective is unknown.
        """
        with self._read() as session:
            study, _, ends = self._study_and(session, study_id, ends_of(study_id, MEASURED))
            definition = definition_from(study)
            names, limits = tuple(objectives) or definition.objectives, () if infeasible else definition.constraints
            check_objectives(names)
            kind = evaluation or usual_evaluation(session, study, self._usual)
            partners = _partners(session, study, names, limits) if kind is EvaluationKind.RETRAINED else []
            on = bases(session, study_id, METRICS, kind, fingerprint, ends)
            found = columns(session, study_id, names, on)
            rows = np.vstack([found.values, *([[p.values[name] for name in names]] for p in partners)])
            own = len(found.numbers)
            over = breaking(session, study_id, limits, on, found)
            kept = ~np.logical_or.reduce([*over.values(), np.zeros(own, dtype=bool)])
            kept = np.append(kept, [not point.broken for point in partners]).astype(bool)
            mask = np.zeros(len(rows), dtype=bool)
            mask[kept] = front_mask(rows[kept], names)
            shown = mask[:own] | _of_kinds(session, study_id, found, (names[0], on.get(names[0], "")), dominated)
            if most is not None:
                rare = _of_kinds(session, study_id, found, (names[0], on.get(names[0], "")), _RARE)
                crowd = np.flatnonzero(shown)
                shown[crowd] = thinned(found.values[crowd], names, (mask[:own] | rare)[crowd], most)
            chosen = np.flatnonzero(shown)
            places = [(int(found.numbers[i]), int(found.positions[i]), bool(mask[i])) for i in chosen]
            shown_numbers = {number for number, _, _ in places}
            known, details = _details(session, study_id, shown_numbers, {p.number for p in partners}, on)
            points = [
                _point(known[number], position, flag, details[number, position], limits)
                for number, position, flag in places
            ]
            points += [
                replace(point, on_front=flag)
                for point, flag in zip(partners, mask[own:].tolist(), strict=True)
                if flag or point.kind in dominated
            ]
            complete = len(rows) > 0 and all(name in study.reference_point for name in names)
            return Front(
                evaluation=kind,
                scored=len(rows),
                points=tuple(points),
                parameters={point.number: known[point.number].stored_parameters for point in points},
                several=frozenset(number for number, position in details if position > 0),
                hypervolume=volume(rows[mask], names, study.reference_point) if complete else None,
                broken={
                    str(limit): int(bad.sum()) + sum(str(limit) in point.broken for point in partners)
                    for limit, bad in over.items()
                },
                seeds={point.number: known[point.number].seed for point in points},
            )

    def growths(self, study_id: str) -> list[Growth]:
        """Return the growths of the hypervolume of a study's objectives, in the order of the trials' ends.

        The evaluation kind is the one that trials of the study's method end with. For studies of older versions, the
        growths are computed.

        Raises:
            NotFoundError: If there is no such study.
        """
        with self._read() as session:
            study = self._study_row(session, study_id)
            return stored_growths(session, study_id) or replayed(session, study, definition_from(study))

    def results(self, study_id: str) -> int:
        """Return the number of a study's trials with a result, over which its hypervolume grows.

        Raises:
            NotFoundError: If there is no such study.
        """
        with self._read() as session:
            return results_of(session, self._study_row(session, study_id).id)


def _of_kinds(
    session: Session, study_id: str, found: Columns, on: tuple[str, str], kinds: Collection[TrialKind]
) -> NDArray[np.bool_]:
    """Return which networks of ``found`` belong to trials of ``kinds``.

    Args:
        session: Session of one snapshot.
        study_id: Id of the study.
        found: Networks, each with a score.
        on: Metric and basis of a score that all of them have.
        kinds: Kinds of trials.
    """
    if set(kinds) >= set(_SEARCHABLE) or not kinds:
        return np.full(len(found.numbers), bool(kinds))
    metric, basis = on
    query = select(ScoreTable.number).where(
        ScoreTable.study_id == study_id, ScoreTable.metric == metric, ScoreTable.basis == basis
    )
    numbers = list(session.scalars(query.where(ScoreTable.kind.in_([kind.value for kind in kinds]))))
    return np.isin(found.numbers, numbers)


def _partners(
    session: Session, study: StudyTable, objectives: Sequence[str], limits: Sequence[Constraint]
) -> list[ParetoPoint]:
    """Return the uniform and random networks of the final comparison, which are few, as points."""
    query = select(TrialTable.number).where(
        TrialTable.study_id == study.id, TrialTable.kind == TrialKind.RETRAIN.value
    )
    numbers = list(session.scalars(query))
    if not numbers:
        return []
    trials = trials_of(session, study, numbers, history=False, interrupted=False)
    return pareto_points(trials, objectives, EvaluationKind.RETRAINED, limits)


def _details(
    session: Session, study_id: str, numbers: Collection[int], partners: Collection[int], on: Mapping[str, str]
) -> tuple[dict[int, TrialSpec], dict[tuple[int, int], _Details]]:
    """Return what points of a front show.

    Args:
        session: Session of one snapshot.
        study_id: Id of the study.
        numbers: Trials of the points.
        partners: Trials of the final comparison's partners.
        on: Basis of each metric.

    Returns:
        Specifications of all these trials; architecture and known values of all networks of ``numbers``.
    """
    values: dict[tuple[int, int], dict[str, float]] = defaultdict(dict)
    query = select(ScoreTable.number, ScoreTable.position, ScoreTable.metric, ScoreTable.value)
    query = query.where(ScoreTable.study_id == study_id, among(session, ScoreTable.number, numbers))
    known = (and_(ScoreTable.metric == name, ScoreTable.basis == basis) for name, basis in on.items())
    query = query.where(or_(*known))
    # The driver's own rows: SQLAlchemy's objects would take longer than the query.
    for number, position, metric, value in session.connection().execute(query).cursor.fetchall():
        values[number, position][metric] = value
    of = CandidateTable
    query = select(
        TrialTable.number, TrialTable.kind, TrialTable.parameters, TrialTable.seed,
        of.position, of.architecture_id, of.measured_within_budget,
    )  # fmt: skip
    query = query.outerjoin(of, (of.study_id == TrialTable.study_id) & (of.number == TrialTable.number))
    wanted = {*numbers, *partners}
    query = query.where(TrialTable.study_id == study_id, among(session, TrialTable.number, wanted))
    lines: Sequence[Any] = session.execute(query).all()
    return {row.number: spec_from(row) for row in lines}, {
        (row.number, row.position): _Details(
            row.architecture_id, values[row.number, row.position], row.measured_within_budget
        )
        for row in lines
        if row.position is not None and row.number in numbers
    }


def _point(
    spec: TrialSpec,
    position: int,
    flag: bool,
    details: _Details,
    limits: Sequence[Constraint],
) -> ParetoPoint:
    ordered = {name: details.values[name] for name in METRICS if name in details.values}
    over = tuple(map(str, broken(limits, ordered)))
    place = (spec.number, spec.label, spec.kind, details.architecture_id)
    return ParetoPoint(*place, ordered, flag, position, over, details.measured_within_budget)
