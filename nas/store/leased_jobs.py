"""Jobs under a lease: taken, renewed, handed back, ended. Each write carries the lease's epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from nas.errors import InputError
from nas.jobs import DesiredState, Job, JobKind, JobState
from nas.lifecycle import follows_job
from nas.store.base import lease_expired
from nas.store.mapping import clean_text, job_from, plain
from nas.store.studies import Studies
from nas.store.tables import JobTable, StudyTable, TrainingTable
from nas.store.trial_writes import TrialWrites
from nas.study import PAUSED_ON_REQUEST, STOPPED_ON_REQUEST, StudyState
from nas.trainings import INTERRUPTED_BY_SIGNAL, TrainingState
from nas.trainings import STOPPED_ON_REQUEST as STOPPED

MAX_ATTEMPTS = 5
_LONGEST_PAUSE = 60.0


class LeasedJobs(Studies, TrialWrites):
    """Leases of jobs and their ends. A search job and its study change state in one transaction."""

    def expire_leases(self, gone: Callable[[str], bool]) -> list[Job]:
        """End the leases of holders that are known to be dead, so that nobody waits for their expiry.

        Args:
            gone: Function that returns whether a holder, by its name in the lease, is dead.

        Returns:
            Jobs that can be leased now.
        """
        running = select(JobTable).where(JobTable.state == JobState.RUNNING.value)
        with self._read() as session:
            found = [job_from(row) for row in session.scalars(running)]
        expired = [job for job in found if job.worker is not None and gone(job.worker)]
        for job in expired:
            self._sightings.is_dead(job.id, job.epoch)
        return [job for job in expired if self._expire(job)]

    def _in_doubt(self, row: JobTable, now: datetime, doubt: float) -> bool:
        """Return whether a job has an expired lease whose holder may still renew it."""
        running = row.state == JobState.RUNNING.value
        return running and not self._sightings.is_free(row.id, row.epoch, now, doubt)

    def _expire(self, job: Job) -> bool:
        with self._write() as session:
            row, now = self._locked_job(session, job.id), self._database.now(session)
            held = row.state == JobState.RUNNING.value and row.epoch == job.epoch
            if not held or row.expires_at is None or row.expires_at <= now:
                return False
            row.expires_at = now
            return True

    def lease_job(
        self, worker: str, *, kinds: Sequence[JobKind] = tuple(JobKind), seconds: float, doubt: float = 0.0
    ) -> Job | None:
        """Take the oldest job that waits or has an expired lease.

        A job whose holder died after a request to pause or stop ends as cancelled; after too many dead holders without
        progress between them, a job ends as failed.

        Args:
            worker: Name of the new holder, for people.
            kinds: Kinds of jobs that the holder can run.
            seconds: Time in seconds until the lease expires, by the database's clock, unless a heartbeat renews it.
            doubt: Time in seconds for which an expired lease must have been seen expired by this store.
        """
        doubtful: set[str] = set()
        while True:
            # Each round commits at most one ended job, so that a long queue of dead jobs blocks nobody.
            with self._write() as session:
                now = self._database.now(session)
                row = session.scalars(_leasable(kinds, now).where(JobTable.id.not_in(doubtful))).first()
                if row is None:
                    return None
                if self._in_doubt(row, now, doubt):
                    doubtful.add(row.id)
                elif not self._bury(session, row, now):
                    return self._lease(session, row, worker, now, seconds)

    def _lease(self, session: Session, row: JobTable, worker: str, now: datetime, seconds: float) -> Job:
        row.state, row.worker = JobState.RUNNING.value, clean_text(worker)
        row.attempt, row.epoch, row.error = row.attempt + 1, row.epoch + 1, None
        row.started_at, row.expires_at = now, now + timedelta(seconds=seconds)
        self._emit_job(session, row)
        self._move_training(session, row, TrainingState.RUNNING, None)
        return job_from(row)

    def _bury(self, session: Session, row: JobTable, now: datetime) -> bool:
        """End a job that should not be leased again; return whether it was ended."""
        if row.desired != DesiredState.RUNNING.value:
            # No process is left that could pause or stop, so the request is fulfilled.
            self._end(session, row, JobState.CANCELLED, now)
            return True
        if row.attempt >= MAX_ATTEMPTS:
            error = (
                f"its worker died {row.attempt} times in it without progress between (last: {row.worker}); "
                "see the worker's log"
            )
            self._end(session, row, JobState.FAILED, now, error=error)
            return True
        return False

    def heartbeat(self, job_id: str, epoch: int, seconds: float) -> Job:
        """Renew a lease for ``seconds`` from now; the returned job carries the desired state.

        Raises:
            StaleLease: If another worker has taken the lease, or the job has ended.
        """
        with self._write() as session:
            row = self._leased_job(session, job_id, epoch)
            row.expires_at = self._database.now(session) + timedelta(seconds=seconds)
            return job_from(row)

    def finish_job(
        self,
        job_id: str,
        epoch: int,
        state: JobState,
        *,
        result: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> Job:
        """End a leased job. A failed or cancelled search moves its study to the same end, unless that has ended.

        Raises:
            StaleLease: If another worker has taken the lease, or the job has ended.
        """
        if not state.ended:
            raise InputError(f"a job ends as finished, failed or cancelled, not as {state.value!r}")
        with self._write() as session:
            row = self._leased_job(session, job_id, epoch)
            row.result = None if result is None else plain(result)
            self._end(session, row, state, self._database.now(session), error=error)
            return job_from(row)

    def release_job(self, job_id: str, epoch: int) -> Job:
        """Hand a leased job back, for any worker to continue: its holder shuts down cleanly.

        Raises:
            StaleLease: If another worker has taken the lease, or the job has ended.
        """
        with self._write() as session:
            row = self._leased_job(session, job_id, epoch)
            now = self._database.now(session)
            # A clean hand-back must not count towards the limit of attempts.
            row.attempt -= 1
            if not self._bury(session, row, now):
                row.state, row.worker, row.expires_at = JobState.QUEUED.value, None, None
                self._emit_job(session, row)
                self._move_study(session, row, StudyState.QUEUED, None)
                self._move_training(session, row, TrainingState.QUEUED, None)
            return job_from(row)

    def retry_job(self, job_id: str, epoch: int, error: str, *, pause: float) -> Job:
        """Hand a leased job whose process died back, to be retried after a pause.

        The pause doubles with each death. A job with a request to pause or stop ends as cancelled; after too many
        deaths without progress between them, a job ends as failed.

        Args:
            job_id: Id of the job.
            epoch: Number of the lease.
            error: Description of the death.
            pause: Time in seconds until the job may be leased again after a first death.

        Raises:
            StaleLease: If another worker has taken the lease, or the job has ended.
        """
        with self._write() as session:
            row = self._leased_job(session, job_id, epoch)
            now = self._database.now(session)
            if row.desired != DesiredState.RUNNING.value:
                self._end(session, row, JobState.CANCELLED, now)
            elif row.attempt >= MAX_ATTEMPTS:
                error = f"{row.attempt} times in a row, without progress between: {error}"
                self._end(session, row, JobState.FAILED, now, error=error)
            else:
                row.state, row.worker, row.error = JobState.QUEUED.value, None, clean_text(error)
                row.expires_at = now + timedelta(seconds=min(_LONGEST_PAUSE, pause * 2 ** (row.attempt - 1)))
                self._emit_job(session, row)
                self._move_study(session, row, StudyState.QUEUED, None)
                self._move_training(session, row, TrainingState.QUEUED, error)
            return job_from(row)

    def _end(
        self, session: Session, row: JobTable, state: JobState, now: datetime, *, error: str | None = None
    ) -> None:
        if state is JobState.CANCELLED and self._has_finished(session, row):
            state = JobState.FINISHED  # the request came when the search or the training had just ended
        row.state, row.error, row.ended_at, row.expires_at = state.value, clean_text(error), now, None
        self._emit_job(session, row)
        if state is JobState.FAILED:
            self._move_study(session, row, StudyState.FAILED, error or "its job failed")
            self._move_training(session, row, TrainingState.FAILED, error or "its job failed")
        elif state is JobState.CANCELLED:
            stopped = row.desired == DesiredState.STOPPED.value
            after = (StudyState.STOPPED, STOPPED_ON_REQUEST) if stopped else (StudyState.PAUSED, PAUSED_ON_REQUEST)
            self._move_study(session, row, *after)
            why = STOPPED if row.desired != DesiredState.RUNNING.value else INTERRUPTED_BY_SIGNAL
            self._move_training(session, row, TrainingState.STOPPED, why)

    def _has_finished(self, session: Session, row: JobTable) -> bool:
        """Return whether a job is the search of a study, or a training, that has finished."""
        if row.kind == JobKind.TRAIN.value:
            state = session.scalar(select(TrainingTable.state).where(TrainingTable.job_id == row.id))
            return state == TrainingState.FINISHED.value
        if row.kind != JobKind.SEARCH.value or row.study_id is None:
            return False
        return self._locked_study(session, row.study_id).state == StudyState.FINISHED.value

    def _move_study(self, session: Session, row: JobTable, state: StudyState, reason: str | None) -> None:
        """Move the study with its search job, and put its trials back: none may stay running without a process."""
        if row.kind != JobKind.SEARCH.value or row.study_id is None:
            return
        study = self._locked_study(session, row.study_id)
        self._requeue(session, study)
        if follows_job(StudyState(study.state)):
            self._move(session, study, state, reason)

    def _move_training(self, session: Session, job: JobTable, state: TrainingState, reason: str | None) -> None:
        """Move the training of a job with it, unless it has ended by itself or has a newer job."""
        if job.kind != JobKind.TRAIN.value:
            return
        query = select(TrainingTable).where(TrainingTable.job_id == job.id).with_for_update()
        study = None if job.study_id is None else self._locked_study(session, job.study_id)
        row = session.scalars(query).first()
        if row is None or TrainingState(row.state).ended:
            return
        now = self._database.now(session)
        row.started_at = row.started_at or (now if state is TrainingState.RUNNING else None)
        row.ended_at = now if state.ended else None
        self._change_training(session, row, state, reason, study)

    def _change_training(
        self, session: Session, row: TrainingTable, state: TrainingState, reason: str | None, study: StudyTable | None
    ) -> None:
        row.state, row.reason = state.value, clean_text(reason)
        self._tell(session, row, "training", {"state": row.state, "reason": row.reason}, study)

    def _tell(
        self, session: Session, row: TrainingTable, kind: str, facts: Mapping[str, Any], study: StudyTable | None = None
    ) -> None:
        """Tell of a change of a training: by its version, and by an event of the study that it comes from."""
        row.version += 1
        if row.study_id is None:
            session.flush()
            return
        study = study or self._locked_study(session, row.study_id)
        own = {"id": row.id, "number": row.number, "done": row.done, "epochs": row.epochs}
        self._emit(session, study, kind, {**own, **facts})

    def _move(self, session: Session, study: StudyTable, state: StudyState, reason: str | None) -> None:
        """Move a study; one that ends for good takes its unfinished trials along."""
        if state is StudyState.STOPPED:
            self._cancel_unfinished(session, study, reason or STOPPED_ON_REQUEST)
        self._change_study(session, study, state, reason)

    def _emit_job(self, session: Session, row: JobTable, study: StudyTable | None = None) -> None:
        if row.study_id is None:
            session.flush()
            return
        study = study or self._locked_study(session, row.study_id)
        payload = {"id": row.id, "kind": row.kind, "state": row.state, "desired": row.desired, "error": row.error}
        self._emit(session, study, "job", payload)


def _leasable(kinds: Sequence[JobKind], now: datetime) -> Any:
    due = or_(JobTable.expires_at.is_(None), JobTable.expires_at < now)
    waiting = and_(JobTable.state == JobState.QUEUED.value, due)
    return (
        select(JobTable)
        .where(JobTable.kind.in_([kind.value for kind in kinds]), or_(waiting, lease_expired(now)))
        .order_by(JobTable.sequence, JobTable.created_at, JobTable.id)
        .limit(1)
        # Workers that look at the same time must take different jobs instead of waiting for each other.
        .with_for_update(skip_locked=True)
    )
