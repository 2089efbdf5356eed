"""What has died is shown as such, without any worker: a study, its trials and jobs whose lease has expired."""

from __future__ import annotations

import pytest

from nas.errors import InputError
from nas.jobs import DesiredState, JobKind, JobState
from nas.store import Store
from nas.study import Study, StudyState
from nas.trial import TrialKind, TrialState
from tests.nas.store.makers import complete, study


def died(store: Store, name: str = "digits", *, seconds: float = -1.0) -> Study:
    """Make a study with a complete and a running trial whose search is held for ``seconds`` more."""
    made = study(store, name)
    complete(store, made.id)
    store.hold_search(made.id, "dead:1", seconds=seconds)
    store.set_study_state(made.id, StudyState.RUNNING)
    number = store.add_trials(made.id, [(TrialKind.SEARCH, {"target": 2.0})])[0].number
    store.start_trial(made.id, number)
    return made


def states(store: Store, made: Study) -> list[str]:
    """Return how the study and its running trial read, in every way to read them."""
    row = store.study_row(made.id)
    [listed] = [other for other in store.studies() if other.study.id == made.id]
    assert listed == row
    counted = [state for state, count in row.counts.items() if count and state is not TrialState.COMPLETE]
    trials = [store.trials(made.id)[1].state, store.trial(made.id, 1).state]
    return [store.study(made.name).state.value, row.study.state.value, *counted, *(state.value for state in trials)]


def test_a_study_whose_lease_has_expired_reads_as_interrupted(store: Store) -> None:
    dead, alive = died(store, "dead"), died(store, "alive", seconds=30)
    assert states(store, dead) == ["interrupted"] * 5
    assert states(store, alive) == ["running"] * 5
    assert [job.expired for job in store.jobs(dead.id)] == [True]
    assert [job.expired for job in store.jobs(alive.id)] == [False]


def test_it_runs_again_once_somebody_holds_it(store: Store) -> None:
    made = died(store)
    job = store.lease_job("new:1", seconds=30)
    assert job is not None
    assert not job.expired
    assert states(store, made) == ["running"] * 5
    store.requeue_unfinished(made.id)
    assert store.trial(made.id, 1).state is TrialState.QUEUED


def test_a_stop_ends_it_at_once(store: Store) -> None:
    made = died(store)
    [job] = store.jobs(made.id)
    assert store.request_job(job.id, DesiredState.STOPPED).state is JobState.CANCELLED
    assert (store.study(made.id).state, store.trial(made.id, 1).state) == (StudyState.STOPPED, TrialState.CANCELLED)


def test_a_job_of_another_kind_is_expired_too_and_leaves_its_study_alone(store: Store) -> None:
    made = study(store)
    store.enqueue_job(JobKind.EXPORT, {"number": 0}, study_id=made.id)
    leased = store.lease_job("dead:1", seconds=-1)
    assert leased is not None
    store.set_study_state(made.id, StudyState.RUNNING)
    assert store.job(leased.id).expired
    assert store.study(made.id).state is StudyState.RUNNING


def test_a_search_that_ended_is_what_it_was(store: Store) -> None:
    made = died(store)
    store.set_study_state(made.id, StudyState.FINISHED)
    assert store.study(made.id).state is StudyState.FINISHED


def test_it_is_never_stored(store: Store) -> None:
    with pytest.raises(InputError, match="never stored as interrupted"):
        store.set_study_state(study(store).id, StudyState.INTERRUPTED)
