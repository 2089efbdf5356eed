"""Jobs: queued, leased, renewed, ended. Each write of a leased job carries the lease's epoch."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from nas.definition.study import StudyDefinition
from nas.errors import ConflictError, InputError, LeaseInDoubt, LimitError, NotFoundError
from nas.jobs import DesiredState, Job, JobKind, JobState
from nas.lifecycle import Action, follows_job, standing, take
from nas.store.base import lease_expired
from nas.store.mapping import clean_text, job_from, job_values, plain, study_from
from nas.store.studies import Studies
from nas.store.tables import JobTable, StudyTable
from nas.store.trial_writes import TrialWrites
from nas.study import PAUSED_ON_REQUEST, STOPPED_ON_REQUEST, Study, StudyState

MAX_ATTEMPTS = 5
_LONGEST_PAUSE = 60.0
_ACTIVE = (JobState.QUEUED.value, JobState.RUNNING.value)


class Jobs(Studies, TrialWrites):
    """The queue of jobs. A search job and its study change state in one transaction."""

    def submit_study(
        self,
        definition: StudyDefinition,
        reference_point: Mapping[str, float],
        *,
        name: str | None = None,
    ) -> tuple[Study, Job]:
        """Create a study and the job that searches it, in one transaction."""

        def insert(session: Session) -> tuple[Study, Job]:
            study = self._insert_study(session, definition, reference_point, name)
            job = self._insert_job(session, JobKind.SEARCH, {}, study)
            return study_from(study), job

        return self._retry_name(insert)

    def enqueue_job(self, kind: JobKind, payload: Mapping[str, Any], *, study_id: str | None = None) -> Job:
        """Queue a job. A search job continues its study, which is queued again.

        Raises:
            NotFoundError: If there is no such study.
            ConflictError: If a search of the study is already queued or running, or the study's state forbids one.
        """
        with self._write() as session:
            study = None if study_id is None else self._locked_study(session, study_id)
            if study is not None and JobKind(kind) is JobKind.SEARCH:
                return self._queue_search(session, study, Action.QUEUE, payload)
            return self._insert_job(session, JobKind(kind), payload, study)

    def resume(self, study_id: str) -> Job:
        """Queue the search of an interrupted study again.

        Raises:
            NotFoundError: If there is no such study.
            ConflictError: If it has ended, or its search is queued or running; the message says which.
        """
        with self._write() as session:
            return self._queue_search(session, self._study_behind_its_job(session, study_id), Action.RESUME, {})

    def _study_behind_its_job(self, session: Session, study_id: str) -> StudyTable:
        """Return the locked row of a study whose search job, if there is one, was locked before it."""
        session.scalars(active_search(study_id).with_for_update()).first()
        return self._locked_study(session, study_id)

    def _queue_search(self, session: Session, study: StudyTable, action: Action, payload: Mapping[str, Any]) -> Job:
        held = session.scalars(active_search(study.id).where(JobTable.state == JobState.RUNNING.value)).first()
        state = self._standing(session, study, held)
        step = take(study.name, state, action)
        waiting = session.scalars(active_search(study.id)).first() if state is StudyState.PAUSED else None
        if waiting is None:
            job = self._insert_job(session, JobKind.SEARCH, payload, study)
        else:  # a paused search whose job waits to be tried again is tried now
            waiting.expires_at = None
            job = job_from(waiting)
        self._change_study(session, study, step.state, None)
        return job

    def _standing(self, session: Session, study: StudyTable, held: JobTable | None) -> StudyState:
        """Return the state of a study from the job of its search that a process holds, or held when it died."""
        if held is not None and job_from(held, self._database.now(session)).expired:
            return StudyState.INTERRUPTED
        return standing(StudyState(study.state), held=held is not None)

    def hold_search(self, study_id: str, worker: str, *, seconds: float, doubt: float = 0.0) -> Job:
        """Lease the search of one study for the caller itself, before any worker can take it.

        It takes the study's waiting or expired job; without one, it creates a job.

        Args:
            study_id: Id of the study.
            worker: Name of the new holder, for people.
            seconds: Time in seconds until the lease expires, unless a heartbeat renews it.
            doubt: Time in seconds for which an expired lease must have been seen expired by this store.

        Raises:
            NotFoundError: If there is no such study.
            ConflictError: If another worker holds the search, or the study is finished.
            LeaseInDoubt: If a lease has expired whose holder may still renew it.
        """
        with self._write() as session:
            # The job is locked before the study, in the order of all transactions.
            found = session.scalars(active_search(study_id).with_for_update()).first()
            study = self._locked_study(session, study_id)
            step = take(study.name, StudyState(study.state), Action.RUN)
            now = self._database.now(session)
            if found is None:
                found = session.get_one(JobTable, self._insert_job(session, JobKind.SEARCH, {}, study).id)
            elif found.state == JobState.RUNNING.value and found.expires_at is not None and found.expires_at >= now:
                left = math.ceil((found.expires_at - now).total_seconds())
                raise ConflictError(
                    f"study {study.name} is being searched already, by {found.worker} (job {found.id}); if that "
                    f"process has died, try again in {left} s, when its lease is over"
                )
            elif self._in_doubt(found, now, doubt):
                raise LeaseInDoubt(f"study {study.name} may still be searched by {found.worker}; try again soon")
            found.desired = step.desired.value
            return self._lease(session, found, worker, now, seconds)

    def _insert_job(
        self, session: Session, kind: JobKind, payload: Mapping[str, Any], study: StudyTable | None
    ) -> Job:
        if kind is JobKind.SEARCH:
            if study is None:
                raise InputError("a search job needs a study")
            self._refuse_second_search(session, study)
            self._refuse_too_many(session)
        now = self._database.now(session)
        job = Job(str(uuid.uuid4()), kind, dict(payload), study_id=None if study is None else study.id)
        row = JobTable(**job_values(job, now), sequence=self._next(session, JobTable.sequence))
        session.add(row)
        session.flush()
        self._emit_job(session, row, study)
        return job_from(row)

    def _refuse_second_search(self, session: Session, study: StudyTable) -> None:
        other = session.scalars(active_search(study.id)).first()
        if other is not None:
            raise ConflictError(f"study {study.name} is being searched already, by job {other.id} ({other.state})")

    def _refuse_too_many(self, session: Session) -> None:
        """Refuse a further search if the studies of the token that asks for it have enough of them."""
        if self._actor is None or self._actor.searches is None:
            return
        query = (
            select(StudyTable.name)
            .join(JobTable, JobTable.study_id == StudyTable.id)
            .where(StudyTable.created_by == self._actor.name)
            .where(JobTable.kind == JobKind.SEARCH.value, JobTable.state.in_(_ACTIVE))
        )
        names = sorted(session.scalars(query.limit(self._actor.searches)))
        if len(names) >= self._actor.searches:
            raise LimitError(
                f"{self._actor.name}: {len(names)} of its studies wait or run, which is the limit; "
                f"wait until one has ended, pause one or stop one ({', '.join(names[:5])})"
            )

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
            return job_from(row)

    def request_job(self, job_id: str, desired: DesiredState) -> Job:
        """Set the desired state of a job. A pause or stop ends a job at once if no worker has it or its worker died.

        Raises:
            NotFoundError: If there is no such job.
            ConflictError: If it has ended.
        """
        desired = DesiredState(desired)
        with self._write() as session:
            row = self._locked_job(session, job_id)
            if JobState(row.state).ended:
                raise ConflictError(f"job {job_id} is {row.state}, so it cannot become {desired.value}")
            return self._desire(session, row, desired)

    def _desire(self, session: Session, row: JobTable, desired: DesiredState) -> Job:
        changed = row.desired != desired.value
        row.desired = desired.value
        now = self._database.now(session)
        held = row.state == JobState.RUNNING.value and not job_from(row, now).expired
        if desired is not DesiredState.RUNNING and not held:
            self._end(session, row, JobState.CANCELLED, now)
        elif changed:
            self._emit_job(session, row)
        return job_from(row)

    def job(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            NotFoundError: If no job has this id.
        """
        with self._read() as session:
            row = session.get(JobTable, job_id)
            if row is None:
                raise NotFoundError(f"there is no job {job_id!r}")
            return job_from(row, self._database.now(session))

    def jobs(self, study_id: str | None = None) -> list[Job]:
        """Return all jobs, or those of a study, newest first."""
        query = select(JobTable).order_by(JobTable.sequence.desc(), JobTable.created_at.desc(), JobTable.id)
        if study_id is not None:
            query = query.where(JobTable.study_id == study_id)
        with self._read() as session:
            now = self._database.now(session)
            return [job_from(row, now) for row in session.scalars(query)]

    def _end(
        self, session: Session, row: JobTable, state: JobState, now: datetime, *, error: str | None = None
    ) -> None:
        row.state, row.error, row.ended_at, row.expires_at = state.value, clean_text(error), now, None
        self._emit_job(session, row)
        if state is JobState.FAILED:
            self._move_study(session, row, StudyState.FAILED, error or "its job failed")
        elif state is JobState.CANCELLED:
            stopped = row.desired == DesiredState.STOPPED.value
            after = (StudyState.STOPPED, STOPPED_ON_REQUEST) if stopped else (StudyState.PAUSED, PAUSED_ON_REQUEST)
            self._move_study(session, row, *after)

    def _move_study(self, session: Session, row: JobTable, state: StudyState, reason: str | None) -> None:
        """Move the study with its search job, and put its trials back: none may stay running without a process."""
        if row.kind != JobKind.SEARCH.value or row.study_id is None:
            return
        study = self._locked_study(session, row.study_id)
        self._requeue(session, study)
        if follows_job(StudyState(study.state)):
            self._move(session, study, state, reason)

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


def active_search(study_id: str) -> Any:
    """Return the query of the search job of a study that waits or runs."""
    return select(JobTable).where(
        JobTable.study_id == study_id, JobTable.kind == JobKind.SEARCH.value, JobTable.state.in_(_ACTIVE)
    )


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
