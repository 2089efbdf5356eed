"""Recording never raises into Ray: it is retried, queued, reported; and a trial ends once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from ray import cloudpickle
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError

from nas.errors import ConflictError, MemoryExhausted, NotFoundError, StaleLease, StoreError, StoreLost
from nas.store import Store
from nas.sweep.breaker import EQUAL_FAILURES, Failure, Scope
from nas.sweep.deaths import MAX_DEATHS
from nas.sweep.progress import EpochDone, Tick, TrialEnded, TrialStarted, Warned
from nas.sweep.ray_words import Outcome, to_ray_config, to_ray_result
from nas.sweep.recording import StudyRecorder, Writer
from nas.trial import EpochRecord, Trial, TrialKind, TrialState
from tests.nas.strategies import make_candidate, make_definition


class Flaky:
    """An action that fails a few times first."""

    def __init__(self, error: Exception, times: int, done: list[str], name: str = "a") -> None:
        self.error, self.times, self.done, self.name = error, times, done, name

    def __call__(self) -> None:
        if self.times:
            self.times -= 1
            raise self.error
        self.done.append(self.name)


def test_a_failed_write_is_kept_in_order_and_done_later() -> None:
    warnings: list[str] = []
    done: list[str] = []
    writer = Writer(warnings.append)
    writer.write("first", Flaky(StoreError("disk full"), 1, done, "first"))
    writer.write("second", Flaky(StoreError("-"), 0, done, "second"))
    assert done == []
    assert not writer.flush()  # it waits for its next turn
    assert writer.flush(now=True)
    assert done == ["first", "second"]
    assert len(warnings) == 1
    assert warnings[0].startswith("first: disk full")


def test_what_the_present_state_refuses_is_reported_and_left_out() -> None:
    warnings: list[str] = []
    done: list[str] = []
    writer = Writer(warnings.append)
    writer.write("first", Flaky(ConflictError("it has ended"), 1, done))
    writer.write("second", Flaky(StoreError("-"), 0, done, "second"))
    assert done == ["second"]
    assert warnings == ["first: it has ended"]
    assert not writer.hopeless


@pytest.mark.parametrize(
    "error", [StaleLease("gone to another worker"), StoreLost("it was deleted"), NotFoundError("there is no study")]
)
def test_a_lost_study_ends_the_search(error) -> None:
    done: list[str] = []
    writer = Writer(lambda _: None)
    writer.write("first", Flaky(error, 1, done))
    writer.write("second", Flaky(error, 0, done))
    assert writer.hopeless
    assert done == []
    with pytest.raises(type(error), match=str(error)):
        writer.drain(0)


def test_a_store_that_fails_for_too_long_ends_the_search() -> None:
    writer = Writer(lambda _: None, patience=0.0)
    writer.write("first", Flaky(StoreError("no such host"), 99, []))
    assert writer.hopeless
    with pytest.raises(StoreError, match="1 writes of this search failed, the last one with: no such host"):
        writer.drain(0)


def test_draining_waits_for_a_store_that_comes_back() -> None:
    done: list[str] = []
    writer = Writer(lambda _: None)
    writer.write("first", Flaky(StoreError("locked"), 2, done))
    writer.drain(10)
    assert done == ["a"]


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        yield store


@pytest.fixture
def watched(store):
    study = store.create_study(make_definition(), reference_point={"top1": 0.0, "macs": 1e6})
    events = []
    recorder = StudyRecorder(store, study.id, events.append)
    recorder.expect(total=2, ended=0)
    return study, recorder, events


def ray_trial(spec, error: Exception | None = None, text: Path | None = None):
    """Stand for Ray's trial, which keeps its error in files."""
    if error is None or text is None:
        return SimpleNamespace(config=to_ray_config(spec), pickled_error_file=None, error_file=None)
    text.write_text(str(error))
    pickled = text.with_suffix(".pkl")
    pickled.write_bytes(cloudpickle.dumps(error))
    return SimpleNamespace(config=to_ray_config(spec), pickled_error_file=str(pickled), error_file=str(text))


def own_error(error: Exception) -> RayTaskError:
    return RayTaskError("train", "a traceback", error)


