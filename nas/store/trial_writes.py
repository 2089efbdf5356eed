"""Writes trials: adds, starts and ends them, and puts them back after an interruption."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nas.candidate import Candidate
from nas.definition.space import Parameters
from nas.errors import ConflictError, InputError
from nas.finalist import Finalist
from nas.store.epochs import Epochs
from nas.store.mapping import clean_text, definition_from, plain, spec_from
from nas.store.observations import Observations, write_candidate
from nas.store.scores import grow, hypervolume, regrow
from nas.store.tables import StudyTable, TrialTable
from nas.store.tallies import count_new, move_trial, note_best
from nas.trial import OWN_NETWORK, Fidelity, Placement, TrialKind, TrialSpec, TrialState, seed_for


class TrialWrites(Epochs, Observations):
    """Adds, starts and ends trials, and puts them back."""

    def add_trials(self, study_id: str, trials: Iterable[tuple[TrialKind, Parameters]]) -> list[TrialSpec]:
        """Add queued trials with the next numbers; each seed derives from the study's (:func:`nas.trial.seed_for`).

        Raises:
            InputError: If one trains a given network; see :meth:`add_finalists`.
        """
        new = [(kind, parameters, None) for kind, parameters in trials]
        if given := [kind for kind, _, _ in new if kind in OWN_NETWORK]:
            kind = given[0].value
            raise InputError(f"a trial of kind {kind!r} needs the network that it trains; add it as a finalist")
        return self._add_trials(study_id, new)

    def add_finalists(
        self,
        study_id: str,
        finalists: Iterable[Finalist],
        parameters: Parameters | None = None,
        kind: TrialKind = TrialKind.RETRAIN,
    ) -> list[TrialSpec]:
        """Add queued trials of given networks, one for each of ``finalists``.

        Args:
            study_id: Id of the study.
            finalists: Networks to train.
            parameters: Parameters of their training.
            kind: Kind ``retrain`` for the final comparison, ``cheaper`` for networks below a hard limit.
        """
        trials = [(kind, parameters or {}, finalist) for finalist in finalists]
        return self._add_trials(study_id, trials)

    def _add_trials(
        self, study_id: str, trials: Sequence[tuple[TrialKind, Parameters, Finalist | None]]
    ) -> list[TrialSpec]:
        with self._write() as session:
            study = self._locked_study(session, study_id)
            seed = definition_from(study).sweep.seed
            last = session.scalar(select(func.max(TrialTable.number)).where(TrialTable.study_id == study_id))
            first = 0 if last is None else last + 1
            # The search trials of an extended study have the seeds that they would have had before its comparison.
            apart = TrialTable.kind.in_(kind.value for kind in OWN_NETWORK)
            compared = select(func.count()).where(TrialTable.study_id == study_id, apart)
            before = session.scalar(compared) or 0
            specs = [
                TrialSpec(number, kind, plain(parameters), seed_for(seed, number - before, finalist), finalist)
                for number, (kind, parameters, finalist) in enumerate(trials, start=first)
            ]
            now = self._database.now(session)
            count_new(study, len(specs))
            for spec in specs:
                row = TrialTable(study_id=study_id, number=spec.number, kind=spec.kind.value, seed=spec.seed)
                row.state, row.parameters, row.created_at = TrialState.QUEUED.value, spec.stored_parameters, now
                session.add(row)
                self._emit_trial(session, study, row)
            return specs

    def start_trial(self, study_id: str, number: int) -> None:
        """Move a queued trial to ``running``.

        Raises:
            ConflictError: If it is not queued.
        """
        with self._write() as session:
            study, row = self._locked_trial(session, study_id, number)
            if row.state != TrialState.QUEUED.value:
                raise ConflictError(f"trial {number} of study {study.name} is {row.state}, so it cannot be started")
            move_trial(study, row, TrialState.RUNNING)
            row.started_at = self._database.now(session)
            self._emit_trial(session, study, row)

    def place_trial(self, study_id: str, number: int, placement: Placement) -> None:
        """Record the place of a trial's run; a repeated run replaces it.

        Raises:
            NotFoundError: If there is no such trial.
        """
        with self._write() as session:
            study, row = self._locked_trial(session, study_id, number)
            row.placement = placement.to_dict()
            self._emit(session, study, "place", {"number": number, "node": placement.node})

    def end_trial(
        self,
        study_id: str,
        number: int,
        state: TrialState,
        *,
        candidates: Sequence[Candidate] = (),
        reason: str | None = None,
        fidelity: Fidelity | None = None,
    ) -> None:
        """End a trial; no other method does. The same transaction writes all its scores and measurements.

        Args:
            study_id: Id of the study.
            number: Number of the trial.
            state: State at the end: ``complete``, ``pruned``, ``failed`` or ``cancelled``.
            candidates: Networks that it settled on; a complete trial has at least one, a pruned one none.
            reason: Reason why it failed, was cancelled or stopped early.
            fidelity: Number of epochs that a pruned trial trained, of how many.

        Raises:
            InputError: If ``state`` is not the end of a trial, a complete trial has no candidate, or a pruned one has
                a candidate or lacks its fidelity.
            ConflictError: If the trial has already ended, or this end needs a started trial.
        """
        if not state.ended:
            raise InputError(f"a trial ends as complete, pruned, failed or cancelled, not as {state.value!r}")
        if state is TrialState.COMPLETE and not candidates:
            raise InputError(f"trial {number} cannot be complete without a candidate; end it as failed, with a reason")
        if state is TrialState.PRUNED and (candidates or fidelity is None):
            # Scores of fewer epochs beside those of whole trainings would put it on a front where it does not belong.
            raise InputError(f"trial {number} was stopped early: end it with its fidelity, and without a candidate")
        with self._write() as session:
            study, row = self._locked_trial(session, study_id, number)
            unstarted = row.state == TrialState.QUEUED.value
            observed = state in (TrialState.COMPLETE, TrialState.PRUNED)
            if TrialState(row.state).ended or (unstarted and observed):
                raise ConflictError(
                    f"trial {number} of study {study.name} is {row.state}, so it cannot end as {state.value}"
                )
            now = self._database.now(session)
            move_trial(study, row, state)
            row.reason, row.ended_at = clean_text(reason), now
            if fidelity is not None:
                row.epochs_trained, row.epochs_planned = fidelity.epochs, fidelity.budget
            before = hypervolume(session, study.id) if candidates else None
            self._settle(session, study, row, candidates, now)
            self._emit_trial(session, study, row)
            if candidates and (after := hypervolume(session, study.id)) != before:
                self._emit(session, study, "front", {"number": number, "hypervolume": after})
            self._progressed(session)

    def _settle(
        self, session: Session, study: StudyTable, row: TrialTable, candidates: Sequence[Candidate], now: datetime
    ) -> None:
        """Write the networks of a trial and what the study knows by them: its hypervolumes and its best scores."""
        moved = [
            write_candidate(session, study, row, position, candidate, now)
            for position, candidate in enumerate(candidates)
        ]
        if any(moved):
            regrow(session, study)
        elif candidates:
            grow(session, study, row.number, now)
        if candidates:
            note_best(session, study)

    def requeue_trial(self, study_id: str, number: int) -> None:
        """Put a running trial back to ``queued`` with its epochs: it resumes from its last checkpoint.

        Raises:
            ConflictError: If it has ended.
        """
        with self._write() as session:
            study, row = self._locked_trial(session, study_id, number)
            if TrialState(row.state).ended:
                raise ConflictError(f"trial {number} of study {study.name} is {row.state}, so it cannot be put back")
            self._put_back(session, study, row)

    def revive_trials(self, study_id: str, numbers: Iterable[int]) -> None:
        """Put failed trials back to ``queued``, because a fault that was not theirs ended them.

        Raises:
            ConflictError: If one of them has not failed.
        """
        with self._write() as session:
            for number in numbers:
                study, row = self._locked_trial(session, study_id, number)
                if row.state != TrialState.FAILED.value:
                    raise ConflictError(f"trial {number} of study {study.name} is {row.state}, so it cannot run again")
                self._revive(session, study, row)

    def _revive(self, session: Session, study: StudyTable, row: TrialTable) -> None:
        move_trial(study, row, TrialState.QUEUED)
        row.reason, row.started_at, row.ended_at = None, None, None
        self._emit_trial(session, study, row)

    def requeue_unfinished(self, study_id: str) -> list[TrialSpec]:
        """Put running trials back to ``queued`` with their epochs: they resume from their last checkpoints.

        Returns:
            Trials that now wait, by number: those put back and those that never started.
        """
        with self._write() as session:
            study = self._locked_study(session, study_id)
            self._requeue(session, study)
            query = select(TrialTable).where(
                TrialTable.study_id == study_id, TrialTable.state == TrialState.QUEUED.value
            )
            return [spec_from(row) for row in session.scalars(query.order_by(TrialTable.number))]

    def _requeue(self, session: Session, study: StudyTable) -> None:
        query = select(TrialTable).where(TrialTable.study_id == study.id, TrialTable.state == TrialState.RUNNING.value)
        for row in session.scalars(query.order_by(TrialTable.number)).all():
            self._put_back(session, study, row)

    def _cancel_unfinished(self, session: Session, study: StudyTable, reason: str) -> None:
        unfinished = TrialTable.state.in_([TrialState.QUEUED.value, TrialState.RUNNING.value])
        query = select(TrialTable).where(TrialTable.study_id == study.id, unfinished)
        now = self._database.now(session)
        for row in session.scalars(query.order_by(TrialTable.number)).all():
            move_trial(study, row, TrialState.CANCELLED)
            row.reason, row.ended_at = clean_text(reason), now
            self._emit_trial(session, study, row)

    def _put_back(self, session: Session, study: StudyTable, row: TrialTable) -> None:
        if row.state == TrialState.RUNNING.value:
            move_trial(study, row, TrialState.QUEUED)
            row.started_at = None
            self._emit_trial(session, study, row)

    def _emit_trial(self, session: Session, study: StudyTable, row: TrialTable) -> None:
        payload = {"number": row.number, "kind": row.kind, "state": row.state, "reason": row.reason}
        self._emit(session, study, "trial", payload)
