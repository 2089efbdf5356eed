"""Jobs: queued, held by a search of one's own, requested to change, and read."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from nas.definition.study import StudyDefinition
from nas.errors import ConflictError, InputError, LeaseInDoubt, LimitError, NotFoundError
from nas.jobs import DesiredState, Job, JobKind, JobState
from nas.lifecycle import Action, standing, take
from nas.store.leased_jobs import LeasedJobs
from nas.store.mapping import job_from, job_values, study_from
from nas.store.marks import decode_place, encode_mark
from nas.store.tables import JobTable, RequestKeyTable, StudyTable
from nas.study import Study, StudyState

_ACTIVE = (JobState.QUEUED.value, JobState.RUNNING.value)


class Jobs(LeasedJobs):
    """The queue of jobs. A search job and its study change state in one transaction."""

    def submit_study(
        self,
        definition: StudyDefinition,
        reference_point: Mapping[str, float],
        *,
        name: str | None = None,
        key: str | None = None,
    ) -> tuple[Study, Job]:
        """Create a study and the job that searches it, in one transaction.

        Args:
            definition: Definition of the study.
            reference_point: Reference point of the hypervolume, by metric.
            name: Name of the study, by default that of the definition.
            key: Key of the request: a second one with an equal key and definition returns the first one's study.

        Raises:
            ConflictError: If the key belongs to a request with another definition.
        """
        digest = hashlib.sha256(json.dumps([name, definition.to_dict()], sort_keys=True).encode()).hexdigest()

        # Keys of two tokens may be equal, and neither must learn of the other's studies.
        sender = "" if self._actor is None else self._actor.name
        own = None if key is None else hashlib.sha256(f"{sender}\0{key}".encode()).hexdigest()

        def insert(session: Session) -> tuple[Study, Job]:
            known = None if own is None else session.get(RequestKeyTable, own)
            if known is not None:
                return self._made_before(session, known, digest)
            study = self._insert_study(session, definition, reference_point, name)
            job = self._insert_job(session, JobKind.SEARCH, {}, study)
            if own is not None:
                now = self._database.now(session)
                session.add(
                    RequestKeyTable(key=own, study_id=study.id, job_id=job.id, digest=digest, created_at=now)
                )
            return study_from(study), job

        return self._retry_name(insert)

    def _made_before(self, session: Session, known: RequestKeyTable, digest: str) -> tuple[Study, Job]:
        study, interrupted = self._study_as_it_is(session, known.study_id)
        if known.digest != digest:
            raise ConflictError(
                f"Idempotency-Key: this key created study {study.name} from another definition; use a new key"
            )
        job = session.get_one(JobTable, known.job_id)
        return study_from(study, interrupted=interrupted), job_from(job, self._database.now(session))

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

    def open_jobs(self) -> list[Job]:
        """Return the jobs that wait or run, in the order of their turns."""
        query = select(JobTable).where(JobTable.state.in_(_ACTIVE))
        with self._read() as session:
            now = self._database.now(session)
            return [job_from(row, now) for row in session.scalars(query.order_by(JobTable.sequence, JobTable.id))]

    def job_page(
        self, kind: JobKind | None, state: JobState | None, limit: int, after: str | None
    ) -> tuple[list[Job], str | None]:
        """Return a page of all jobs, newest first, and the mark of its end; None on the last page.

        Raises:
            InputError: If the mark ``after`` is damaged.
        """
        query = select(JobTable).order_by(JobTable.sequence.desc(), JobTable.id.desc()).limit(limit + 1)
        if kind is not None:
            query = query.where(JobTable.kind == kind.value)
        if state is not None:
            query = query.where(JobTable.state == state.value)
        if after is not None:
            query = query.where(tuple_(JobTable.sequence, JobTable.id) < tuple_(*decode_place(after)))
        with self._read() as session:
            now = self._database.now(session)
            rows = session.scalars(query).all()
            kept = rows[:limit]
            more = encode_mark([kept[-1].sequence, kept[-1].id]) if len(rows) > limit else None
            return [job_from(row, now) for row in kept], more


def active_search(study_id: str) -> Any:
    """Return the query of the search job of a study that waits or runs."""
    return select(JobTable).where(
        JobTable.study_id == study_id, JobTable.kind == JobKind.SEARCH.value, JobTable.state.in_(_ACTIVE)
    )
