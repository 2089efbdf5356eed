"""Lists of studies in pages: filtered by state, tag and text, in any order."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, func, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from nas.errors import InputError
from nas.store.base import Repository
from nas.store.mapping import study_from
from nas.store.marks import damaged, decode_mark, encode_mark
from nas.store.records import StudyPage, StudyRow
from nas.store.tables import StudyTable
from nas.store.tallies import best_top1, best_top1_column, counts_of
from nas.study import StudyState

MOST_STUDIES = 500


class StudyOrder(StrEnum):
    """Orders of a list of studies."""

    CREATED = "created"
    UPDATED = "updated"
    NAME = "name"
    BEST = "best_top1"
    """The best validation top-1, of the best trained weights with a score; studies without one come last."""


@dataclass(frozen=True)
class StudyQuery:
    """The part of the studies that a page shows.

    Args:
        limit: Largest number of studies; None for all.
        after: Mark of the previous page's end; None for the first page.
        sort: Order of the list.
        descending: Whether the order is descending.
        states: States of the studies; empty for all.
        tags: Tags that each study has.
        text: Text in the name, the note or the definition; the case of ASCII letters does not matter.
        archived: Whether archived studies are listed instead of the others; None for both.
    """

    limit: int | None = None
    after: str | None = None
    sort: StudyOrder = StudyOrder.CREATED
    descending: bool = True
    states: Collection[StudyState] = ()
    tags: Collection[str] = ()
    text: str = ""
    archived: bool | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and not 1 <= self.limit <= MOST_STUDIES:
            raise InputError(f"a page has 1 to {MOST_STUDIES} studies, but limit is {self.limit}")


class StudyLists(Repository):
    """Reads lists of studies."""

    def study_list(self, query: StudyQuery) -> StudyPage:
        """Return a page of studies.

        Raises:
            InputError: If the mark is damaged or belongs to another order.
        """
        column = _column(query)
        key = (column, StudyTable.id)
        found = select(StudyTable, self._interrupted(), column).where(*self._conditions(query))
        if query.after is not None:
            mark = tuple_(*_read_mark(query))
            found = found.where(tuple_(*key) < mark if query.descending else tuple_(*key) > mark)
        found = found.order_by(*(part.desc() if query.descending else part for part in key))
        if query.limit is not None:
            found = found.limit(query.limit + 1)  # one more says whether there is a next page
        with self._read() as session:
            rows = session.execute(found).all()
            kept = rows if query.limit is None else rows[: query.limit]
            after = _mark(query, kept[-1][2], kept[-1][0].id) if len(kept) < len(rows) else None
            return StudyPage(
                tuple(
                    StudyRow(
                        study_from(row, interrupted=bool(dead)), counts_of(row, interrupted=bool(dead)), best_top1(row)
                    )
                    for row, dead, _ in kept
                ),
                after,
            )

    def _conditions(self, query: StudyQuery) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if query.states:
            found.append(or_(*(self._in_state(state) for state in query.states)))
        if query.archived is not None:
            found.append(StudyTable.archived_at.is_not(None) if query.archived else StudyTable.archived_at.is_(None))
        found += [cast(StudyTable.tags, Text).contains(json.dumps(tag), autoescape=True) for tag in query.tags]
        if query.text:
            found.append(
                or_(
                    _contains(StudyTable.name, query.text),
                    _contains(StudyTable.note, query.text),
                    _contains(cast(StudyTable.definition, Text), json.dumps(query.text)[1:-1]),
                )
            )
        return found

    def _in_state(self, state: StudyState) -> ColumnElement[bool]:
        if state is StudyState.INTERRUPTED:
            return self._interrupted()
        stored = StudyTable.state == state.value
        return stored & ~self._interrupted() if state is StudyState.RUNNING else stored


def _contains(column: Any, text: str) -> ColumnElement[bool]:
    """Return the condition that a column holds a text; SQLite compares letters beyond ASCII by their case."""
    escaped = re.sub(r"([%_\\])", r"\\\1", text)
    return func.lower(column).like(func.lower(f"%{escaped}%"), escape="\\")


def _column(query: StudyQuery) -> ColumnElement[Any] | InstrumentedAttribute[Any]:
    if query.sort is StudyOrder.BEST:
        return best_top1_column(absent=-1.0 if query.descending else 2.0)
    return {
        StudyOrder.CREATED: StudyTable.sequence,
        StudyOrder.UPDATED: StudyTable.updated_at,
        StudyOrder.NAME: StudyTable.name,
    }[query.sort]


def _mark(query: StudyQuery, value: Any, study_id: str) -> str:
    """Return the mark of a page's end; its ``value`` is the database's, which reads numbers in JSON its own way."""
    shown = value.isoformat() if isinstance(value, datetime) else value
    return encode_mark([query.sort.value, query.descending, shown, study_id])


def _read_mark(query: StudyQuery) -> tuple[Any, str]:
    assert query.after is not None
    try:
        sort, descending, value, study_id = decode_mark(query.after)
        kinds: dict[StudyOrder, Callable[[Any], Any]] = {
            StudyOrder.CREATED: int, StudyOrder.UPDATED: datetime.fromisoformat, StudyOrder.NAME: str,
            StudyOrder.BEST: float,
        }  # fmt: skip
        if (sort, descending) == (query.sort.value, query.descending):
            return kinds[query.sort](value), str(study_id)
    except (ValueError, TypeError):
        raise damaged(query.after) from None
    raise InputError("after: the mark belongs to a list in another order; ask for its first page in the new order")