def test_a_trial_is_recorded_from_its_proposal_to_its_end(store, watched) -> None:
    study, recorder, events = watched
    spec = recorder.register({"target": 4.0})
    trial = ray_trial(spec)
    record = EpochRecord(1, "warmup", {"loss": 2.0}, {"a": 4})
    recorder.on_trial_start(iteration=0, trials=[], trial=trial)
    recorder.on_trial_result(iteration=0, trials=[], trial=trial, result=to_ray_result(record))
    running = store.trial(study.id, spec.number)
    candidate = make_candidate(0.9, 100.0)
    outcome = to_ray_result(Outcome((candidate,)))
    recorder.on_trial_result(iteration=0, trials=[], trial=trial, result=outcome)
    recorder.on_trial_complete(iteration=0, trials=[], trial=trial)
    ended = store.trial(study.id, spec.number)
    assert (running.state, running.history) == (TrialState.RUNNING, (record,))
    assert (ended.state, ended.reason) == (TrialState.COMPLETE, None)
    assert ended.candidates[0].evaluations == candidate.evaluations
    assert [type(e) for e in events] == [
        TrialStarted, EpochDone, TrialEnded,
    ]
    assert (events[-1].ended, events[-1].total) == (1, 2)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda r, t: r.on_trial_result(trial=t, result=to_ray_result(Failure("it diverged"))), "it diverged"),
        (lambda r, t: r.on_trial_complete(trial=t), "without a result"),
        (lambda r, t: r.on_trial_error(trial=t), "ValueError: of its own"),
        (lambda r, t: r.on_trial_result(trial=t, result={"nas_outcome": "{"}), "cannot be read"),
    ],
)
def test_whatever_goes_wrong_is_the_reason_of_a_failed_trial(store, watched, end, reason, tmp_path) -> None:
    study, recorder, _ = watched
    spec = recorder.register({"target": 4.0})
    trial = ray_trial(spec, own_error(ValueError("of its own")), tmp_path / "error.txt")
    recorder.on_trial_start(trial=trial)
    end(recorder, trial)
    recorder.on_trial_error(trial=trial)  # changes nothing any more
    failed = store.trial(study.id, spec.number)
    assert failed.state is TrialState.FAILED
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(failed.reason)


@pytest.fixture
def broken_off(store, tmp_path):
    """A recorder with a running trial, and what it said of trials that broke off."""
    study = store.create_study(make_definition(), reference_point={})
    told: list[bool] = []
    recorder = StudyRecorder(store, study.id, None, broke_off=lambda _spec, again: told.append(again))
    spec = recorder.register({"target": 4.0})

    def die(error: Exception, epochs: int = 0) -> Trial:
        trial = ray_trial(spec, error, tmp_path / "error.txt")
        recorder.on_trial_start(trial=trial)
        for number in range(1, epochs + 1):
            record = EpochRecord(number, "warmup", {"loss": 2.0}, {})
            recorder.on_trial_result(trial=trial, result=to_ray_result(record))
        recorder.on_trial_error(trial=trial)
        return store.trial(study.id, spec.number)

    return die, told


def test_what_was_done_to_a_trial_is_undone_as_long_as_it_gets_on(broken_off) -> None:
    die, told = broken_off
    for epochs in range(1, 2 * MAX_DEATHS):
        found = die(ActorDiedError(), epochs)
        assert (found.state, len(found.history)) == (TrialState.QUEUED, epochs)
    for _ in range(MAX_DEATHS - 2):
        assert die(ActorDiedError(), 1).state is TrialState.QUEUED
    found = die(ActorDiedError(), 1)
    assert found.state is TrialState.FAILED
    assert f"it died {MAX_DEATHS} times without an epoch between" in found.reason
    assert told == [True] * (len(told) - 1) + [False]


def test_what_a_trial_raised_is_not_tried_again(broken_off) -> None:
    die, told = broken_off
    found = die(own_error(KeyError("stages.0")))
    assert (found.state, found.reason, told) == (TrialState.FAILED, "KeyError: 'stages.0'", [False])


@pytest.mark.parametrize(
    "error", [own_error(MemoryExhausted("the GPU has no memory left")), OutOfMemoryError("node running low on memory")]
)
def test_a_lack_of_memory_is_tried_twice(broken_off, error) -> None:
    die, told = broken_off
    assert die(error).state is TrialState.QUEUED
    found = die(error)
    assert (found.state, "memory" in found.reason, told) == (TrialState.FAILED, True, [True, False])


