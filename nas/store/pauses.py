"""Pauses searches that a fault keeps from continuing, and puts failed trials back."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from nas.errors import ConflictError
from nas.jobs import Job, JobState
from nas.lifecycle import Action, take
from nas.store.jobs import Jobs, active_search
from nas.store.mapping import clean_text, job_from
from nas.store.tables import JobTable, StudyTable, TrialTable
from nas.study import StudyState
from nas.trial import TrialState


class Pauses(Jobs):
    """Pauses searches, and prepares the repetition of failed trials."""

    def pause_search(self, job_id: str, epoch: int, reason: str, *, again: float | None = None) -> Job:
        """Pause the study of a leased search, and put its trials back: a fault keeps all of them from running.

        Args:
            job_id: Id of the search job.
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
                row.attempt -= 1  # the search did not die
                row.state, row.worker, row.expires_at = JobState.QUEUED.value, None, now + timedelta(seconds=again)
            row.error = clean_text(reason)
            self._emit_job(session, row)
            if row.study_id is not None:
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

    def _retry_failed(self, session: Session, study: StudyTable) -> int:
        running = active_search(study.id).where(JobTable.state == JobState.RUNNING.value)
        state = self._standing(session, study, session.scalars(running).first())
        step = take(study.name, state, Action.RETRY)
        query = select(TrialTable).where(TrialTable.study_id == study.id, TrialTable.state == TrialState.FAILED.value)
        failed = session.scalars(query.order_by(TrialTable.number)).all()
        if not failed:
            raise ConflictError(f"study {study.name} has no failed trials to run again")
        for row in failed:
            self._revive(session, study, row)
        self._change_study(session, study, step.state, None)
        return len(failed)
