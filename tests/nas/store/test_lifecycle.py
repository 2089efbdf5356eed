"""What may be done with a study: the store obeys the table for every pair of state and action, on every database."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nas.errors import ConflictError
from nas.jobs import DesiredState, Job, JobKind, JobState
from nas.lifecycle import TABLE, Action, Refusal, Step, allows, follows_job, take
from nas.store import Store
from nas.study import StudyState
from tests.nas.store.makers import REFERENCE, definition, study

PAIRS = [(state, action) for state in StudyState for action in Action]
STORED = tuple(state for state in StudyState if state is not StudyState.INTERRUPTED)  # that one follows from the lease
BUSY = (StudyState.QUEUED, StudyState.RUNNING)


def act(store: Store, study_id: str, action: Action) -> Job:
    doors: dict[Action, Callable[[], Job]] = {
        Action.QUEUE: lambda: store.enqueue_job(JobKind.SEARCH, {}, study_id=study_id),
        Action.RESUME: lambda: store.resume(study_id),
        Action.RUN: lambda: store.hold_search(study_id, "me", seconds=60),
        Action.STOP: lambda: store.stop(study_id),
    }
    return doors[action]()


def in_state(store: Store, state: StudyState, *, job: bool) -> str:
    """Return a study in ``state``, with a job that waits for a worker if ``job``."""
    if job:
        made, _ = store.submit_study(definition(), REFERENCE)
    else:
        made = study(store)
    store.set_study_state(made.id, state, reason="before")
    return made.id


@pytest.mark.parametrize(("state", "action"), PAIRS)
def test_the_table_is_complete_and_refusals_name_study_and_state(state: StudyState, action: Action) -> None:
    assert allows(state, action) is isinstance(TABLE[state][action], Step)
    if allows(state, action):
        assert take("x", state, action) == TABLE[state][action]
    else:
        with pytest.raises(ConflictError, match=f"^study x is {state.value}[:;] .*[^}}]$"):
            take("x", state, action)


@pytest.mark.parametrize("state", STORED)
@pytest.mark.parametrize("action", [Action.QUEUE, Action.RESUME, Action.RUN])
def test_a_search_starts_where_the_table_allows_it(store: Store, state: StudyState, action: Action) -> None:
    made = in_state(store, state, job=False)
    before = store.events_after(made, 0)
    step = TABLE[state][action]
    if isinstance(step, Refusal):
        with pytest.raises(ConflictError, match=f"is {state.value}"):
            act(store, made, action)
        assert (store.jobs(made), store.events_after(made, 0)) == ([], before)
        return
    job = act(store, made, action)
    assert job.desired is step.desired
    if action is Action.RUN:  # run_search says in the study that it runs, when it does
        assert job.state is JobState.RUNNING
    else:
        found = store.study(made)
        assert (found.state, found.reason, job.state) == (step.state, None, JobState.QUEUED)


@pytest.mark.parametrize("state", STORED)
@pytest.mark.parametrize("action", [Action.QUEUE, Action.RESUME, Action.STOP])
def test_with_a_search_under_way_it_is_stopped_but_not_started(store: Store, state: StudyState, action: Action) -> None:
    made = in_state(store, state, job=True)
    held = store.lease_job("worker", seconds=60)
    assert held is not None
    if action is Action.STOP and state is not StudyState.FINISHED:
        assert act(store, made, action).desired is DesiredState.STOPPED
        store.finish_job(held.id, held.epoch, JobState.CANCELLED)
        assert store.study(made).state is (TABLE[state][action].state if state in BUSY else store.study(made).state)
    else:
        with pytest.raises(ConflictError, match=r"study digits is (running|finished|being searched)"):
            act(store, made, action)
        assert [job.id for job in store.jobs(made)] == [held.id]


@pytest.mark.parametrize("action", [action for action in Action if action is not Action.RETRY])
def test_a_search_whose_process_died_follows_its_row(store: Store, action: Action) -> None:
    made = in_state(store, StudyState.RUNNING, job=True)
    dead = store.lease_job("dead", seconds=-1)
    assert dead is not None
    assert store.study(made).state is StudyState.INTERRUPTED
    step = TABLE[StudyState.INTERRUPTED][action]
    if isinstance(step, Refusal):
        with pytest.raises(ConflictError, match="study digits is interrupted: the next worker continues"):
            act(store, made, action)
        return
    job = act(store, made, action)
    assert (job.id, job.desired) == (dead.id, step.desired)
    assert job.state is (JobState.CANCELLED if action is Action.STOP else JobState.RUNNING)


def test_a_waiting_search_ends_at_once(store: Store) -> None:
    made = in_state(store, StudyState.QUEUED, job=True)
    assert store.stop(made).state is JobState.CANCELLED
    assert store.study(made).state is TABLE[StudyState.QUEUED][Action.STOP].state
    with pytest.raises(ConflictError, match="study digits is stopped: there is no search to stop"):
        store.stop(made)


def test_without_a_job_there_is_no_search_to_stop(store: Store) -> None:
    made = in_state(store, StudyState.QUEUED, job=False)
    with pytest.raises(ConflictError, match="study digits is queued: there is no search to stop"):
        store.stop(made)


@pytest.mark.parametrize("state", StudyState)
@pytest.mark.parametrize("after", [StudyState.QUEUED, StudyState.FAILED, StudyState.STOPPED])
def test_a_study_that_has_ended_does_not_follow_its_job(state: StudyState, after: StudyState) -> None:
    given_back = (state, after) == (StudyState.STOPPED, StudyState.QUEUED)
    ended = state in (StudyState.FINISHED, StudyState.FAILED, StudyState.STOPPED)
    assert follows_job(state, after) is (given_back or not ended)
