"""A fault that concerns all trials pauses a search, and failed trials run again, on every database."""

from __future__ import annotations

import pytest

from nas.errors import ConflictError, StaleLease
from nas.jobs import Job, JobKind, JobState
from nas.lifecycle import TABLE, Action, Refusal
from nas.store import Store
from nas.study import DataFingerprint, StudyState
from nas.trial import TrialKind, TrialState
from tests.nas.store.makers import REFERENCE, complete, definition, study

STORED = tuple(state for state in StudyState if state is not StudyState.INTERRUPTED)
REASON = "storage runs: No space left on device"


def searched(store: Store) -> tuple[str, Job]:
    """Return a study whose search a worker holds, with one running trial."""
    made, _ = store.submit_study(definition(), REFERENCE)
    held = store.lease_job("worker", seconds=60)
    assert held is not None
    number = store.add_trials(made.id, [(TrialKind.SEARCH, {"target": 4.0})])[0].number
    store.start_trial(made.id, number)
    store.set_study_state(made.id, StudyState.RUNNING)
    return made.id, held


def fail(store: Store, study_id: str, reason: str = "broken") -> int:
    number = store.add_trials(study_id, [(TrialKind.SEARCH, {"target": 4.0})])[0].number
    store.start_trial(study_id, number)
    store.end_trial(study_id, number, TrialState.FAILED, reason=reason)
    return number


@pytest.mark.parametrize("again", [None, 60.0])
def test_a_pause_puts_trials_back_and_keeps_the_fault_as_the_reason(store: Store, again: float | None) -> None:
    made, held = searched(store)
    store.pause_job(held.id, held.epoch, REASON, again=again)
    found, job = store.study(made), store.job(held.id)
    assert (found.state, found.reason) == (StudyState.PAUSED, REASON)
    assert [trial.state for trial in store.trials(made)] == [TrialState.QUEUED]
    assert (job.state, job.error) == (JobState.FAILED if again is None else JobState.QUEUED, REASON)
    assert store.lease_job("other", seconds=60) is None
    with pytest.raises(StaleLease):
        store.heartbeat(held.id, held.epoch, 60)


@pytest.mark.parametrize("again", [None, 60.0])
def test_a_paused_search_resumes_at_once_by_hand(store: Store, again: float | None) -> None:
    made, held = searched(store)
    store.pause_job(held.id, held.epoch, REASON, again=again)
    job = store.resume(made)
    assert (store.study(made).state, store.study(made).reason) == (StudyState.QUEUED, None)
    leased = store.lease_job("other", seconds=60)
    assert leased is not None
    assert (leased.id, leased.attempt) == (job.id, 1)
    assert sum(not known.state.ended for known in store.jobs(made)) == 1


def test_a_paused_search_is_tried_again_without_a_hand_and_without_counting_deaths(store: Store) -> None:
    made, held = searched(store)
    for _ in range(20):
        store.pause_job(held.id, held.epoch, REASON, again=-1.0)
        again = store.lease_job("worker", seconds=60)
        assert again is not None
        assert (again.id, again.attempt) == (held.id, 1)
        held = again
    assert store.study(made).state is StudyState.PAUSED


def test_a_paused_search_that_waits_can_be_stopped(store: Store) -> None:
    made, held = searched(store)
    store.pause_job(held.id, held.epoch, REASON, again=60.0)
    assert store.stop(made).state is JobState.CANCELLED
    assert store.study(made).state is StudyState.STOPPED


@pytest.mark.parametrize("state", STORED)
def test_failed_trials_run_again_where_the_table_allows_it(store: Store, state: StudyState) -> None:
    made = study(store)
    kept, broken = complete(store, made.id), [fail(store, made.id) for _ in range(2)]
    store.set_study_state(made.id, state, reason="before")
    step = TABLE[state][Action.RETRY]
    if isinstance(step, Refusal):
        with pytest.raises(ConflictError, match=f"study digits is {state.value}: (its failed trials|it was ended)"):
            store.retry_failed(made.id)
        return
    assert store.retry_failed(made.id) == 2
    trials = store.trials(made.id)
    assert {trial.number: trial.state for trial in trials} == {
        kept: TrialState.COMPLETE,
        **dict.fromkeys(broken, TrialState.QUEUED),
    }
    assert all(trial.reason is None and trial.ended_at is None for trial in trials if trial.number in broken)
    assert store.study(made.id).state is step.state


def test_a_search_that_a_process_holds_does_not_retry(store: Store) -> None:
    made, _ = searched(store)
    fail(store, made)
    for action in (store.retry_failed, store.resume_with_failed):
        with pytest.raises(ConflictError, match="study digits is running: its failed trials can run again when"):
            action(made)


@pytest.mark.parametrize("state", [StudyState.FINISHED, StudyState.FAILED, StudyState.PAUSED])
def test_a_resume_with_failed_trials_queues_the_search(store: Store, state: StudyState) -> None:
    made = study(store)
    fail(store, made.id)
    store.set_study_state(made.id, state)
    job = store.resume_with_failed(made.id)
    assert (job.kind, job.state, store.study(made.id).state) == (JobKind.SEARCH, JobState.QUEUED, StudyState.QUEUED)


def test_without_failed_trials_there_is_nothing_to_retry(store: Store) -> None:
    made = study(store)
    complete(store, made.id)
    store.set_study_state(made.id, StudyState.FINISHED)
    with pytest.raises(ConflictError, match="study digits has no failed trials to run again"):
        store.resume_with_failed(made.id)
    assert store.study(made.id).state is StudyState.FINISHED


def test_only_failed_trials_are_revived(store: Store) -> None:
    made = study(store)
    broken, kept = fail(store, made.id), complete(store, made.id)
    with pytest.raises(ConflictError, match=f"trial {kept} of study digits is complete, so it cannot run again"):
        store.revive_trials(made.id, [broken, kept])
    assert store.trials(made.id)[0].state is TrialState.FAILED  # one transaction
    store.revive_trials(made.id, [broken])
    assert store.trials(made.id)[0].state is TrialState.QUEUED


def test_only_data_that_nothing_was_trained_on_may_be_mended(store: Store) -> None:
    made = study(store)
    damaged, whole = (DataFingerprint(("a", "b"), {"train": 9}, {"train": digest}) for digest in ("00", "11"))
    store.record_data(made.id, damaged)
    with pytest.raises(ConflictError, match="the data of study digits has changed"):
        store.record_data(made.id, whole)  # before the first run, the images are those that the study was made for
    store.add_trials(made.id, [(TrialKind.SEARCH, {"target": 4.0})])
    store.set_study_state(made.id, StudyState.PAUSED, reason="a.png: cannot be read")
    store.record_data(made.id, whole)
    assert store.study(made.id).data == whole
    complete(store, made.id)
    with pytest.raises(ConflictError, match="the data of study digits has changed"):
        store.record_data(made.id, damaged)
