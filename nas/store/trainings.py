"""Trainings: created with their job, followed, stopped, resumed, and finished with their score."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nas.definition.requested_training import RequestedTraining
from nas.definition.sections import DataSpec
from nas.errors import ConflictError, LeaseInDoubt, LimitError, StoreError
from nas.jobs import Job, JobKind, JobState
from nas.metrics import Evaluation
from nas.store.jobs import Jobs
from nas.store.mapping import job_from, plain
from nas.store.observations import insert_evaluations
from nas.store.tables import CandidateTable, JobTable, StudyTable, TrainingEpochTable, TrainingTable
from nas.store.training_reads import TrainingReads, find_training
from nas.store.training_rows import result_to_dict, source_values, training_from, training_name
from nas.store.training_sources import FoundSource, find_source
from nas.trainings import Training, TrainingAction, TrainingResult, TrainingState, take
from nas.trial import EpochRecord

_UNDER_WAY = (TrainingState.QUEUED.value, TrainingState.RUNNING.value)


class Trainings(Jobs, TrainingReads):
    """Trainings of one network outside of a search. A training and its job change state in one transaction."""

    def submit_training(
        self, wanted: RequestedTraining, *, key: str | None = None, hold: tuple[str, float] | None = None
    ) -> Training:
        """Create a training and its job, in one transaction.

        Args:
            wanted: Checked request.
            key: Key of the request: a second one with an equal key and request returns the first one's training.
            hold: Name of this process and seconds of its lease if it trains by itself; otherwise a worker does.

        Raises:
            NotFoundError: If there is no such study, trial or architecture.
            DefinitionError: If the request does not fit the network, or a setting has no effect.
            ConflictError: If the key belongs to another request, or the network has no weights to start from.
            LimitError: If the sender has enough trainings that wait or run.
        """
        digest = hashlib.sha256(json.dumps(wanted.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
        sender = "" if self._actor is None else self._actor.name
        own = None if key is None else hashlib.sha256(f"{sender}\0{key}".encode()).hexdigest()
        try:
            return self._submit(wanted, own, digest, hold)
        except StoreError as error:
            # On PostgreSQL another transaction may have committed the same key meanwhile.
            if own is None or not isinstance(error.__cause__, IntegrityError):
                raise
            return self._submit(wanted, own, digest, hold)

    def _submit(
        self, wanted: RequestedTraining, key: str | None, digest: str, hold: tuple[str, float] | None
    ) -> Training:
        with self._write() as session:
            known = None if key is None else session.scalars(select(TrainingTable).filter_by(request_key=key)).first()
            if known is not None:
                if known.request_digest != digest:
                    raise ConflictError(
                        f"Idempotency-Key: this key created training {training_name(known)} by another request; "
                        "use a new key"
                    )
                return self._training_as_it_is(session, known.id)
            self._refuse_too_many_trainings(session)
            found = find_source(session, wanted, self._owns)
            study_id = found.source.study_id
            study = None if study_id is None else self._locked_study(session, study_id)
            row = self._new_training(session, wanted, found)
            row.request_key, row.request_digest = key, digest
            self._queue_training(session, row, study, hold)
            return training_from(row)

    def training_data(self, wanted: RequestedTraining) -> DataSpec:
        """Return the data of a request, by default those of its study, and check that its network exists.

        Raises:
            NotFoundError: If there is no such study, trial or architecture.
            DefinitionError: If the request does not fit the network, or a setting has no effect.
            ConflictError: If the network has no weights to start from.
        """
        with self._read() as session:
            resolved = wanted.resolved(find_source(session, wanted, self._owns).usual)
        return DataSpec.model_validate(resolved["data"])

    def _owns(self, study: StudyTable) -> bool:
        """Return whether the sender may change a study."""
        return self._actor is None or self._actor.admin or study.created_by == self._actor.name

    def _new_training(self, session: Session, wanted: RequestedTraining, found: FoundSource) -> TrainingTable:
        resolved, source = wanted.resolved(found.usual), found.source
        data = resolved["data"]
        row = TrainingTable(
            id=str(uuid.uuid4()),
            **source_values(source),
            model=None if source.architecture is None else source.architecture["model"],
            definition=plain({**resolved, "split_seed": found.split_seed}),
            recipe=wanted.label(found.usual),
            data=data["name"] if data["folder"] is None else f"{data['name']}: {data['folder']}",
            seed=wanted.seed,
            epochs=wanted.chosen().epochs,
            done=0,
            version=0,
            state=TrainingState.QUEUED.value,
            created_by=None if self._actor is None else self._actor.name,
            sequence=self._next(session, TrainingTable.sequence),
            created_at=self._database.now(session),
        )
        session.add(row)
        session.flush()
        return row

    def _refuse_too_many_trainings(self, session: Session) -> None:
        if self._actor is None or self._actor.searches is None:
            return
        query = select(func.count()).where(
            TrainingTable.created_by == self._actor.name, TrainingTable.state.in_(_UNDER_WAY)
        )
        count = session.scalar(query) or 0
        if count >= self._actor.searches:
            raise LimitError(
                f"{self._actor.name}: {count} of its trainings wait or run, which is the limit; "
                "wait until one has ended, or stop one"
            )

    def _queue_training(
        self, session: Session, row: TrainingTable, study: StudyTable | None, hold: tuple[str, float] | None
    ) -> None:
        """Give a training a new job, which waits for a worker or belongs to this process."""
        payload = {"training": row.id, **({} if row.number is None else {"number": row.number})}
        job = self._insert_job(session, JobKind.TRAIN, payload, study)
        row.job_id = job.id
        self._change_training(session, row, TrainingState.QUEUED, None, study)
        if hold is not None:
            held = session.get_one(JobTable, job.id)
            self._lease(session, held, hold[0], self._database.now(session), hold[1])

    def hold_training(self, ref: str, worker: str, *, seconds: float, doubt: float = 0.0) -> tuple[Training, Job]:
        """Lease the job of a training for the caller itself; a stopped or failed training gets a new job.

        Args:
            ref: Id of the training, or its beginning.
            worker: Name of the new holder, for people.
            seconds: Time in seconds until the lease expires, unless a heartbeat renews it.
            doubt: Time in seconds for which an expired lease must have been seen expired by this store.

        Raises:
            NotFoundError: If there is no such training.
            ConflictError: If it has finished, or another process holds it.
            LeaseInDoubt: If a lease has expired whose holder may still renew it.
        """
        with self._write() as session:
            job, study, row = self._training_behind_its_job(session, ref)
            take(training_name(row), self._standing_of(session, row, job), TrainingAction.RUN)
            now = self._database.now(session)
            if job is None or JobState(job.state).ended:
                row.ended_at = None
                self._queue_training(session, row, study, (worker, seconds))
            elif self._in_doubt(job, now, doubt):
                raise LeaseInDoubt(f"training {training_name(row)} may still be run by {job.worker}; try again soon")
            else:
                self._lease(session, job, worker, now, seconds)
            assert row.job_id is not None
            return training_from(row), job_from(session.get_one(JobTable, row.job_id))

    def stop_training(self, ref: str) -> Training:
        """Request a training to write a checkpoint and end; one without a process ends at once.

        Raises:
            NotFoundError: If there is no such training.
            ConflictError: If there is nothing to stop.
        """
        with self._write() as session:
            job, study, row = self._training_behind_its_job(session, ref)
            step = take(training_name(row), self._standing_of(session, row, job), TrainingAction.STOP)
            assert job is not None
            self._desire(session, job, step.desired)
            if row.state != step.state.value:  # its process obeys within seconds
                self._tell(session, row, "training", {"state": row.state, "reason": "a stop was requested"}, study)
            return self._training_as_it_is(session, row.id)

    def resume_training(self, ref: str) -> Training:
        """Queue a stopped or failed training again.

        Raises:
            NotFoundError: If there is no such training.
            ConflictError: If it has finished, waits or runs.
            LimitError: If the sender has enough trainings that wait or run.
        """
        with self._write() as session:
            job, study, row = self._training_behind_its_job(session, ref)
            take(training_name(row), self._standing_of(session, row, job), TrainingAction.RESUME)
            self._refuse_too_many_trainings(session)
            row.ended_at = None
            self._queue_training(session, row, study, None)
            return training_from(row)

    def delete_training(self, ref: str) -> Training:
        """Forget a training that has ended; the caller deletes its files. Its score stays with the network.

        Raises:
            NotFoundError: If there is no such training.
            ConflictError: If it waits or runs.
        """
        with self._write() as session:
            job, _, row = self._training_behind_its_job(session, ref)
            take(training_name(row), self._standing_of(session, row, job), TrainingAction.DELETE)
            found = training_from(row)
            session.execute(delete(TrainingTable).where(TrainingTable.id == row.id))
            return found

    def _training_behind_its_job(
        self, session: Session, ref: str
    ) -> tuple[JobTable | None, StudyTable | None, TrainingTable]:
        """Return the locked rows of a training's newest job, its study and the training, locked in this order.

        Raises:
            ConflictError: If the training got a new job meanwhile: an action on its former job would start it twice.
        """
        job_id = find_training(session, ref).job_id
        job = None if job_id is None else session.get(JobTable, job_id, with_for_update=True, populate_existing=True)
        study, row = self._locked_training(session, ref)
        if row.job_id != job_id:
            raise ConflictError(f"training {training_name(row)} was resumed at the same time; look at it and try again")
        return job, study, row

    def _locked_training(self, session: Session, ref: str) -> tuple[StudyTable | None, TrainingTable]:
        """Return the locked rows of a training's study, if there is one, and of the training."""
        study_id = find_training(session, ref).study_id
        study = None if study_id is None else self._locked_study(session, study_id)
        return study, find_training(session, ref, lock=True)

    def _standing_of(self, session: Session, row: TrainingTable, job: JobTable | None) -> TrainingState:
        state = TrainingState(row.state)
        died = job is not None and job_from(job, self._database.now(session)).expired
        return TrainingState.INTERRUPTED if died and state is TrainingState.RUNNING else state

    def describe_training(self, training_id: str, architecture_id: str, architecture: Mapping[str, Any]) -> None:
        """Record the architecture of a package that a worker has read."""
        with self._write() as session:
            _, row = self._locked_training(session, training_id)
            row.architecture_id, row.architecture = architecture_id, plain(architecture)
            row.model = str(architecture["model"])
            row.version += 1

    def record_training_epoch(self, training_id: str, record: EpochRecord) -> None:
        """Record the report of an epoch; a repeated one replaces the earlier one.

        Raises:
            NotFoundError: If there is no such training.
            StaleLease: If the lease of this store is lost.
        """
        with self._write() as session:
            study, row = self._locked_training(session, training_id)
            self._write_epochs(session, row, [record])
            self._progressed(session)
            self._tell(session, row, "training_epoch", {"epoch": record.epoch, "metrics": dict(record.metrics)}, study)

    def _write_epochs(self, session: Session, row: TrainingTable, records: Iterable[EpochRecord]) -> None:
        for record in records:
            session.merge(TrainingEpochTable(training_id=row.id, epoch=record.epoch, metrics=plain(record.metrics)))
            row.done = max(row.done, record.epoch)
            best = [value for value in (row.best_top1, record.metrics.get("top1")) if value is not None]
            row.best_top1 = max(best, default=None)
        session.flush()

    def finish_training(self, training_id: str, result: TrainingResult, history: Iterable[EpochRecord]) -> Training:
        """Record the result of a training, and give its score back to the network of the trial; once.

        Args:
            training_id: Id of the training.
            result: Stored packages and scores.
            history: All epochs, of which some may be recorded already.

        Raises:
            NotFoundError: If there is no such training.
            StaleLease: If the lease of this store is lost.
        """
        with self._write() as session:
            study, row = self._locked_training(session, training_id)
            if row.state == TrainingState.FINISHED.value:
                return training_from(row)
            now = self._database.now(session)
            self._write_epochs(session, row, history)
            row.result = result_to_dict(result)
            if study is not None and row.returns:
                self._give_back(session, row, study, result.evaluations, now)
            row.ended_at = now
            self._change_training(session, row, TrainingState.FINISHED, None, study)
            return training_from(row)

    def _give_back(
        self, session: Session, row: TrainingTable, study: StudyTable, found: Iterable[Evaluation], now: datetime
    ) -> None:
        place = (study.id, row.number, row.position)
        if session.get(CandidateTable, place) is None:
            return
        evaluations = list(found)
        insert_evaluations(session, place, evaluations, now)  # type: ignore[arg-type]
        values = {f"{entry.kind.value}.{entry.metric}": entry.value for entry in evaluations}
        payload = {"number": row.number, "architecture_id": row.architecture_id, "values": values}
        self._emit(session, study, "evaluation", {**payload, "recipe": row.recipe})
