"""Reads columns of ``scores``: which values compare, and all networks with a value in each of some metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import BigInteger, Double, LargeBinary, cast, func, literal, select
from sqlalchemy.orm import Session

from nas.definition.constraints import Constraint
from nas.findings.scores import most_frequent, usual_kind
from nas.metrics import BY_TRAINING, METRICS, EvaluationKind, evaluated_metrics
from nas.store.tables import ScoreTable, StudyTable
from nas.trial import TrialKind

MEASURED = tuple(name for name, facts in METRICS.items() if not facts.evaluated)
"""Metrics whose basis is a fingerprint."""
_SEARCHED = (TrialKind.SEARCH.value, TrialKind.RANDOM.value)
_SCORES = ScoreTable.__table__
_PACKED = np.dtype([("place", ">i8"), ("value", ">f8")])
_POSITIONS = 1 << 20  # more than a trial has networks; a number and a position fit a double exactly


def usual_evaluation(
    session: Session, study: StudyTable, known: dict[str, tuple[int, EvaluationKind]]
) -> EvaluationKind:
    """Return the evaluation kind that a front or a list of the study compares by default.

    Args:
        session: Session of one snapshot.
        study: Study with its scores.
        known: Kinds by study, with the number of its last result; it is counted again after each new result.
    """
    last, kind = known.get(study.id, (None, None))
    if kind is None or last != study.last_result:
        kind = _counted_evaluation(session, study.id)
        known[study.id] = (study.last_result, kind)
    return kind


def _counted_evaluation(session: Session, study_id: str) -> EvaluationKind:
    places = list(product(evaluated_metrics(), BY_TRAINING))
    # A range of the covering index for each: to group them, PostgreSQL would read the whole table.
    query = select(func.count()).where(ScoreTable.study_id == study_id, ScoreTable.kind.in_(_SEARCHED))
    counts = [
        query.where(ScoreTable.metric == metric, ScoreTable.basis == kind.value).scalar_subquery()
        for metric, kind in places
    ]
    return usual_kind(dict(zip(places, session.execute(select(*counts)).one(), strict=True)))


def bases(
    session: Session,
    study_id: str,
    metrics: Iterable[str],
    kind: EvaluationKind,
    fingerprint: str | None = None,
    ends: Sequence[str | None] | None = None,
) -> dict[str, str]:
    """Return the basis on which a front compares each metric: ``kind``, or a fingerprint, by default the usual one.

    A measured metric without any measurement is left out. A metric without a measurement under ``fingerprint`` has
    the usual one: counts of operations do not depend on the device.

    Args:
        session: Session of one snapshot.
        study_id: Id of the study.
        metrics: Metrics that are compared.
        kind: Evaluation kind of the evaluated ones.
        fingerprint: Circumstances of the measured ones; None for the usual ones.
        ends: Values of :func:`ends_of` for the measured ones of ``metrics``, if another query has read them.
    """
    wanted = list(metrics)
    measured_names = [name for name in wanted if not METRICS[name].evaluated]
    if ends is None and measured_names:
        ends = session.execute(select(*ends_of(study_id, measured_names))).one()
    usual = _usual_fingerprints(session, study_id, measured_names, ends or ())
    if fingerprint is not None:
        measured = select(ScoreTable.metric).where(
            ScoreTable.study_id == study_id, ScoreTable.metric.in_(list(usual)), ScoreTable.basis == fingerprint
        )
        usual |= dict.fromkeys(session.scalars(measured.distinct()), fingerprint)
    found = {name: kind.value if METRICS[name].evaluated else usual.get(name) for name in wanted}
    return {name: basis for name, basis in found.items() if basis is not None}


def _usual_fingerprints(
    session: Session, study_id: str, metrics: Sequence[str], ends: Sequence[str | None]
) -> dict[str, str]:
    """Return the fingerprint of most networks by metric; several are counted."""
    first, last = _by_metric(metrics, ends)
    query = (
        select(ScoreTable.metric, ScoreTable.basis, func.count())
        .where(ScoreTable.study_id == study_id)
        .where(ScoreTable.metric.in_([name for name in metrics if first[name] != last[name]]))
        .group_by(ScoreTable.metric, ScoreTable.basis)
    )
    counts = {(metric, basis): count for metric, basis, count in session.execute(query)} if first != last else {}
    return {name: basis for name, basis in first.items() if basis is not None} | most_frequent(counts)


def ends_of(study_id: str, metrics: Iterable[str]) -> list[Any]:
    """Return columns for the first basis of each metric in the order of texts, then the last: the ends of ranges of an
    index.
    """
    of = ScoreTable
    return [
        select(end(of.basis)).where(of.study_id == study_id, of.metric == name).scalar_subquery()
        for end, name in product((func.min, func.max), metrics)
    ]


def _by_metric(
    metrics: Sequence[str], ends: Sequence[str | None]
) -> tuple[dict[str, str | None], dict[str, str | None]]:
    return dict(zip(metrics, ends, strict=False)), dict(zip(metrics, ends[len(metrics) :], strict=True))


def have_several(session: Session, study_id: str, metrics: Sequence[str]) -> bool:
    """Return whether any of ``metrics`` was measured under several circumstances in a study."""
    first, last = _by_metric(metrics, session.execute(select(*ends_of(study_id, metrics))).one())
    return first != last


def breaking(
    session: Session, study_id: str, limits: Sequence[Constraint], on: Mapping[str, str], found: Columns
) -> dict[Constraint, NDArray[np.bool_]]:
    """Return for each constraint which networks of ``found`` break it; one without the value does not.

    Args:
        session: Session of one snapshot.
        study_id: Id of the study.
        limits: Constraints of the study.
        on: Basis of each constrained metric.
        found: Networks to check.
    """
    masks = {}
    for limit in limits:
        mask = np.zeros(len(found.numbers), dtype=bool)
        if limit.metric in on and len(mask):
            [(places, values)] = _ranges(session, study_id, [(limit.metric, on[limit.metric])], None)
            broken = places[limit.excess(values) > 0]
            mask = np.isin(found.numbers * _POSITIONS + found.positions, broken)
        masks[limit] = mask
    return masks


@dataclass(frozen=True)
class Columns:
    """Networks with a score in each of some metrics, by trial and position; parallel arrays.

    Args:
        numbers: Numbers of the trials.
        positions: Indices of the networks within their trials.
        values: Scores, with one column for each metric.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.int64]
    values: NDArray[np.float64]


