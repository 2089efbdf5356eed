"""The queue of jobs: one contract, run over every database."""

from __future__ import annotations

import time

import pytest

from nas.errors import ConflictError, InputError, NotFoundError, StaleLease
from nas.jobs import DesiredState, Job, JobKind, JobState
from nas.store import Store
from nas.store.leased_jobs import MAX_ATTEMPTS
from nas.study import StudyState
from nas.trial import TrialKind, TrialState
from tests.nas.store.makers import REFERENCE, candidate, definition, epoch, study
from tests.waiting import wait_for

EXPIRED = -1.0  # seconds: a lease that is over as soon as it is given


def submitted(store: Store) -> Job:
    return store.submit_study(definition(), REFERENCE)[1]


def lease(store: Store, seconds: float = 60.0) -> Job:
    job = store.lease_job("worker-1", seconds=seconds)
    assert job is not None
    return job


class TestSubmission:
    def test_study_and_job_together(self, store: Store) -> None:
        made, job = store.submit_study(definition(), REFERENCE)
        assert store.study(made.id).definition == definition()
        assert store.job(job.id) == job
        assert (job.kind, job.study_id, job.state, job.desired) == (
            JobKind.SEARCH, made.id, JobState.QUEUED, DesiredState.RUNNING
        )
        assert store.submit_study(definition(), REFERENCE)[0].name == "digits-2"

    def test_payload_and_lists(self, store: Store) -> None:
        made = study(store)
        first = store.enqueue_job(JobKind.EXPORT, {"number": 3, "options": [1, "a", None]}, study_id=made.id)
        second = store.enqueue_job(JobKind.PROBE, {})
        assert store.job(first.id).payload == {"number": 3, "options": [1, "a", None]}
        assert store.jobs() == [second, first]
        assert store.jobs(made.id) == [first]

    def test_one_search_at_a_time(self, store: Store) -> None:
        job = submitted(store)
        assert job.study_id is not None
        with pytest.raises(ConflictError, match=job.id):
            store.enqueue_job(JobKind.SEARCH, {}, study_id=job.study_id)
        held = lease(store)
        store.finish_job(held.id, held.epoch, JobState.CANCELLED)
        assert store.study(job.study_id).state is StudyState.PAUSED
        store.enqueue_job(JobKind.SEARCH, {}, study_id=job.study_id)
        assert store.study(job.study_id).state is StudyState.QUEUED

    def test_what_does_not_exist(self, store: Store) -> None:
        with pytest.raises(NotFoundError, match="'nope'"):
            store.enqueue_job(JobKind.EXPORT, {}, study_id="nope")
        with pytest.raises(NotFoundError, match="'nope'"):
            store.job("nope")
        with pytest.raises(InputError, match="needs a study"):
            store.enqueue_job(JobKind.SEARCH, {})


