"""Pauses, stops and extends searches, and puts failed trials back."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from nas.errors import ConflictError, InputError
from nas.jobs import Job, JobKind, JobState
from nas.lifecycle import NO_PAUSE, Action, Step, refused, take
from nas.store.jobs import Jobs, active_search
from nas.store.mapping import clean_text, definition_from, job_from
from nas.store.tables import JobTable, StudyTable, TrialTable
from nas.study import STOPPED_ON_REQUEST, StudyState
from nas.trainings import TrainingState
from nas.trial import TrialState


class Pauses(Jobs):
    """Pauses, stops and extends searches, and prepares the repetition of failed trials."""

    def pause(self, study_id: str) -> Job | None:
        """Request the search of a study to pause; a search without a process pauses at once.

        Returns:
            Job of the search.

        Raises:
            NotFoundError: If there is no such study.
            ConflictError: If there is no search to pause.
        """
        return self._request(study_id, Action.PAUSE)

    def stop(self, study_id: str) -> Job | None:
        """Request the search of a study to end for good; one without a process ends at once.

        Returns:
            Job of the search; None for a paused study, which has none.

        Raises:
            NotFoundError: If there is no such study.
            ConflictError: If there is no search to stop.
        """
        return self._request(study_id, Action.STOP)

    def _request(self, study_id: str, action: Action) -> Job | None:
        with self._write() as session:
            found = session.scalars(active_search(study_id).with_for_update()).first()
            study = self._locked_study(session, study_id)
            held = found if found is not None and found.state == JobState.RUNNING.value else None
            state = self._standing(session, study, held)
            step = take(study.name, state, action)
            if found is not None:
                return self._desire(session, found, step.desired)
            if action is Action.PAUSE:
                raise refused(study.name, state, NO_PAUSE)
            self._move(session, study, step.state, STOPPED_ON_REQUEST)
            return None

    def extend(self, study_id: str, trials: int, *, queue: bool = True) -> Job | None:
        """Add search trials to the plan of a study, and queue its search.

        Args:
            study_id: Id of the study.
            trials: Number of search trials to add.
            queue: Whether a worker is to search; otherwise the caller does.

        Returns:
            Job of the search; None without ``queue``.

        Raises:
            NotFoundError: If there is no such study.
            InputError: If ``trials`` is not positive, or makes the plan too long.
            ConflictError: If the search is queued or running, or the study was ended for good.
        """
        with self._write() as session:
            study = self._study_behind_its_job(session, study_id)
            running = active_search(study.id).where(JobTable.state == JobState.RUNNING.value)
            take(study.name, self._standing(session, study, session.scalars(running).first()), Action.EXTEND)
            definition = definition_from(study)
            left = definition.most_trials - definition.sweep.trials - study.extended
            if left < 1:
                raise InputError(f"study {study.name}: no trial can be added: it has all {definition.most_trials:,}")
            if not 1 <= trials <= left:
                raise InputError(
                    f"study {study.name}: the number of trials to add must be from 1 to {left:,}, but got {trials}"
                )
            study.extended += trials
            self._emit(session, study, "study", {"state": study.state, "extended": study.extended})
            if queue:
                return self._queue_search(session, study, Action.EXTEND, {})
            self._change_study(session, study, StudyState.PAUSED, None)
            return None

    def pause_job(self, job_id: str, epoch: int, reason: str, *, again: float | None = None) -> Job:
        """Put a leased job off, because a fault keeps it from running; a search pauses its study, too.

        Args:
            job_id: Id of the job.
            epoch: Number of the lease.
            reason: Fault in words.
            again: Time in seconds until a worker tries again by itself; None ends the job, and the study waits to be
                resumed.

        Raises:
            StaleLease: If another worker has taken the lease, or the job has ended.
        """
        with self._write() as session:
            row = self._leased_job(session, job_id, epoch)
            now = self._database.now(session)
            if again is None:
                row.state, row.ended_at, row.expires_at = JobState.FAILED.value, now, None
            else:
                row.attempt -= 1  # its process did not die
                row.state, row.worker, row.expires_at = JobState.QUEUED.value, None, now + timedelta(seconds=again)
            row.error = clean_text(reason)
            self._emit_job(session, row)
            state = TrainingState.FAILED if again is None else TrainingState.QUEUED
            self._move_training(session, row, state, reason)
            if row.study_id is not None and row.kind == JobKind.SEARCH.value:
                study = self._locked_study(session, row.study_id)
                self._requeue(session, study)
                self._change_study(session, study, StudyState.PAUSED, reason)
            return job_from(row)

    def retry_failed(self, study_id: str) -> int:
        """Put the failed trials of a study back, so that its next search runs them again.

        Returns:
            Number of these trials.

        Raises:
            NotFoundError: If there is no such study.
            ConflictError: If no trial has failed, or a process searches the study.
        """
        with self._write() as session:
            return self._retry_failed(session, self._locked_study(session, study_id))

    def resume_with_failed(self, study_id: str) -> Job:
        """Put the failed trials of a study back and queue its search, in one transaction.

        Raises:
            NotFoundError: If there is no such study.
            ConflictError: If no trial has failed, or the search is queued or running.
        """
        with self._write() as session:
            study = self._study_behind_its_job(session, study_id)
            self._retry_failed(session, study)
            return self._queue_search(session, study, Action.RESUME, {})

    def resume_with_trial(self, study_id: str, number: int) -> Job:
        """Put one failed trial back and queue the search of its study, in one transaction.

        Raises:
            NotFoundError: If there is no such study or trial.
            ConflictError: If the trial has not failed, or the search is queued or running.
        """
        with self._write() as session:
            study = self._study_behind_its_job(session, study_id)
            _, row = self._locked_trial(session, study_id, number)
            if row.state != TrialState.FAILED.value:
                raise ConflictError(f"trial {number} of study {study.name} is {row.state}; only a failed one can retry")
            step = self._retry_step(session, study)
            self._revive(session, study, row)
            self._change_study(session, study, step.state, None)
            return self._queue_search(session, study, Action.RESUME, {})

    def _retry_step(self, session: Session, study: StudyTable) -> Step:
        running = active_search(study.id).where(JobTable.state == JobState.RUNNING.value)
        state = self._standing(session, study, session.scalars(running).first())
        return take(study.name, state, Action.RETRY)

    def _retry_failed(self, session: Session, study: StudyTable) -> int:
        step = self._retry_step(session, study)
        query = select(TrialTable).where(TrialTable.study_id == study.id, TrialTable.state == TrialState.FAILED.value)
        failed = session.scalars(query.order_by(TrialTable.number)).all()
        if not failed:
            raise ConflictError(f"study {study.name} has no failed trials to run again")
        for row in failed:
            self._revive(session, study, row)
        self._change_study(session, study, step.state, None)
        return len(failed)
