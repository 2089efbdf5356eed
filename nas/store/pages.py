"""Pages of trials: reads of exactly the columns that they show, from the mark where the previous page ended."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import func, literal, select, tuple_
from sqlalchemy.orm import Session

from nas.definition.space import is_numeric
from nas.errors import InputError
from nas.findings.scores import check_objectives
from nas.metrics import BY_TRAINING, METRICS, EvaluationKind
from nas.store.base import Repository, among
from nas.store.mapping import definition_from, fidelity_from, spec_from
from nas.store.marks import damaged, decode_mark, encode_mark
from nas.store.records import NetworkRow, TrialPage, TrialRow
from nas.store.score_reads import MEASURED, bases, ends_of, usual_evaluation
from nas.store.splits import SplitCondition
from nas.store.tables import CandidateTable, HistoryTable, ScoreTable, StudyTable, TrialTable
from nas.trial import TrialKind, TrialState

MAX_PAGE = 1000
PARAMETER = "parameters."
"""Beginning of the names of sampled parameters among those of metrics."""
_Scores = dict[tuple[int, int], dict[tuple[str, str], float]]


@dataclass(frozen=True)
class PageQuery:
    """The part of a study's trials that a page shows.

    Args:
        limit: Largest number of lines.
        after: Mark of the previous page's end; None for the first page.
        sort: Metric of the order, or a sampled number, such as ``parameters.target``; None for the order of numbers. In
            the order of a metric, lines are networks. Trials without a value come last.
        descending: Whether the order is descending.
        states: States of the trials; empty for all.
        kinds: Kinds of the trials; empty for all.
        evaluation: Evaluation kind of the scores; None for the one that most networks have, or a trial's own.
        splits: Conditions on splits, which a network of the trial meets; in the order of a metric, the network itself.
    """

    limit: int = 100
    after: str | None = None
    sort: str | None = None
    descending: bool = False
    states: Collection[TrialState] = ()
    kinds: Collection[TrialKind] = ()
    evaluation: EvaluationKind | None = None
    splits: Collection[SplitCondition] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MAX_PAGE:
            raise InputError(f"a page has 1 to {MAX_PAGE} lines, but limit is {self.limit}")
        if self.sort is not None and self.parameter is None:
            check_objectives((self.sort,))

    @property
    def parameter(self) -> str | None:
        """Name of the sampled parameter of the order; None for another order."""
        name = (self.sort or "").removeprefix(PARAMETER)
        return name if name != (self.sort or "") else None


class Pages(Repository):
    """Reads lists of trials, whole or in pages."""

    def trial_page(self, study_id: str, query: PageQuery) -> TrialPage:
        """Return a page of a study's trials.

        The time does not depend on the page's place: each page begins where the mark of the previous one says.

        Raises:
            NotFoundError: If there is no such study.
            InputError: If the mark is damaged or belongs to another order, or the order is by no sampled number.
        """
        with self._read() as session:
            study, interrupted, on, usual = self._compared(session, study_id, query.evaluation)
            _check_parameter(study, query)
            places, after = _places(session, study, query, {} if query.sort not in on else {query.sort: on[query.sort]})
            ordered = frozenset(n for n, position in places if position is not None)
            shown = _Shown(query.evaluation, usual, on, ordered)
            rows = _rows(session, study, {number for number, _ in places}, shown, interrupted)
            lines = (
                row if position is None else replace(row, networks=(row.networks[position],))
                for number, position in places
                if (row := rows.get(number))
            )
            return TrialPage(tuple(lines), after, usual)

    def trial_rows(self, study_id: str, evaluation: EvaluationKind | None = None) -> TrialPage:
        """Return all trials of a study by number as one page.

        Raises:
            NotFoundError: If there is no such study.
        """
        with self._read() as session:
            study, interrupted, on, usual = self._compared(session, study_id, evaluation)
            rows = _rows(session, study, None, _Shown(evaluation, usual, on), interrupted)
            return TrialPage(tuple(rows.values()), None, usual)

    def _compared(
        self, session: Session, study_id: str, asked: EvaluationKind | None
    ) -> tuple[StudyTable, bool, dict[str, str], EvaluationKind]:
        """Return the study, whether it is interrupted, the basis of each metric, and the usual evaluation kind."""
        study, interrupted, ends = self._study_and(session, study_id, ends_of(study_id, MEASURED))
        usual = usual_evaluation(session, study, self._usual)
        return study, interrupted, bases(session, study_id, METRICS, asked or usual, ends=ends), usual


@dataclass(frozen=True)
class _Shown:
    """Rule for the evaluation kind that a list shows.

    Args:
        asked: Kind for all trials, if the reader chose one.
        usual: Kind that most networks have.
        on: Basis of each metric.
        ordered: Numbers of the trials that stand in an order by their score of the usual kind.
    """

    asked: EvaluationKind | None
    usual: EvaluationKind
    on: Mapping[str, str]
    ordered: frozenset[int] = frozenset()

    def kind(self, number: int, known: Collection[tuple[str, str]]) -> EvaluationKind | None:
        """Return the kind for a trial: without a choice the usual one, if its first network has it, else the best.

        Networks of the final comparison have only retrained scores.
        """
        if self.asked is not None or number in self.ordered:
            return self.asked or self.usual
        there = {basis for metric, basis in known if METRICS[metric].evaluated}
        return next((kind for kind in (self.usual, *BY_TRAINING) if kind.value in there), None)


def _rows(
    session: Session,
    study: StudyTable,
    numbers: Collection[int] | None,
    shown: _Shown,
    interrupted: bool,
) -> dict[int, TrialRow]:
    """Return trials in lists by number; None for all."""
    if numbers is not None and not numbers:  # an empty page
        return {}
    scores = _scores(session, study.id, numbers)
    # Trials and their networks in one statement: to a server, each costs a round trip.
    query = select(
        TrialTable.number, TrialTable.kind, TrialTable.parameters, TrialTable.seed, TrialTable.state, TrialTable.reason,
        TrialTable.started_at, TrialTable.ended_at, TrialTable.epochs_trained, TrialTable.epochs_planned,
        CandidateTable.position, CandidateTable.architecture_id, CandidateTable.within_budget,
    )  # fmt: skip
    own = (CandidateTable.study_id == TrialTable.study_id) & (CandidateTable.number == TrialTable.number)
    query = query.outerjoin(CandidateTable, own)
    query = query.where(TrialTable.study_id == study.id, among(session, TrialTable.number, numbers))
    lines = session.execute(query.order_by(TrialTable.number, CandidateTable.position)).all()
    running = {line.number for line in lines if line.state == TrialState.RUNNING.value}
    epochs = _epochs(session, study.id, running)
    found = {}
    for _, group in groupby(lines, key=attrgetter("number")):
        row, *others = group
        state = TrialState(row.state)
        listed = () if row.position is None else tuple(_networks([row, *others], scores, shown))
        found[row.number] = TrialRow(
            spec_from(row),
            TrialState.INTERRUPTED if interrupted and state is TrialState.RUNNING else state,
            row.reason,
            row.started_at,
            row.ended_at,
            len(listed),
            all(network.within_budget for network in listed) if listed else None,
            listed,
            epochs.get(row.number),
            fidelity_from(row.epochs_trained, row.epochs_planned),
        )
    return found


def _scores(session: Session, study_id: str, numbers: Collection[int] | None) -> _Scores:
    scores: _Scores = defaultdict(dict)
    query = select(ScoreTable.number, ScoreTable.position, ScoreTable.metric, ScoreTable.basis, ScoreTable.value)
    query = query.where(ScoreTable.study_id == study_id, among(session, ScoreTable.number, numbers))
    for number, position, metric, basis, value in session.execute(query):
        scores[number, position][metric, basis] = value
    return scores


def _networks(rows: Iterable[Any], scores: _Scores, shown: _Shown) -> Iterator[NetworkRow]:
    """Yield the networks of a trial by position."""
    kind: EvaluationKind | None = None
    for row in rows:
        known = scores[row.number, row.position]
        if row.position == 0:
            kind = shown.kind(row.number, known)
        values = _values(known, kind, shown.on)
        yield NetworkRow(row.position, row.architecture_id, row.within_budget, kind, values)


def _values(
    known: Mapping[tuple[str, str], float], kind: EvaluationKind | None, on: Mapping[str, str]
) -> dict[str, float]:
    places = ((name, kind or "") if METRICS[name].evaluated else (name, on.get(name, "")) for name in METRICS)
    return {name: known[name, str(basis)] for name, basis in places if (name, str(basis)) in known}


def _epochs(session: Session, study_id: str, running: Collection[int]) -> dict[int, int]:
    """Return the newest epoch of each of the ``running`` trials that has reported one, by number."""
    if not running:
        return {}
    newest = (
        select(HistoryTable.number, func.max(HistoryTable.epoch))
        .where(HistoryTable.study_id == study_id, HistoryTable.number.in_(sorted(running)))
        .group_by(HistoryTable.number)
    )
    return {row[0]: row[1] for row in session.execute(newest)}


def _places(
    session: Session, study: StudyTable, query: PageQuery, on: Mapping[str, str]
) -> tuple[list[tuple[int, int | None]], str | None]:
    """Return (trial, network) of the lines of a page, and the mark of its end; network None stands for all.

    Args:
        session: Session of one snapshot.
        study: Study with its trials.
        query: Part of the trials to show.
        on: Metric of the order with its basis; empty for another order, and for a metric without a value.
    """
    mark = _read_mark(query)
    more = query.limit + 1  # one line more says whether there is a next page
    lines: list[tuple[float | None, int, int | None]] = []
    if (on or query.parameter is not None) and (mark is None or mark[0] is not None):
        found = _by_score(study, query, on, mark) if on else _by_parameter(study, query, mark)
        lines += [(value, number, place) for number, place, value in session.execute(found.limit(more))]
    if len(lines) < more:
        last = mark[1] if mark is not None and mark[0] is None else None
        unscored = session.scalars(_by_number(study, query, on, last).limit(more - len(lines)))
        lines += [(None, number, None) for number in unscored]
    kept = lines[: query.limit]
    after = _mark(query, kept[-1]) if len(lines) > query.limit else None
    return [(number, place) for _, number, place in kept], after


def _by_score(
    study: StudyTable, query: PageQuery, on: Mapping[str, str], mark: tuple[float | None, int, int] | None
) -> Any:
    key = (ScoreTable.value, ScoreTable.number, ScoreTable.position)
    [(metric, basis)] = on.items()
    found = select(ScoreTable.number, ScoreTable.position, ScoreTable.value).where(
        ScoreTable.study_id == study.id, ScoreTable.metric == metric, ScoreTable.basis == basis
    )
    for split in query.splits:
        found = found.where(split.holds(study.id, study.input_shape, ScoreTable.number, ScoreTable.position))
    if query.kinds:
        found = found.where(ScoreTable.kind.in_([kind.value for kind in query.kinds]))
    if query.states:
        trial = (TrialTable.study_id == ScoreTable.study_id) & (TrialTable.number == ScoreTable.number)
        found = found.join(TrialTable, trial).where(TrialTable.state.in_([state.value for state in query.states]))
    if mark is not None:
        found = found.where(tuple_(*key) < tuple_(*mark) if query.descending else tuple_(*key) > tuple_(*mark))
    return found.order_by(*((column.desc() if query.descending else column) for column in key))


def _by_parameter(study: StudyTable, query: PageQuery, mark: tuple[float | None, int, int] | None) -> Any:
    key = (_parameter(query), TrialTable.number)
    found = _chosen(select(TrialTable.number, literal(None), key[0]), study, query).where(key[0].is_not(None))
    if mark is not None:
        found = found.where(tuple_(*key) < tuple_(*mark[:2]) if query.descending else tuple_(*key) > tuple_(*mark[:2]))
    return found.order_by(*((column.desc() if query.descending else column) for column in key))


def _parameter(query: PageQuery) -> Any:
    return TrialTable.parameters[query.parameter].as_float()


def _check_parameter(study: StudyTable, query: PageQuery) -> None:
    if query.parameter is None:
        return
    known = [name for name, entry in definition_from(study).sampled.items() if is_numeric(entry)]
    if query.parameter not in known:
        names = ", ".join(f"{PARAMETER}{name}" for name in known) or "none"
        raise InputError(f"sort: {query.parameter[:80]!r} is no sampled number of this study; known: {names}")


def _chosen(found: Any, study: StudyTable, query: PageQuery) -> Any:
    """Return a query of trials with the conditions of a page."""
    found = found.where(TrialTable.study_id == study.id)
    for split in query.splits:
        found = found.where(split.holds(study.id, study.input_shape, TrialTable.number))
    if query.kinds:
        found = found.where(TrialTable.kind.in_([kind.value for kind in query.kinds]))
    if query.states:
        found = found.where(TrialTable.state.in_([state.value for state in query.states]))
    return found


def _by_number(study: StudyTable, query: PageQuery, on: Mapping[str, str], last: int | None) -> Any:
    """Return the query of trials by number; of those without a score in the order's metric, if it has one."""
    found = _chosen(select(TrialTable.number), study, query)
    if query.parameter is not None:
        found = found.where(_parameter(query).is_(None))
    for metric, basis in on.items():
        score = select(ScoreTable.number).where(
            ScoreTable.study_id == study.id, ScoreTable.number == TrialTable.number,
            ScoreTable.metric == metric, ScoreTable.basis == basis,
        )  # fmt: skip
        found = found.where(~score.exists())
    down = query.descending and query.sort is None
    if last is not None:
        found = found.where(TrialTable.number < last if down else TrialTable.number > last)
    return found.order_by(TrialTable.number.desc() if down else TrialTable.number)


def _mark(query: PageQuery, line: tuple[float | None, int, int | None]) -> str:
    return encode_mark([query.sort, query.descending, *line])


def _read_mark(query: PageQuery) -> tuple[float | None, int, int] | None:
    if query.after is None:
        return None
    try:
        sort, descending, value, number, position = decode_mark(query.after)
        known = (None if value is None else float(value), int(number), int(position or 0))
        if not all(0 <= place < 2**31 for place in known[1:]) or not math.isfinite(known[0] or 0.0):
            raise damaged(query.after)
    except (ValueError, TypeError):
        raise damaged(query.after) from None
    if (sort, descending) != (query.sort, query.descending):
        order = "number" if sort is None else sort
        raise InputError(f"after: the mark belongs to a list by {order}; ask for its first page in the new order")
    return known
