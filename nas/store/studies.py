"""Studies and their events."""

from __future__ import annotations

import difflib
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nas.definition.study import StudyDefinition
from nas.errors import ConflictError, InputError, NotFoundError, StoreError
from nas.findings.milliseconds import own_fingerprints
from nas.findings.power import plan_from_earlier
from nas.findings.warm_start import needs_table, prior_trials
from nas.store.base import Repository
from nas.store.mapping import clean_text, plain, shape_key, study_from
from nas.store.names import RESERVED, check_name, free_name
from nas.store.records import StudyRow
from nas.store.scores import regrow
from nas.store.tables import HistoryTable, StudyTable, TrialTable
from nas.store.tallies import best_top1, counts_of
from nas.store.trial_reads import trials_of
from nas.study import ComparisonPlan, DataFingerprint, PriorTrial, Study, StudyState

T = TypeVar("T")

_NAME_ATTEMPTS = 20
NEWEST_FIRST = (StudyTable.sequence.desc(), StudyTable.created_at.desc(), StudyTable.id)


class Studies(Repository):
    """Studies: creates, finds and moves them from state to state."""

    def create_study(
        self, definition: StudyDefinition, *, reference_point: Mapping[str, float], name: str | None = None
    ) -> Study:
        """Create a queued study.

        Args:
            definition: Definition of the study.
            reference_point: Reference point of the hypervolume, by metric.
            name: Name of the study, by default that of the definition; ``-2``, ``-3``, ... make it unique.

        Raises:
            NotFoundError: If the definition names an earlier study that does not exist.
            InputError: If results of that study do not hold in the new one.
        """

        def insert(session: Session) -> Study:
            return study_from(self._insert_study(session, definition, reference_point, name))

        return self._retry_name(insert)

    def _retry_name(self, insert: Callable[[Session], T]) -> T:
        for _ in range(_NAME_ATTEMPTS):
            try:
                with self._write() as session:
                    return insert(session)
            except StoreError as error:
                # On PostgreSQL another transaction may have committed the same name meanwhile.
                if not isinstance(error.__cause__, IntegrityError):
                    raise
        raise StoreError(f"no free name was found for the study in {_NAME_ATTEMPTS} attempts")

    def _insert_study(
        self,
        session: Session,
        definition: StudyDefinition,
        reference_point: Mapping[str, float],
        name: str | None,
    ) -> StudyTable:
        wanted = definition.name if name is None else name
        check_name(wanted)
        stored, prior, table = definition.to_dict(), None, None
        if definition.sweep.warm_start is not None:
            source = find_study(session, definition.sweep.warm_start)
            stored["sweep"]["from"] = source.name  # of an id or 'latest', which may mean another study later
            known = trials_of(session, source, None, history=False, interrupted=False)
            own = own_fingerprints(source.latency_table, definition.data.input_shape)
            prior = [trial.to_dict() for trial in prior_trials(definition, study_from(source), known, own)]
            table = source.latency_table if needs_table(definition) else None
        plan = self._earlier_plan(session, definition, stored)
        now = self._database.now(session)
        row = StudyTable(
            id=str(uuid.uuid4()),
            name=free_name(session, wanted),
            state=StudyState.QUEUED.value,
            definition=stored,
            input_shape=shape_key(definition.data.input_shape),
            reference_point=plain(reference_point),
            report=[],
            prior=prior,
            latency_table=table,
            comparison_plan=None if plan is None else plain(plan.to_dict()),
            created_by=None if self._actor is None else self._actor.name,
            last_event=0,
            sequence=self._next(session, StudyTable.sequence),
            created_at=now,
            updated_at=now,
        )
        session.add(row)
        session.flush()
        self._emit(session, row, "study", {"state": row.state, "name": row.name})
        return row

    def _earlier_plan(
        self, session: Session, definition: StudyDefinition, stored: dict[str, Any]
    ) -> ComparisonPlan | None:
        """Return the plan from the study that ``final.pilot`` names, and store its name; None if none is named."""
        if definition.final.pilot is None or not definition.planned_final:
            return None
        source = find_study(session, definition.final.pilot)
        stored["final"]["pilot"] = source.name  # of an id or 'latest', which may mean another study later
        known = trials_of(session, source, None, history=False, interrupted=False)
        return plan_from_earlier(definition, study_from(source), known)

    def study(self, ref: str) -> Study:
        """Find a study.

        Args:
            ref: Id, name, the first 6 or more characters of the id, or ``latest``.

        Raises:
            NotFoundError: If no study or more than one matches; the message lists similar names.
        """
        with self._read() as session:
            row, interrupted = self._study_as_it_is(session, find_study(session, ref).id)
            return study_from(row, interrupted=interrupted)

    def prior(self, study_id: str) -> tuple[PriorTrial, ...]:
        """Return the results of an earlier study that the study's searcher receives; they were fixed at its creation.

        Raises:
            NotFoundError: If there is no such study.
        """
        with self._read() as session:
            return tuple(map(PriorTrial.from_dict, self._study_row(session, study_id).prior or ()))

    def studies(self) -> list[StudyRow]:
        """Return all studies, newest first, with their numbers of trials by state, in one query."""
        with self._read() as session:
            rows = session.execute(select(StudyTable, self._interrupted()).order_by(*NEWEST_FIRST)).all()
            return _with_counts([(row, bool(interrupted)) for row, interrupted in rows])

    def study_row(self, ref: str) -> StudyRow:
        """Find a study as :meth:`study` does, with its numbers of trials by state."""
        with self._read() as session:
            found = self._study_as_it_is(session, find_study(session, ref).id)
            return _with_counts([found])[0]

    def set_study_state(
        self,
        study_id: str,
        state: StudyState,
        *,
        reason: str | None = None,
        report: Sequence[str] | None = None,
    ) -> None:
        """Move a study to ``state``.

        Args:
            study_id: Id of the study.
            state: New state.
            reason: Reason for ``failed``, ``stopped`` and ``paused``; it replaces the previous one, also if None.
            report: Findings in sentences; None keeps the present ones.
        """
        if state is StudyState.INTERRUPTED:
            raise InputError("a study is never stored as interrupted: that is what its lease says")
        with self._write() as session:
            row = self._locked_study(session, study_id)
            self._change_study(session, row, state, reason, report)

    def _change_study(
        self,
        session: Session,
        row: StudyTable,
        state: StudyState,
        reason: str | None,
        report: Sequence[str] | None = None,
    ) -> None:
        reason = clean_text(reason)
        sentences = row.report if report is None else [clean_text(sentence) or "" for sentence in report]
        if (row.state, row.reason, row.report) == (state.value, reason, sentences):
            return
        row.state, row.reason, row.report = state.value, reason, sentences
        payload = {"state": row.state, "reason": reason, "report": sentences}
        self._emit(session, row, "study", payload)

    def record_data(self, study_id: str, data: DataFingerprint) -> None:
        """Record the data of a study, or check that they equal the recorded ones.

        The data may change while no trial has trained on them: a damaged file paused the study, and was mended.

        Raises:
            ConflictError: If they differ; the message says how.
        """
        with self._write() as session:
            row = self._locked_study(session, study_id)
            if row.data is None or (row.data != plain(data.to_dict()) and self._ran_in_vain(session, study_id)):
                row.data = plain(data.to_dict())
                self._emit(session, row, "study", {"state": row.state, "data": row.data})
                return
            changes = DataFingerprint.from_dict(row.data).changes(data)
            if changes:
                raise ConflictError(
                    f"the data of study {row.name} has changed since it was first run, and what it would find could "
                    f"not be compared: {'; '.join(changes)}. Put the data back as it was, or start a new study"
                )

    def _ran_in_vain(self, session: Session, study_id: str) -> bool:
        """Return whether a study has trials, and none of them has an epoch."""
        trials, epochs = (
            session.scalar(select(table.study_id).where(table.study_id == study_id).limit(1)) is not None
            for table in (TrialTable, HistoryTable)
        )
        return trials and not epochs

    def latency_table(self, study_id: str) -> dict[str, Any] | None:
        """Return the latency table of a study in its JSON form; None if none was recorded."""
        with self._read() as session:
            query = select(StudyTable.latency_table).where(StudyTable.id == study_id)
            found: dict[str, Any] | None = session.scalars(query).one_or_none()
            return found

    def record_latency_table(self, study_id: str, table: Mapping[str, Any]) -> None:
        """Record the latency table of a study; one that is there stays, since trials have used it."""
        with self._write() as session:
            row = self._locked_study(session, study_id)
            if row.latency_table is None:
                row.latency_table = plain(table)
                self._emit(session, row, "study", {"state": row.state, "latency_table": table["fingerprint"]})

    def record_comparison_plan(self, study_id: str, plan: ComparisonPlan) -> None:
        """Record the statements on a study's final comparison before its trainings; they replace earlier ones."""
        with self._write() as session:
            row = self._locked_study(session, study_id)
            if row.comparison_plan != plain(plan.to_dict()):
                row.comparison_plan = plain(plan.to_dict())
                self._emit(session, row, "study", {"state": row.state, "comparison_plan": row.comparison_plan})

    def set_reference_point(self, study_id: str, point: Mapping[str, float]) -> None:
        """Set the reference point of the hypervolume, by metric."""
        with self._write() as session:
            row = self._locked_study(session, study_id)
            row.reference_point = plain(point)
            regrow(session, row)
            self._emit(session, row, "study", {"state": row.state, "reference_point": row.reference_point})


