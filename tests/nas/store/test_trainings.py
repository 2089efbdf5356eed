"""Trainings: one contract, run over every database."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nas.candidate import Artifact
from nas.definition.requested_training import RequestedTraining, parse_training
from nas.errors import ConflictError, DefinitionError, LimitError, NotFoundError, StaleLease
from nas.jobs import DesiredState, Job, JobKind, JobState
from nas.metrics import Evaluation, EvaluationKind
from nas.store import Store
from nas.store.leased_jobs import MAX_ATTEMPTS
from nas.store.training_reads import find_training
from nas.study import Study
from nas.trainings import (
    TABLE,
    Training,
    TrainingAction,
    TrainingQuery,
    TrainingResult,
    TrainingState,
    TrainingStep,
    allows,
)
from nas.trial import EpochRecord, TrialKind, TrialState
from tests.nas.store.makers import candidate, complete, study

STORED = Artifact("trainings/x/package.zip", "ab" * 32, 2**33, "package")


def wanted(**changes: Any) -> RequestedTraining:
    return parse_training({"study": "digits", "trial": 0, "settings": {"epochs": 3}, **changes})


def leased(store: Store, seconds: float = 60.0) -> Job:
    job = store.lease_job("worker-1", kinds=[JobKind.TRAIN], seconds=seconds)
    assert job is not None
    return job


def record(number: int, top1: float = 0.5) -> EpochRecord:
    return EpochRecord(number, "training", {"loss": 1.0 / number, "top1": top1}, {})


def result(recipe: str | None, top1: float = 0.99) -> TrainingResult:
    scores = tuple(
        Evaluation(EvaluationKind.RETRAINED, "top1", top1, data_split=split, seed=7, epochs=3, recipe=recipe)
        for split in ("validation", "test")
    )
    return TrainingResult(STORED, None, scores, ("a note",))


@pytest.fixture
def made(store: Store) -> Study:
    """A study with one trial."""
    found = study(store)
    complete(store, found.id)
    return found


class TestSubmission:
    def test_the_network_and_the_settings_are_resolved(self, store: Store, made: Study) -> None:
        found = store.submit_training(wanted(recipe="small_images", seed=7))
        network = candidate()
        assert (found.source.study_id, found.source.number, found.source.position) == (made.id, 0, 0)
        assert found.source.architecture_id == network.architecture.id
        assert found.source.architecture == network.architecture.to_dict()
        assert (found.recipe, found.epochs, found.seed, found.data) == ("small_images epochs=3", 3, 7, "digits")
        assert found.definition["settings"]["mixup"] == 0.2
        assert found.definition["data"] == made.definition.data.model_dump(mode="json")
        assert found.definition["split_seed"] == made.definition.sweep.seed
        assert (found.state, found.source.returns, found.source.weights) == (TrainingState.QUEUED, True, None)
        job = store.job(str(found.job_id))
        assert (job.kind, job.payload, job.study_id) == (JobKind.TRAIN, {"training": found.id, "number": 0}, made.id)
        assert store.training(found.id[:6]) == found

    def test_an_architecture_leads_to_the_trial_that_found_it(self, store: Store, made: Study) -> None:
        name = candidate().architecture.id
        found = store.submit_training(parse_training({"architecture": name[:12], "start": "weights"}))
        assert (found.source.study_id, found.source.number, found.source.weights) == (made.id, 0, candidate().weights)
        assert found.recipe == "default learning_rate=0.0005,start=weights"
        complete(store, made.id, active=4, top1=0.1)  # dominated, so that nothing else keeps its weights
        store.submit_training(wanted(trial=1, start="weights"))
        assert [row.kept for row in store.stored_weights(made.id)] == ["front", "start of a training"]

    def test_a_package_has_no_study(self, store: Store) -> None:
        found = store.submit_training(parse_training({"package": "mine", "data": {"name": "digits"}}))
        assert (found.source.package, found.source.study_id, found.source.returns) == ("mine", None, False)
        assert (store.job(str(found.job_id)).study_id, found.model) == (None, None)
        job = leased(store)
        store.fenced(job.id, job.epoch).describe_training(found.id, "cd" * 32, candidate().architecture.to_dict())
        assert store.training(found.id).model == "partialnet_micro"

    @pytest.mark.parametrize("changes", [{"trial": 9}, {"study": "nobody"}, {"candidate": "5"}])
    def test_what_does_not_exist(self, store: Store, made: Study, changes: dict[str, Any]) -> None:
        with pytest.raises(NotFoundError):
            store.submit_training(wanted(**changes))
        assert store.jobs(made.id) == []

    def test_settings_without_effect_and_weights_that_were_not_kept(self, store: Store, made: Study) -> None:
        with pytest.raises(DefinitionError, match=r"settings\.test_crop: has no effect"):
            store.submit_training(wanted(settings={"test_crop": 0.9}))
        [spec] = store.add_trials(made.id, [(TrialKind.SEARCH, {})])
        store.start_trial(made.id, spec.number)
        store.end_trial(made.id, spec.number, TrialState.COMPLETE, candidates=[candidate(weights=None)])
        with pytest.raises(ConflictError, match="were not kept; use start 'scratch'"):
            store.submit_training(wanted(trial=spec.number, start="weights"))

    def test_a_key_creates_once(self, store: Store, made: Study) -> None:
        first = store.submit_training(wanted(), key="k")
        assert store.submit_training(wanted(), key="k") == first
        assert store.acting("other").submit_training(wanted(), key="k").id != first.id
        with pytest.raises(ConflictError, match="use a new key"):
            store.submit_training(wanted(seed=1), key="k")
        assert len(store.jobs(made.id)) == 2

    @pytest.mark.usefixtures("made")
    def test_a_token_has_a_limit(self, store: Store) -> None:
        alice = store.acting("alice", searches=1)
        first = alice.submit_training(wanted())
        with pytest.raises(LimitError, match="1 of its trainings wait or run"):
            alice.submit_training(wanted(seed=1))
        store.stop_training(first.id)
        alice.submit_training(wanted(seed=1))
        with pytest.raises(LimitError):
            alice.resume_training(first.id)


class TestLife:
    def test_a_training_follows_its_job(self, store: Store, made: Study) -> None:
        found = store.submit_training(wanted())
        job = leased(store)
        assert store.training(found.id).state is TrainingState.RUNNING
        store.release_job(job.id, job.epoch)
        assert store.training(found.id).state is TrainingState.QUEUED
        job = leased(store)
        store.retry_job(job.id, job.epoch, "killed", pause=0.0)
        again = store.training(found.id)
        assert (again.state, again.reason) == (TrainingState.QUEUED, "killed")
        job = leased(store)
        store.finish_job(job.id, job.epoch, JobState.FAILED, error="no memory")
        failed = store.training(found.id)
        assert (failed.state, failed.reason) == (TrainingState.FAILED, "no memory")
        assert failed.started_at is not None
        assert failed.ended_at is not None
        kinds = [event.kind for event in store.events_after(made.id, 0)]
        assert kinds.count("training") == 7

    @pytest.mark.usefixtures("made")
    def test_stop_and_resume(self, store: Store) -> None:
        found = store.submit_training(wanted())
        job = leased(store)
        asked = store.stop_training(found.id)
        assert (asked.state, asked.stopping) == (TrainingState.RUNNING, True)
        assert asked.version > store.training_page(TrainingQuery())[0][0].version - 1
        assert store.heartbeat(job.id, job.epoch, 60).desired is DesiredState.STOPPED
        store.finish_job(job.id, job.epoch, JobState.CANCELLED)
        stopped = store.training(found.id)
        assert (stopped.state, stopped.stopping, stopped.reason) == (TrainingState.STOPPED, False, "stopped on request")
        resumed = store.resume_training(found.id)
        assert (resumed.state, resumed.ended_at) == (TrainingState.QUEUED, None)
        assert resumed.job_id != found.job_id
        assert store.stop_training(found.id).state is TrainingState.STOPPED

    @pytest.mark.usefixtures("made")
    def test_a_dead_holder_leaves_it_interrupted_and_the_next_one_continues(self, store: Store) -> None:
        found = store.submit_training(wanted())
        leased(store, seconds=-1.0)
        assert store.training(found.id).state is TrainingState.INTERRUPTED
        for states, count in (((TrainingState.RUNNING,), 0), ((TrainingState.INTERRUPTED,), 1)):
            assert len(store.training_page(TrainingQuery(states=states))[0]) == count
        with pytest.raises(ConflictError, match="the next worker continues it by itself"):
            store.resume_training(found.id)
        for _ in range(MAX_ATTEMPTS - 1):
            leased(store, seconds=-1.0)
        assert store.lease_job("worker", kinds=[JobKind.TRAIN], seconds=60) is None
        assert store.training(found.id).state is TrainingState.FAILED

    @pytest.mark.usefixtures("made")
    def test_epochs_are_progress_and_need_the_lease(self, store: Store) -> None:
        found = store.submit_training(wanted())
        leased(store, seconds=-1.0)
        job = leased(store, seconds=-1.0)
        fenced = store.fenced(job.id, job.epoch)
        fenced.record_training_epoch(found.id, record(1, 0.4))
        fenced.record_training_epoch(found.id, record(2, 0.6))
        fenced.record_training_epoch(found.id, record(2, 0.5))  # repeated after an interruption
        assert store.job(job.id).attempt == 1
        again = store.training(found.id)
        assert (again.done, again.best_top1) == (2, 0.6)
        assert store.training_history(found.id) == [record(1, 0.4), record(2, 0.5)]
        leased(store)
        with pytest.raises(StaleLease):
            fenced.record_training_epoch(found.id, record(3))
        with pytest.raises(StaleLease):
            fenced.finish_training(found.id, result(found.recipe), [])

    @pytest.mark.usefixtures("made")
    def test_a_process_of_ones_own_keeps_workers_away(self, store: Store) -> None:
        held = store.submit_training(wanted(), hold=("me", 60.0))
        assert held.state is TrainingState.RUNNING
        assert store.lease_job("worker", kinds=[JobKind.TRAIN], seconds=60) is None
        with pytest.raises(ConflictError, match="another process trains it"):
            store.hold_training(held.id, "you", seconds=60)
        job = store.job(str(held.job_id))
        store.finish_job(job.id, job.epoch, JobState.CANCELLED)
        stopped = store.training(held.id)
        assert (stopped.state, stopped.reason) == (TrainingState.STOPPED, "interrupted by a signal")
        again, mine = store.hold_training(held.id, "me", seconds=60)
        assert (again.state, mine.worker, mine.id != job.id) == (TrainingState.RUNNING, "me", True)

    def test_an_action_that_read_a_former_job_does_not_start_it_twice(
        self, store: Store, made: Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = store.submit_training(wanted())
        store.stop_training(found.id)
        store.resume_training(found.id)
        for action in (lambda: store.hold_training(found.id, "me", seconds=60), lambda: store.stop_training(found.id)):
            # As PostgreSQL answers while the transaction of the resumption is not committed.
            stale = iter([SimpleNamespace(job_id=found.job_id)])
            monkeypatch.setattr(
                "nas.store.trainings.find_training",
                lambda session, ref, stale=stale, **given: next(stale, None) or find_training(session, ref, **given),
            )
            with pytest.raises(ConflictError, match="resumed at the same time"):
                action()
        assert [job.state for job in store.jobs(made.id)] == [JobState.QUEUED, JobState.CANCELLED]
        assert store.training(found.id).state is TrainingState.QUEUED


class TestResult:
    def test_the_score_goes_back_with_its_recipe_and_onto_no_front(self, store: Store, made: Study) -> None:
        before = store.front(made.id, ("top1", "macs"))
        found = store.submit_training(wanted(seed=7))
        job = leased(store)
        fenced = store.fenced(job.id, job.epoch)
        fenced.record_training_epoch(found.id, record(1))
        done = fenced.finish_training(found.id, result(found.recipe), [record(n) for n in (1, 2, 3)])
        assert (done.state, done.result) == (TrainingState.FINISHED, result(found.recipe))
        assert [entry.epoch for entry in store.training_history(found.id)] == [1, 2, 3]
        [network] = store.trial(made.id, 0).candidates
        assert network.trainings == result("default epochs=3").evaluations
        assert network.evaluations == candidate().evaluations
        assert store.front(made.id, ("top1", "macs")) == before
        assert store.holdings(made.id).evaluations == (EvaluationKind.INHERITED, EvaluationKind.FINETUNED)
        # A process that died between both is no second result.
        assert fenced.finish_training(found.id, result(found.recipe, 0.1), []) == done
        # Nor does a request to stop that came at the end change that it has finished.
        assert store.finish_job(job.id, job.epoch, JobState.CANCELLED).state is JobState.FINISHED
        assert store.training(found.id).state is TrainingState.FINISHED
        assert len(store.trial(made.id, 0).candidates[0].trainings) == 2

    @pytest.mark.parametrize(
        ("name", "changes", "returns"),
        [("alice", {}, False), ("owner", {}, True), ("owner", {"data": {"name": "cifar10"}}, False)],
    )
    def test_only_to_ones_own_study_on_its_own_data(
        self, store: Store, name: str, changes: dict[str, Any], returns: bool
    ) -> None:
        mine = study(store.acting("owner"))
        complete(store, mine.id)
        found = store.acting(name).submit_training(wanted(**changes))
        assert (found.source.returns, found.created_by) == (returns, name)
        assert store.acting("root", admin=True).submit_training(wanted()).source.returns
        job = leased(store)
        store.fenced(job.id, job.epoch).finish_training(found.id, result(found.recipe), [])
        assert bool(store.trial(mine.id, 0).candidates[0].trainings) is returns

    def test_it_outlives_its_study(self, store: Store, made: Study) -> None:
        found = store.submit_training(wanted())
        with pytest.raises(ConflictError, match="train"):
            store.delete_study(made.id, "digits")
        store.stop_training(found.id)
        before = store.training_version(found.id), store.trainings_version()
        store.delete_study(made.id, "digits")
        after = store.training_version(found.id), store.trainings_version()
        assert all(old != new for old, new in zip(before, after, strict=True))
        left = store.training(found.id)
        assert (left.source.study_id, left.source.text) == (None, "digits trial 0")
        resumed = store.resume_training(found.id)
        job = leased(store)
        assert (job.id, job.study_id) == (resumed.job_id, None)
        done = store.fenced(job.id, job.epoch).finish_training(found.id, result(found.recipe), [record(1)])
        assert done.state is TrainingState.FINISHED
        store.finish_job(job.id, job.epoch, JobState.FINISHED)
        assert store.delete_training(found.id).id == found.id
        with pytest.raises(NotFoundError):
            store.training(found.id)


def test_pages_hold_each_once_and_filters_choose(store: Store, made: Study) -> None:
    ids = [store.submit_training(wanted(seed=seed)).id for seed in range(5)]
    found, after = store.training_page(TrainingQuery(2))
    while after is not None:
        more, after = store.training_page(TrainingQuery(2, after))
        found += more
    assert [entry.id for entry in found] == ids[::-1]
    store.stop_training(ids[0])

    def chosen(**query: Any) -> list[Training]:
        return store.training_page(TrainingQuery(**query))[0]

    assert [entry.id for entry in chosen(states=(TrainingState.STOPPED,))] == ids[:1]
    assert len(chosen(study_id=made.id, number=0, recipe="default epochs=3")) == 5
    assert chosen(study_id="other") == chosen(number=1) == chosen(architecture="00") == []
    assert store.training_tallies() == {("queued",): 4, ("stopped",): 1}
    before = store.trainings_version()
    store.delete_training(ids[0])
    assert store.trainings_version() != before


def test_each_state_allows_what_the_table_says() -> None:
    assert set(TABLE) == set(TrainingState)
    for state, row in TABLE.items():
        assert set(row) == set(TrainingAction)
        assert allows(state, TrainingAction.DELETE) is state.ended
        assert allows(state, TrainingAction.STOP) is not state.ended
        for step in row.values():
            assert isinstance(step, TrainingStep) or step
