"""What may be done with a study: the store obeys the table for every pair of state and action, on every database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nas.errors import ConflictError, InputError
from nas.finalist import Finalist, Role
from nas.jobs import DesiredState, Job, JobKind, JobState
from nas.lifecycle import TABLE, Action, Refusal, Step, allows, follows_job, take
from nas.store import Store
from nas.study import PAUSED_ON_REQUEST, STOPPED_ON_REQUEST, StudyState
from nas.trial import TrialKind, TrialState
from tests.nas.store.databases import url_on
from tests.nas.store.makers import REFERENCE, definition, study

RARELY_POSTGRESQL = ["sqlite", pytest.param("postgresql", marks=[pytest.mark.postgres, pytest.mark.long])]
PAIRS = [(state, action) for state in StudyState for action in Action]
STORED = tuple(state for state in StudyState if state is not StudyState.INTERRUPTED)  # that one follows from the lease
BUSY = (StudyState.QUEUED, StudyState.RUNNING)
ENDS = (Action.PAUSE, Action.STOP)


@pytest.fixture(params=RARELY_POSTGRESQL)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without rows; ``test_pauses.py`` asks PostgreSQL a sample of the same."""
    return url_on(request, tmp_path)


def act(store: Store, study_id: str, action: Action) -> Job:
    doors: dict[Action, Callable[[], Job | None]] = {
        Action.QUEUE: lambda: store.enqueue_job(JobKind.SEARCH, {}, study_id=study_id),
        Action.RESUME: lambda: store.resume(study_id),
        Action.RUN: lambda: store.hold_search(study_id, "me", seconds=60),
        Action.PAUSE: lambda: store.pause(study_id),
        Action.STOP: lambda: store.stop(study_id),
        Action.EXTEND: lambda: store.extend(study_id, 3),
    }
    job = doors[action]()
    assert job is not None
    return job


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
@pytest.mark.parametrize("action", [Action.QUEUE, Action.RESUME, Action.RUN, Action.EXTEND])
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
@pytest.mark.parametrize("action", [Action.QUEUE, Action.RESUME, Action.EXTEND, Action.PAUSE, Action.STOP])
def test_with_a_search_under_way_it_is_ended_but_not_started(store: Store, state: StudyState, action: Action) -> None:
    made = in_state(store, state, job=True)
    held = store.lease_job("worker", seconds=60)
    assert held is not None
    if action in ENDS and state is not StudyState.FINISHED:
        assert act(store, made, action).desired is TABLE[StudyState.RUNNING][action].desired
        store.finish_job(held.id, held.epoch, JobState.CANCELLED)
        follows = state in BUSY or (state, action) == (StudyState.PAUSED, Action.STOP)
        assert store.study(made).state is (TABLE[StudyState.RUNNING][action].state if follows else state)
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
        with pytest.raises(ConflictError, match=r"study digits is interrupted: (the next worker|trials can be added)"):
            act(store, made, action)
        return
    job = act(store, made, action)
    assert (job.id, job.desired) == (dead.id, step.desired)
    assert job.state is (JobState.CANCELLED if action in ENDS else JobState.RUNNING)
    assert store.study(made).state is (StudyState.RUNNING if action is Action.RUN else step.state)


@pytest.mark.parametrize("action", ENDS)
def test_a_waiting_search_ends_at_once(store: Store, action: Action) -> None:
    made = in_state(store, StudyState.QUEUED, job=True)
    assert act(store, made, action).state is JobState.CANCELLED
    assert store.study(made).state is TABLE[StudyState.QUEUED][action].state
    with pytest.raises(ConflictError, match=f"study digits is .*: there is no search to {action.value}"):
        act(store, made, action) if action is Action.PAUSE else store.stop(made)


@pytest.mark.parametrize("state", [StudyState.QUEUED, StudyState.PAUSED])
def test_a_study_without_a_job_can_be_ended_but_not_paused(store: Store, state: StudyState) -> None:
    made = in_state(store, state, job=False)
    with pytest.raises(ConflictError, match=f"study digits is {state.value}: there is no search to pause"):
        store.pause(made)
    assert store.stop(made) is None
    assert (store.study(made).state, store.study(made).reason) == (StudyState.STOPPED, STOPPED_ON_REQUEST)


@pytest.mark.parametrize("state", StudyState)
def test_a_study_that_has_ended_does_not_follow_its_job(state: StudyState) -> None:
    assert follows_job(state) is (state not in (StudyState.FINISHED, StudyState.FAILED, StudyState.STOPPED))