class TestLease:
    def test_the_oldest_of_a_kind_first_and_once(self, store: Store) -> None:
        made = study(store)
        exports = [store.enqueue_job(JobKind.EXPORT, {"number": n}, study_id=made.id) for n in range(2)]
        search = store.enqueue_job(JobKind.SEARCH, {}, study_id=made.id)
        first = store.lease_job("a", kinds=[JobKind.SEARCH], seconds=60)
        assert first is not None
        assert (first.id, first.worker, first.state, first.attempt, first.epoch) == (
            search.id, "a", JobState.RUNNING, 1, 1
        )
        assert [lease(store).id for _ in exports] == [job.id for job in exports]
        assert store.lease_job("b", seconds=60) is None

    def test_an_expired_lease_goes_to_another(self, store: Store) -> None:
        job = submitted(store)
        old, new = lease(store, EXPIRED), lease(store)
        assert (old.id, new.id, new.epoch, new.attempt) == (job.id, job.id, old.epoch + 1, 2)
        for write in (
            lambda: store.heartbeat(job.id, old.epoch, 60),
            lambda: store.finish_job(job.id, old.epoch, JobState.FINISHED),
            lambda: store.release_job(job.id, old.epoch),
        ):
            with pytest.raises(StaleLease, match=job.id):
                write()
        assert store.job(job.id) == new

    def test_time_expires_it_and_a_heartbeat_does_not_let_it(self, store: Store) -> None:
        submitted(store)
        held = lease(store, EXPIRED)
        store.heartbeat(held.id, held.epoch, 60)
        assert store.lease_job("other", seconds=60) is None
        store.heartbeat(held.id, held.epoch, 0.05)
        taken = wait_for(lambda: store.lease_job("other", seconds=60))
        assert taken is not None
        assert (taken.id, taken.worker) == (held.id, "other")

    def test_an_expired_lease_that_nobody_took_is_still_one_s_own(self, store: Store) -> None:
        submitted(store)
        held = lease(store, EXPIRED)
        assert store.heartbeat(held.id, held.epoch, 60).state is JobState.RUNNING
        assert store.lease_job("other", seconds=60) is None

    def test_after_the_end_it_is_stale(self, store: Store) -> None:
        submitted(store)
        held = lease(store)
        ended = store.finish_job(held.id, held.epoch, JobState.FINISHED, result={"uri": "a", "size": 3})
        assert (ended.state, ended.result, ended.error) == (JobState.FINISHED, {"uri": "a", "size": 3}, None)
        assert ended.ended_at is not None
        with pytest.raises(StaleLease, match="finished"):
            store.finish_job(held.id, held.epoch, JobState.FAILED, error="late")
        with pytest.raises(StaleLease, match="finished"):
            store.heartbeat(held.id, held.epoch, 60)
        assert store.job(held.id) == ended
        assert store.lease_job("other", seconds=60) is None

    def test_only_an_end_is_an_end(self, store: Store) -> None:
        submitted(store)
        held = lease(store)
        with pytest.raises(InputError, match="running"):
            store.finish_job(held.id, held.epoch, JobState.RUNNING)

    def test_a_job_that_kills_its_workers_ends(self, store: Store) -> None:
        job = submitted(store)
        for _ in range(MAX_ATTEMPTS):
            lease(store, EXPIRED)
        assert store.lease_job("next", seconds=60) is None
        assert store.job(job.id).state is JobState.FAILED
        found = store.study(job.study_id or "")
        assert (found.state, found.reason) == (StudyState.FAILED, store.job(job.id).error)
        assert f"died {MAX_ATTEMPTS} times" in str(found.reason)

    def test_deaths_count_between_which_nothing_was_done(self, store: Store) -> None:
        job = submitted(store)
        study_id = job.study_id or ""
        store.add_trials(study_id, [(TrialKind.SEARCH, {"target": 2.0})])
        for number in range(1, 2 * MAX_ATTEMPTS):
            held = lease(store, EXPIRED)
            fenced = store.fenced(held.id, held.epoch)
            fenced.requeue_unfinished(study_id)
            fenced.start_trial(study_id, 0)
            for known in range(1, number + 1):  # those before are reported again: no progress
                fenced.record_epoch(study_id, 0, epoch(known))
            assert store.job(job.id).attempt == 1
        for attempt in range(2, MAX_ATTEMPTS + 1):
            held = lease(store, EXPIRED)
            assert held.attempt == attempt
            store.fenced(held.id, held.epoch).record_epoch(study_id, 0, epoch(1))
        assert store.lease_job("next", seconds=60) is None
        assert store.job(job.id).state is JobState.FAILED

    def test_a_process_that_died_is_tried_again_after_a_pause_that_doubles(self, store: Store) -> None:
        job = submitted(store)
        pauses = []
        for attempt in range(1, MAX_ATTEMPTS):
            held = store.hold_search(job.study_id or "", "me", seconds=60)  # who asks for it does not wait
            assert (held.attempt, held.error) == (attempt, None)
            waiting = store.retry_job(held.id, held.epoch, "SIGKILL", pause=10.0)
            assert (waiting.state, waiting.worker, waiting.error) == (JobState.QUEUED, None, "SIGKILL")
            assert store.study(job.study_id or "").state is StudyState.QUEUED
            assert store.lease_job("worker", seconds=60) is None
            assert waiting.expires_at is not None
            assert held.started_at is not None
            pauses.append(round((waiting.expires_at - held.started_at).total_seconds()))
        assert pauses == [10, 20, 40, 60]
        held = store.hold_search(job.study_id or "", "me", seconds=60)
        failed = store.retry_job(held.id, held.epoch, "SIGKILL", pause=10.0)
        assert failed.state is JobState.FAILED
        assert failed.error == f"{MAX_ATTEMPTS} times in a row, without progress between: SIGKILL"

    def test_a_pause_ends(self, store: Store) -> None:
        submitted(store)
        held = lease(store)
        store.retry_job(held.id, held.epoch, "SIGKILL", pause=0.05)
        time.sleep(0.1)
        assert lease(store).attempt == 2

    def test_what_was_to_stop_when_its_process_died_is_not_tried_again(self, store: Store) -> None:
        job = submitted(store)
        held = lease(store)
        store.request_job(job.id, DesiredState.STOPPED)
        assert store.retry_job(held.id, held.epoch, "SIGKILL", pause=0.0).state is JobState.CANCELLED
        assert store.study(job.study_id or "").state is StudyState.STOPPED

    def test_a_dead_holder_is_not_waited_for(self, store: Store) -> None:
        submitted(store)
        held = lease(store)
        assert store.expire_leases(lambda name: name != "worker-1") == []
        assert store.lease_job("other", seconds=60) is None
        assert [job.id for job in store.expire_leases(lambda name: name == "worker-1")] == [held.id]
        assert store.expire_leases(lambda name: True) == []  # it has expired already
        time.sleep(0.01)
        again = lease(store)
        assert (again.id, again.epoch) == (held.id, 2)

    def test_an_orderly_return_is_no_attempt(self, store: Store) -> None:
        submitted(store)
        for _ in range(2 * MAX_ATTEMPTS):
            held = lease(store)
            assert store.release_job(held.id, held.epoch).state is JobState.QUEUED
        assert lease(store).attempt == 1