def test_a_trial_that_has_said_all_does_not_come_back(store, broken_off) -> None:
    """Its process may die after the outcome, or may have raised after it had reported why."""
    die, told = broken_off
    assert die(ActorDiedError(), 1).state is TrialState.QUEUED
    [study] = store.studies()
    trial = ray_trial(store.trial(study.study.id, 0).spec, ActorDiedError())
    recorder = StudyRecorder(store, study.study.id, None, broke_off=lambda _spec, again: told.append(again))
    recorder.on_trial_start(trial=trial)
    recorder.on_trial_result(trial=trial, result=to_ray_result(Outcome((make_candidate(0.9, 100.0),))))
    recorder.on_trial_error(trial=trial)
    assert store.trial(study.study.id, 0).state is TrialState.COMPLETE
    assert told == [True, False]


def test_a_proposal_waits_for_a_store_that_fails(store, watched, monkeypatch) -> None:
    study, recorder, events = watched
    with monkeypatch.context() as broken:
        broken.setattr(store, "add_trials", Flaky(StoreError("database is locked"), 99, []))
        assert recorder.register({"target": 4.0}) is None
        assert recorder.register({"target": 4.0}) is None
    recorder.writer.drain(10)
    spec = recorder.register({"target": 4.0})
    assert spec == store.trial(study.id, 0).spec
    assert (spec.kind, len(store.trials(study.id))) == (TrialKind.SEARCH, 1)
    assert Warned in [type(event) for event in events]


def test_a_display_that_fails_costs_no_search(store) -> None:
    def broken(event) -> None:
        raise OSError("broken pipe")

    study = store.create_study(make_definition(), reference_point={})
    recorder = StudyRecorder(store, study.id, broken)
    recorder.emit(Tick())
    assert recorder.register({"target": 2.0}) is not None


def started(store, study, count: int) -> list:
    specs = store.add_trials(study.id, [(TrialKind.SEARCH, {"target": 4.0})] * count)
    for spec in specs:
        store.start_trial(study.id, spec.number)
    return specs


def report(recorder: StudyRecorder, spec, failure: Failure) -> None:
    """Report a failure as Ray does: a result, then the end of the trial."""
    recorder.on_trial_result(trial=ray_trial(spec), result=to_ray_result(failure))
    recorder.on_trial_complete(trial=ray_trial(spec))


def states(store, study) -> list[TrialState]:
    return [trial.state for trial in store.trials(study.id)]


def test_a_common_fault_is_no_trials_failure(store, watched) -> None:
    study, recorder, events = watched
    (spec,) = started(store, study, 1)
    report(recorder, spec, Failure("no room", Scope.COMMON))
    assert recorder.fault == "no room"
    assert states(store, study) == [TrialState.QUEUED]
    assert not [event for event in events if isinstance(event, TrialEnded)]


def test_equal_failures_in_a_row_are_one_fault_and_run_again(store, watched) -> None:
    study, recorder, _ = watched
    specs = started(store, study, EQUAL_FAILURES)
    for spec in specs[:-1]:
        report(recorder, spec, Failure(f"the GPU fell off the bus at step {spec.number}"))
        assert recorder.fault is None
    assert states(store, study)[:-1] == [TrialState.FAILED] * (EQUAL_FAILURES - 1)
    report(recorder, specs[-1], Failure("the GPU fell off the bus at step 77"))
    assert recorder.fault == f"the GPU fell off the bus at step 77 ({EQUAL_FAILURES} trials in a row)"
    assert states(store, study) == [TrialState.QUEUED] * EQUAL_FAILURES


def test_failures_of_their_own_never_pause_a_study(store, watched) -> None:
    study, recorder, _ = watched
    for spec in started(store, study, 2 * EQUAL_FAILURES):
        report(recorder, spec, Failure("it diverged", Scope.OWN))
    assert recorder.fault is None
    assert states(store, study) == [TrialState.FAILED] * (2 * EQUAL_FAILURES)


def test_a_checkpoint_is_kept_while_its_trial_may_run_again(store) -> None:
    study = store.create_study(make_definition(), reference_point={"top1": 0.0, "macs": 1e6})
    discarded: list[int] = []
    recorder = StudyRecorder(store, study.id, None, discarded.append)
    specs = started(store, study, 3)
    report(recorder, specs[0], Failure("the GPU fell off the bus"))
    report(recorder, specs[1], Failure("it diverged", Scope.OWN))
    report(recorder, specs[2], Failure("no room", Scope.COMMON))
    assert discarded == [1]
