"""Recording never raises into Ray: it is retried, queued, reported; and a trial ends once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from nas.errors import ConflictError, NotFoundError, StaleLease, StoreError
from nas.store import Store
from nas.sweep.progress import EpochDone, Tick, TrialEnded, TrialStarted, Warned
from nas.sweep.ray_words import Outcome, to_ray_config, to_ray_result
from nas.sweep.recording import StudyRecorder, Writer
from nas.trial import EpochRecord, TrialKind, TrialState
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


@pytest.mark.parametrize("error", [StaleLease("gone to another worker"), NotFoundError("there is no study")])
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


def ray_trial(spec, error: Exception | None = None):
    return SimpleNamespace(config=to_ray_config(spec), get_error=lambda: error)


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
        (lambda r, t: r.on_trial_result(trial=t, result=to_ray_result("it diverged")), "it diverged"),
        (lambda r, t: r.on_trial_complete(trial=t), "without a result"),
        (lambda r, t: r.on_trial_error(trial=t), "process died: worker was\\s+killed"),
        (lambda r, t: r.on_trial_result(trial=t, result={"nas_outcome": "{"}), "cannot be read"),
    ],
)
def test_whatever_goes_wrong_is_the_reason_of_a_failed_trial(store, watched, end, reason) -> None:
    study, recorder, _ = watched
    spec = recorder.register({"target": 4.0})
    trial = ray_trial(spec, RuntimeError("worker was\n killed"))
    recorder.on_trial_start(trial=trial)
    end(recorder, trial)
    recorder.on_trial_error(trial=trial)  # changes nothing any more
    failed = store.trial(study.id, spec.number)
    assert failed.state is TrialState.FAILED
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(failed.reason)


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