class TestStop:
    def test_before_the_start_it_ends_at_once(self, store: Store) -> None:
        job = submitted(store)
        assert store.request_job(job.id, DesiredState.STOPPED).state is JobState.CANCELLED
        assert store.study(job.study_id or "").state is StudyState.STOPPED
        assert store.lease_job("worker", seconds=60) is None

    def test_under_way_the_holder_hears_it(self, store: Store) -> None:
        job = submitted(store)
        held = lease(store)
        assert store.request_job(job.id, DesiredState.STOPPED).state is JobState.RUNNING
        assert store.heartbeat(job.id, held.epoch, 60).desired is DesiredState.STOPPED
        store.finish_job(job.id, held.epoch, JobState.CANCELLED)
        assert store.study(job.study_id or "").state is StudyState.STOPPED

    def test_it_can_be_taken_back(self, store: Store) -> None:
        job = submitted(store)
        held = lease(store)
        store.request_job(job.id, DesiredState.STOPPED)
        store.request_job(job.id, DesiredState.RUNNING)
        assert store.heartbeat(job.id, held.epoch, 60).desired is DesiredState.RUNNING

    def test_its_holder_died_meanwhile(self, store: Store) -> None:
        job = submitted(store)
        lease(store, EXPIRED)
        store.request_job(job.id, DesiredState.STOPPED)
        assert store.lease_job("other", seconds=60) is None
        assert store.job(job.id).state is JobState.CANCELLED
        assert store.study(job.study_id or "").state is StudyState.STOPPED

    def test_what_has_ended_cannot_be_asked(self, store: Store) -> None:
        job = submitted(store)
        store.request_job(job.id, DesiredState.STOPPED)
        with pytest.raises(ConflictError, match="cancelled"):
            store.request_job(job.id, DesiredState.STOPPED)
        with pytest.raises(NotFoundError):
            store.request_job("nope", DesiredState.STOPPED)