def columns(
    session: Session,
    study_id: str,
    metrics: Sequence[str],
    on: Mapping[str, str],
    numbers: Any = None,
) -> Columns:
    """Return the networks with a score in each metric.

    The final comparison's trials are left out: their networks are those of other trials.

    Args:
        session: Session of one snapshot.
        study_id: Id of the study.
        metrics: Metrics in the order of the columns.
        on: Basis of each metric.
        numbers: Trials as a list or a query; None for all.
    """
    known = all(name in on for name in metrics)
    # One range of the covering index for each metric, matched here: a join would look up each network in the table.
    found = _ranges(session, study_id, [(name, on[name]) for name in metrics], numbers) if known else []
    places = found[0][0] if found else np.empty(0, np.int64)
    for others, _ in found[1:]:
        if not np.array_equal(places, others):  # most networks have all scores
            places = np.intersect1d(places, others, assume_unique=True)
    values = [scores[np.searchsorted(own, places)] for own, scores in found]
    matrix = np.stack(values, axis=1) if values else np.empty((0, len(metrics)))
    return Columns(places // _POSITIONS, places % _POSITIONS, matrix)


def _ranges(
    session: Session, study_id: str, wanted: Sequence[tuple[str, str]], numbers: Any
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Return places and values of all networks for each metric and basis, in the order of the places."""
    queries = [_range(study_id, metric, basis, numbers) for metric, basis in wanted]
    packed = session.get_bind().dialect.name == "postgresql"
    tables = _packed(session, queries) if packed else [_unpacked(session, query) for query in queries]
    found = []
    for table in tables:
        order = np.argsort(table["place"])
        found.append((table["place"][order].astype(np.int64), table["value"][order].astype(np.float64)))
    return found


def _range(study_id: str, metric: str, basis: str, numbers: Any) -> Any:
    of = _SCORES.c
    place = cast(of.number, BigInteger) * _POSITIONS + of.position
    query = select(place.label("place"), of.value).where(
        of.study_id == study_id, of.metric == metric, of.basis == basis, of.kind != TrialKind.RETRAIN.value
    )
    return query if numbers is None else query.where(of.number.in_(numbers))


def _packed(session: Session, queries: Sequence[Any]) -> list[NDArray[Any]]:
    """Return the rows of ``queries`` from one statement: PostgreSQL packs them as arrays lie in memory.

    A row of its own for each network would take ten times as long to become an array, and each statement a round trip.
    """
    columns = []
    for query in queries:
        row = query.subquery()
        bits = func.int8send(row.c.place).op("||")(func.float8send(cast(row.c.value, Double)))
        columns.append(select(func.string_agg(bits, literal(b"", LargeBinary))).select_from(row).scalar_subquery())
    values = session.execute(select(*columns)).one()
    return [np.frombuffer(bytes(value or b""), _PACKED) for value in values]


def _unpacked(session: Session, query: Any) -> NDArray[Any]:
    # The driver's own rows: SQLAlchemy's objects would take ten times as long to become an array.
    rows = session.connection().execute(query).cursor.fetchall()
    flat = np.fromiter(chain.from_iterable(rows), np.float64, count=2 * len(rows)).reshape(-1, 2)
    table = np.empty(len(rows), _PACKED.newbyteorder("="))
    table["place"], table["value"] = flat.T
    return table
