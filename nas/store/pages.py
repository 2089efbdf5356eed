"""Pages of trials: reads of exactly the columns that they show, from the mark where the previous page ended."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import func, literal, select, tuple_
from sqlalchemy.orm import Session

from nas.definition.space import is_numeric
from nas.errors import InputError
from nas.findings.scores import check_objectives
from nas.metrics import BY_TRAINING, METRICS, EvaluationKind
from nas.store.base import Repository
from nas.store.mapping import definition_from, fidelity_from, spec_from
from nas.store.marks import damaged, decode_mark, encode_mark
from nas.store.records import NetworkRow, TrialPage, TrialRow
from nas.store.scores import bases, in_reach
from nas.store.splits import SplitCondition
from nas.store.tables import CandidateTable, HistoryTable, ScoreTable, StudyTable, TrialTable
from nas.trial import TrialKind, TrialState

MAX_PAGE = 1000
PARAMETER = "parameters."
"""Beginning of the names of sampled parameters among those of metrics."""


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
            study, interrupted = self._study_as_it_is(session, study_id)
            _check_parameter(study, query)
            usual = self._usual_kind(session, study)
            places, after = _places(session, study, query, query.evaluation or usual)
            shown = _Shown(query.evaluation, usual, frozenset(n for n, position in places if position is not None))
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
            study, interrupted = self._study_as_it_is(session, study_id)
            usual = self._usual_kind(session, study)
            rows = _rows(session, study, None, _Shown(evaluation, usual), interrupted)
            return TrialPage(tuple(rows.values()), None, usual)


@dataclass(frozen=True)
class _Shown:
    """Rule for the evaluation kind that a list shows.

    Args:
        asked: Kind for all trials, if the reader chose one.
        usual: Kind that most networks have.
        ordered: Numbers of the trials that stand in an order by their score of the usual kind.
    """

    asked: EvaluationKind | None
    usual: EvaluationKind
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
    networks = _networks(session, study.id, numbers, shown)
    query = select(
        TrialTable.number, TrialTable.kind, TrialTable.parameters, TrialTable.seed, TrialTable.state, TrialTable.reason,
        TrialTable.started_at, TrialTable.ended_at, TrialTable.epochs_trained, TrialTable.epochs_planned,
    )  # fmt: skip
    query = query.where(TrialTable.study_id == study.id, in_reach(TrialTable.number, numbers))
    epochs = _epochs(session, study.id, numbers)
    found = {}
    for row in session.execute(query.order_by(TrialTable.number)):
        state = TrialState(row.state)
        listed = tuple(networks.get(row.number, ()))
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


def _networks(
    session: Session,
    study_id: str,
    numbers: Collection[int] | None,
    shown: _Shown,
) -> dict[int, list[NetworkRow]]:
    measured = bases(session, study_id, [name for name in METRICS if not METRICS[name].evaluated], shown.usual)
    scores: dict[tuple[int, int], dict[tuple[str, str], float]] = defaultdict(dict)
    query = select(ScoreTable.number, ScoreTable.position, ScoreTable.metric, ScoreTable.basis, ScoreTable.value)
    query = query.where(ScoreTable.study_id == study_id, in_reach(ScoreTable.number, numbers))
    for number, position, metric, basis, value in session.execute(query):
        scores[number, position][metric, basis] = value
    rows = select(
        CandidateTable.number, CandidateTable.position, CandidateTable.architecture_id, CandidateTable.within_budget
    ).where(CandidateTable.study_id == study_id, in_reach(CandidateTable.number, numbers))
    found: dict[int, list[NetworkRow]] = defaultdict(list)
    kinds: dict[int, EvaluationKind | None] = {}
    for number, position, architecture, within in session.execute(
        rows.order_by(CandidateTable.number, CandidateTable.position)
    ):
        known = scores[number, position]
        if position == 0:
            kinds[number] = shown.kind(number, known)
        kind = kinds[number]
        found[number].append(NetworkRow(position, architecture, within, kind, _values(known, kind, measured)))
    return found


def _values(
    known: Mapping[tuple[str, str], float], kind: EvaluationKind | None, measured: Mapping[str, str]
) -> dict[str, float]:
    places = ((name, kind or "") if METRICS[name].evaluated else (name, measured.get(name, "")) for name in METRICS)
    return {name: known[name, str(basis)] for name, basis in places if (name, str(basis)) in known}


def _epochs(session: Session, study_id: str, numbers: Collection[int] | None) -> dict[int, int]:
    """Return the newest epoch of each running trial that has reported one, by number."""
    query = select(TrialTable.number).where(
        TrialTable.study_id == study_id,
        TrialTable.state == TrialState.RUNNING.value,
        in_reach(TrialTable.number, numbers),
    )
    running = list(session.scalars(query))
    if not running:
        return {}
    newest = (
        select(HistoryTable.number, func.max(HistoryTable.epoch))
        .where(HistoryTable.study_id == study_id, HistoryTable.number.in_(running))
        .group_by(HistoryTable.number)
    )
    return {row[0]: row[1] for row in session.execute(newest)}


def _places(
    session: Session, study: StudyTable, query: PageQuery, kind: EvaluationKind
) -> tuple[list[tuple[int, int | None]], str | None]:
    """Return (trial, network) of the lines of a page, and the mark of its end; network None stands for all."""
    mark = _read_mark(query)
    more = query.limit + 1  # one line more says whether there is a next page
    on = {} if query.sort is None or query.parameter is not None else bases(session, study.id, [query.sort], kind)
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