class TestTrials:
    """What pause and stop make of the trials: they wait, or each has an end."""

    def under_way(self, store: Store) -> tuple[str, Job]:
        """Return a study with a complete, a running and a queued trial, and the job of its search."""
        made, _ = store.submit_study(definition(), REFERENCE)
        job = store.lease_job("worker", seconds=60)
        assert job is not None
        store.set_study_state(made.id, StudyState.RUNNING)
        ended, running, _ = store.add_trials(made.id, [(TrialKind.SEARCH, {"target": 4.0})] * 3)
        for spec in (ended, running):
            store.start_trial(made.id, spec.number)
        store.end_trial(made.id, ended.number, TrialState.FAILED, reason="diverged")
        return made.id, job

    def states(self, store: Store, study_id: str) -> list[tuple[TrialState, str | None]]:
        return [(trial.state, trial.reason) for trial in store.trials(study_id)]

    def test_a_pause_puts_them_back(self, store: Store) -> None:
        made, job = self.under_way(store)
        store.pause(made)
        store.finish_job(job.id, job.epoch, JobState.CANCELLED)
        assert (store.study(made).state, store.study(made).reason) == (StudyState.PAUSED, PAUSED_ON_REQUEST)
        assert self.states(store, made) == [
            (TrialState.FAILED, "diverged"), (TrialState.QUEUED, None), (TrialState.QUEUED, None)
        ]  # fmt: skip

    @pytest.mark.parametrize("after", ["at once", "from a pause", "when its process has died"])
    def test_a_stop_ends_them(self, store: Store, after: str) -> None:
        made, job = self.under_way(store)
        if after == "from a pause":
            store.pause(made)
            store.finish_job(job.id, job.epoch, JobState.CANCELLED)
        elif after == "when its process has died":
            store.expire_leases(lambda _worker: True)
        store.stop(made)
        if after == "at once":
            store.finish_job(job.id, job.epoch, JobState.CANCELLED)
        assert store.study(made).state is StudyState.STOPPED
        assert self.states(store, made) == [
            (TrialState.FAILED, "diverged"), *[(TrialState.CANCELLED, STOPPED_ON_REQUEST)] * 2
        ]  # fmt: skip
        with pytest.raises(ConflictError, match="study digits is stopped: it was ended for good"):
            store.resume(made)

    def test_a_later_request_replaces_an_earlier_one(self, store: Store) -> None:
        made, job = self.under_way(store)
        store.pause(made)
        assert store.fenced(job.id, job.epoch).desired() is DesiredState.PAUSED
        store.stop(made)
        assert store.fenced(job.id, job.epoch).desired() is DesiredState.STOPPED
        store.finish_job(job.id, job.epoch, JobState.CANCELLED)
        assert store.study(made).state is StudyState.STOPPED

    def test_a_worker_that_shuts_down_hands_a_search_back_unless_it_is_to_end(self, store: Store) -> None:
        made, job = self.under_way(store)
        store.set_study_state(made, StudyState.PAUSED, reason=PAUSED_ON_REQUEST)  # as the search leaves it
        store.release_job(job.id, job.epoch)
        assert store.study(made).state is StudyState.QUEUED
        again = store.lease_job("worker", seconds=60)
        assert again is not None
        store.pause(made)
        store.release_job(again.id, again.epoch)
        assert store.study(made).state is StudyState.PAUSED


class TestExtension:
    def test_it_adds_to_the_plan_and_queues(self, store: Store) -> None:
        made = in_state(store, StudyState.FINISHED, job=False)
        job = store.extend(made, 3)
        found = store.study(made)
        assert (found.state, found.extended, job is not None and job.state) == (StudyState.QUEUED, 3, JobState.QUEUED)
        assert found.search_trials == found.definition.sweep.trials + 3
        assert found.planned == found.definition.planned + 3
        assert store.studies()[0].study == found

    def test_for_a_search_in_the_callers_process(self, store: Store) -> None:
        made = in_state(store, StudyState.FINISHED, job=False)
        assert store.extend(made, 2, queue=False) is None
        assert store.extend(made, 2, queue=False) is None
        assert store.study(made).extended == 4
        assert store.hold_search(made, "me", seconds=60).state is JobState.RUNNING

    @pytest.mark.parametrize("trials", [0, -1, 100_000])
    def test_a_number_out_of_range_changes_nothing(self, store: Store, trials: int) -> None:
        made = in_state(store, StudyState.FINISHED, job=False)
        with pytest.raises(InputError, match=f"must be from 1 to [0-9,]+, but got {trials}"):
            store.extend(made, trials)
        assert (store.study(made).state, store.study(made).extended) == (StudyState.FINISHED, 0)

    def test_added_trials_have_the_seeds_of_a_longer_study(self, store: Store) -> None:
        """The trainings of the comparison stand between them, and do not count."""
        trial = (TrialKind.SEARCH, {"target": 4.0})
        long, extended = study(store).id, study(store).id
        wanted = [spec.seed for spec in store.add_trials(long, [trial] * 4)]
        found = store.add_trials(extended, [trial] * 2)
        store.add_finalists(extended, [Finalist(Role.UNIFORM, 0, None, 1e6, (4, 4))] * 2)
        found += store.add_trials(extended, [trial] * 2)
        assert [spec.seed for spec in found] == wanted
        assert [spec.number for spec in found] == [0, 1, 4, 5]