def _with_counts(rows: Sequence[tuple[StudyTable, bool]]) -> list[StudyRow]:
    """Return studies with their counts, from rows that each say whether the study is interrupted."""
    return [
        StudyRow(study_from(row, interrupted=interrupted), counts_of(row, interrupted=interrupted), best_top1(row))
        for row, interrupted in rows
    ]


def find_study(session: Session, ref: str) -> StudyTable:
    """Return the row of the study that ``ref`` names, as :meth:`Studies.study` does."""
    exact = select(StudyTable).where((StudyTable.id == ref) | (StudyTable.name == ref))
    row = session.scalars(exact).first()
    if row is not None:
        return row
    if ref == RESERVED:
        newest = session.scalars(select(StudyTable).order_by(*NEWEST_FIRST).limit(1)).first()
        if newest is None:
            raise NotFoundError("there is no study yet; start one with `nas run FILE`")
        return newest
    if re.fullmatch(r"[0-9a-f-]{6,36}", ref):
        rows = session.scalars(select(StudyTable).where(StudyTable.id.startswith(ref)).limit(5)).all()
        if len(rows) == 1:
            return rows[0]
        if rows:
            raise NotFoundError(f"{ref!r} is the start of several study ids: {', '.join(row.id for row in rows)}")
    raise NotFoundError(_not_found(session, ref))


def _not_found(session: Session, ref: str) -> str:
    names = list(session.scalars(select(StudyTable.name).order_by(*NEWEST_FIRST)))
    if not names:
        return f"there is no study {ref!r}, nor any other yet; start one with `nas run FILE`"
    near = difflib.get_close_matches(ref, names, n=5, cutoff=0.5) or names[:5]
    return f"there is no study {ref!r}; did you mean {', '.join(near)}? (`nas studies` lists all)"