class TestStudyGoesAlong:
    def running(self, store: Store) -> Job:
        """A search under way: one trial complete, one running."""
        submitted(store)
        held = lease(store)
        assert held.study_id is not None
        store.set_study_state(held.study_id, StudyState.RUNNING)
        store.add_trials(held.study_id, [(TrialKind.SEARCH, {"target": n}) for n in (2.0, 4.0)])
        for number in range(2):
            store.start_trial(held.study_id, number)
            store.record_epoch(held.study_id, number, epoch(1))
        store.end_trial(held.study_id, 0, TrialState.COMPLETE, candidates=[candidate()])
        return held

    def test_a_failed_search_leaves_nothing_running(self, store: Store) -> None:
        held = self.running(store)
        store.finish_job(held.id, held.epoch, JobState.FAILED, error="killed by SIGKILL")
        found = store.study(held.study_id or "")
        assert (found.state, found.reason) == (StudyState.FAILED, "killed by SIGKILL")
        assert [trial.state for trial in store.trials(found.id)] == [TrialState.COMPLETE, TrialState.QUEUED]

    def test_a_released_search_waits(self, store: Store) -> None:
        held = self.running(store)
        store.set_study_state(held.study_id or "", StudyState.PAUSED, reason="interrupted")
        store.release_job(held.id, held.epoch)
        found = store.study(held.study_id or "")
        assert (found.state, found.reason) == (StudyState.QUEUED, None)
        assert [trial.state for trial in store.trials(found.id)] == [TrialState.COMPLETE, TrialState.QUEUED]

    def test_a_finished_study_stays_finished(self, store: Store) -> None:
        held = self.running(store)
        store.set_study_state(held.study_id or "", StudyState.FINISHED, report=["Done."])
        store.finish_job(held.id, held.epoch, JobState.FAILED, error="a crash on the way out")
        assert store.study(held.study_id or "").state is StudyState.FINISHED

    def test_an_export_that_fails_does_not_touch_it(self, store: Store) -> None:
        made = study(store)
        store.enqueue_job(JobKind.EXPORT, {"number": 0}, study_id=made.id)
        held = lease(store)
        store.finish_job(held.id, held.epoch, JobState.FAILED, error="no weights")
        assert store.study(made.id).state is StudyState.QUEUED
        assert [entry.payload["state"] for entry in store.events_after(made.id, 1)] == ["queued", "running", "failed"]


class TestFence:
    def test_a_search_that_was_taken_over_can_write_nothing(self, store: Store) -> None:
        submitted(store)
        old = lease(store, EXPIRED)
        study_id = old.study_id or ""
        zombie = store.fenced(old.id, old.epoch)
        zombie.add_trials(study_id, [(TrialKind.SEARCH, {"target": 2.0})])
        zombie.start_trial(study_id, 0)
        new = lease(store)
        before = store.events_after(study_id, 0)
        for write in (
            lambda: zombie.record_epoch(study_id, 0, epoch(1)),
            lambda: zombie.end_trial(study_id, 0, TrialState.FAILED, reason="late"),
            lambda: zombie.set_study_state(study_id, StudyState.STOPPED),
            lambda: zombie.requeue_unfinished(study_id),
        ):
            with pytest.raises(StaleLease):
                write()
        assert store.events_after(study_id, 0) == before
        assert zombie.trials(study_id) == store.trials(study_id)
        store.fenced(new.id, new.epoch).record_epoch(study_id, 0, epoch(1))


class TestHold:
    def test_a_process_takes_the_search_of_its_own_study(self, store: Store) -> None:
        made = study(store)
        held = store.hold_search(made.id, "me", seconds=60)
        assert (held.study_id, held.worker, held.state) == (made.id, "me", JobState.RUNNING)
        assert store.lease_job("worker", seconds=60) is None
        with pytest.raises(ConflictError, match=r"by me .* try again in \d+ s"):
            store.hold_search(made.id, "you", seconds=60)

    def test_a_waiting_or_expired_search_is_taken(self, store: Store) -> None:
        job = submitted(store)
        first = store.hold_search(job.study_id or "", "me", seconds=EXPIRED)
        second = store.hold_search(job.study_id or "", "you", seconds=60)
        assert (first.id, second.id, second.epoch) == (job.id, job.id, first.epoch + 1)

    def test_an_ended_search_gets_a_new_job(self, store: Store) -> None:
        job = submitted(store)
        store.request_job(job.id, DesiredState.PAUSED)
        assert store.hold_search(job.study_id or "", "me", seconds=60).id != job.id
        with pytest.raises(NotFoundError):
            store.hold_search("nope", "me", seconds=60)
