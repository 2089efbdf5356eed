"""Successive halving: who is kept, the same answer again, recorded with the epoch, and a search that uses it."""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import moocore
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import TrialScheduler

from nas.definition.space import Parameters
from nas.definition.study import parse_study
from nas.findings.pareto import pareto_points
from nas.formatting import format_number
from nas.metrics import Direction
from nas.store import Store
from nas.study import StudyState
from nas.sweep.early_stopping import EarlyStopper, RungScheduler, best_of, compared_metrics
from nas.sweep.progress import EpochDone, TrialEnded
from nas.sweep.ray_words import to_ray_config, to_ray_result
from nas.sweep.recording import StudyRecorder
from nas.sweep.search import run_search
from nas.trial import EpochRecord, Fidelity, TrialKind, TrialSpec, TrialState
from tests.nas.strategies import make_definition
from tests.nas.sweep.test_search import Bench, bench
from tests.samples import examples

__all__ = ["bench"]

UP, DOWN = Direction.MAXIMIZE, Direction.MINIMIZE
scores = st.integers(0, 6).map(float)
pairs = st.lists(st.tuples(scores, scores), min_size=1, max_size=12)


def definition(**changes):
    return make_definition(sweep={"trials": 8, "early_stopping": {"min_epochs": 2, **changes}})


def search(number: int) -> TrialSpec:
    parameters = {"target": 4.0, "penalty": 1.0, "complexity_exponent": 1.0}
    return TrialSpec(number, TrialKind.SEARCH, parameters, number)


def record(epoch: int, top1: float, target: float = 1e6, loss: float = 1.0) -> EpochRecord:
    return EpochRecord(epoch, "gates", {"top1": top1, "validation_loss": loss, "target": target}, {})


def macs(_parameters: Parameters, record: EpochRecord) -> dict[str, float]:
    return {"macs": record.metrics["target"]}


@given(pairs, st.integers(2, 4))
def test_as_many_are_kept_as_the_factor_allows(points, factor) -> None:
    kept = best_of(points, (UP, DOWN), factor)
    assert len(set(kept)) == len(kept) == -(-len(points) // factor)


@given(pairs, st.integers(2, 4))
def test_a_layer_goes_before_the_next(points, factor) -> None:
    """Whoever is kept is in no later layer of the non-dominated sorting than whoever is not."""
    ranks = layers(points)
    kept = best_of(points, (UP, DOWN), factor)
    last = max(ranks[place] for place in kept)
    assert all(ranks[place] >= last for place in range(len(points)) if place not in kept)


def layers(points) -> list[int]:
    """Sort by brute force: the layer of a point is one more than the last of those that dominate it."""

    def above(p):
        return [q for q in points if q[0] >= p[0] and q[1] <= p[1] and q != p]

    def layer(p) -> int:
        return 1 + max((layer(q) for q in above(p)), default=-1)

    return [layer(p) for p in points]


@given(st.lists(scores, min_size=1, max_size=12), st.sampled_from([UP, DOWN]), st.integers(2, 4))
def test_one_metric_is_a_plain_ranking(values, direction, factor) -> None:
    """Of equal trials, those that came first stay."""
    ranked = sorted(range(len(values)), key=lambda place: -values[place] if direction is UP else values[place])
    kept = best_of([(value,) for value in values], (direction,), factor)
    assert sorted(kept) == sorted(ranked[: -(-len(values) // factor)])


@given(st.lists(st.floats(0.05, 0.95), min_size=3, max_size=6, unique=True))
@settings(max_examples=examples(40))
def test_ties_go_by_the_hypervolume_that_would_be_lost(shares) -> None:
    """Of a layer, the trial that is left out first is the one without which the most volume remains."""
    layer = [(0.0, 0.0), *((share, share) for share in sorted(shares)), (1.0, 1.0)]  # quality up, cost up
    costs = np.asarray(layer) * [-1, 1] + [1, 0]
    volumes = [moocore.hypervolume(np.delete(costs, place, 0), ref=[1.1, 1.1]) for place in range(len(layer))]
    assume(sorted(volumes)[-1] - sorted(volumes)[-2] > 1e-9)
    dominated = [(-1.0, 5.0 + place) for place in range(len(layer) - 2)]  # as many as leave one place too few
    kept = best_of([*layer, *dominated], (UP, DOWN), 2)
    assert set(range(len(layer))) - set(kept) == {int(np.argmax(volumes))}


def test_the_first_at_a_rung_goes_on_and_equal_trials_do_not_all() -> None:
    assert best_of([(0.1, 9.0)], (UP, DOWN), 4) == [0]
    assert best_of([(0.1, 9.0)] * 4, (UP, DOWN), 2) == [0, 1]


@pytest.mark.parametrize(
    ("early", "objectives", "expected"),
    [
        ({"method": "asha"}, ("top1", "macs"), ("top1",)),
        ({"method": "asha"}, ("macs", "top5"), ("top5",)),
        ({"method": "asha", "metric": "loss"}, ("top1", "macs"), ("loss",)),
        ({}, ("top1", "macs"), ("top1", "macs")),
        ({}, ("macs", "loss", "params"), ("macs", "loss", "params")),
    ],
)
def test_what_trials_are_compared_by(early, objectives, expected) -> None:
    assert compared_metrics(make_definition(sweep={"early_stopping": early}, objectives=objectives)) == expected


def test_only_search_trials_at_a_rung_are_decided_on() -> None:
    stopper = EarlyStopper(definition(method="asha"))
    assert stopper.decide(search(0), record(1, 0.9)) is None
    assert stopper.decide(search(0), record(3, 0.9)) is None
    assert stopper.decide(search(0), record(2, 0.9)).kept
    baseline = TrialSpec(1, TrialKind.BASELINE, {"ratio": 0.25}, 1)
    assert stopper.decide(baseline, record(2, 0.1)) is None
    assert stopper.decide(search(2), EpochRecord(2, "odd", {"loss": 1.0}, {})) is None
    off = EarlyStopper(make_definition())
    assert off.decide(search(0), record(2, 0.9)) is None


def test_loss_is_that_of_validation_images() -> None:
    stopper = EarlyStopper(definition(method="asha", metric="loss"))
    assert stopper.decide(search(0), record(2, 0.9, loss=0.25)).scores == (0.25,)


def test_a_trial_whose_cost_is_unknown_continues_undecided() -> None:
    def broken(_parameters: Parameters, _record: EpochRecord) -> dict[str, float]:
        raise ArithmeticError("no such layer")

    for costs in (broken, lambda _parameters, _record: {}):
        assert EarlyStopper(definition(), costs=costs).decide(search(0), record(2, 0.9)) is None


def test_the_same_question_gets_the_same_answer() -> None:
    stopper = EarlyStopper(definition(method="asha"))
    first = stopper.decide(search(0), record(2, 0.5))
    for number in range(1, 6):
        stopper.decide(search(number), record(2, 0.9))
    assert stopper.decide(search(0), record(2, 0.5)) is first
    assert first.kept


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(1, 1e6)), min_size=2, max_size=12), st.data())
@settings(max_examples=examples(50))
def test_decisions_after_an_interruption_are_those_without_it(points, data) -> None:
    """The tables hold the rungs so far; also a trial that repeats its epochs meets the decision of before."""
    cut = data.draw(st.integers(0, len(points)))
    whole = EarlyStopper(definition(), costs=macs)
    decided = [whole.decide(search(n), record(2, *point)) for n, point in enumerate(points)]
    resumed = EarlyStopper(definition(), decided[:cut], macs)
    repeated = range(max(0, cut - 1), len(points))
    assert [resumed.decide(search(n), record(2, *points[n])) for n in repeated] == decided[repeated.start :]


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        yield store


def test_ray_is_told_and_the_tables_hold_the_decision_with_the_epoch(store) -> None:
    study = store.create_study(definition(method="asha"), reference_point={})
    specs = store.add_trials(study.id, [(TrialKind.SEARCH, search(0).parameters)] * 2)
    stopper = EarlyStopper(study.definition)
    events, gone = [], []
    recorder = StudyRecorder(store, study.id, events.append, gone.append, stopper=stopper)
    scheduler = RungScheduler(stopper)
    said = []
    for spec, top1 in zip(specs, (0.9, 0.1), strict=True):
        trial = SimpleNamespace(config=to_ray_config(spec))
        recorder.on_trial_start(trial)
        for epoch in (1, 2):
            report = to_ray_result(record(epoch, top1))
            said.append(scheduler.on_trial_result(None, trial, report))
            recorder.on_trial_result(trial, report)
    recorder.on_trial_complete(trial)  # Ray's word that a stopped trial is over
    go, stop = TrialScheduler.CONTINUE, TrialScheduler.STOP
    assert said == [go, go, go, stop]
    first, second = store.trials(study.id, history=True)
    assert (first.state, first.fidelity) == (TrialState.RUNNING, None)
    assert (second.state, second.fidelity, second.candidates) == (TrialState.PRUNED, Fidelity(2, 30), ())
    assert second.reason.startswith("stopped early at epoch 2")
    assert [entry.epoch for entry in second.history] == [1, 2]
    assert [(r.number, r.epoch, r.scores, r.kept) for r in store.rungs(study.id)] == [
        (0, 2, (0.9,), True),
        (1, 2, (0.1,), False),
    ]
    assert gone == [1]  # its checkpoint
    assert [event.state for event in events if isinstance(event, TrialEnded)] == [TrialState.PRUNED]


def test_an_unreadable_report_lets_the_trial_go_on() -> None:
    scheduler = RungScheduler(EarlyStopper(definition()))
    trial = SimpleNamespace(config=to_ray_config(search(0)))
    assert scheduler.on_trial_result(None, trial, {"nas_epoch": "{"}) == TrialScheduler.CONTINUE


def halving(**changes):
    """A study of 4 trials, one after another, of 3 epochs each; rungs after epochs 1 and 2."""
    base = {
        "name": "halving",
        "data": {"name": "digits", "train_limit": 200, "augment": "none"},
        "model": {"name": "micro", "patch_size": 2, "merge_strides": [2, 1, 1], "depths": [1, 1, 1, 1]},
        "training": {"epochs": 2, "finetune_epochs": 1, "batch_size": 64},
        "sweep": {"trials": 4, "concurrent": 1, "early_stopping": {"min_epochs": 1}},
        "baselines": [],
        "latency": None,
        "final": {"candidates": 0},
    }
    return parse_study({**base, **changes})


def shown(bench: Bench, study_id: str) -> list:
    """Return what a search decided and found, without times, weights and what the clock says."""
    return [
        (
            trial.state,
            dict(trial.parameters),
            trial.fidelity,
            trial.reason,
            [(entry.epoch, entry.metrics["top1"]) for entry in trial.history],
            [replace(candidate, weights=None) for candidate in trial.candidates],
        )
        for trial in bench.store.trials(study_id, history=True)
    ]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_search_stops_trials_early_and_an_interruption_changes_nothing(bench, ray_here) -> None:
    whole, broken = bench.create(halving()), bench.create(halving())
    ended = bench.search(whole)
    trials = bench.store.trials(whole.id)
    counts = Counter(trial.state for trial in trials)
    assert (ended.state, counts.total()) == (StudyState.FINISHED, 4)
    assert set(counts) == {TrialState.COMPLETE, TrialState.PRUNED}
    stopped = [trial for trial in trials if trial.state is TrialState.PRUNED]
    assert {trial.fidelity.epochs for trial in stopped} <= {1, 2}
    assert {trial.fidelity.budget for trial in stopped} == {3}
    front = pareto_points(trials, ("top1", "macs"))
    assert {point.number for point in front}.isdisjoint(trial.number for trial in stopped)
    trained = sum(trial.fidelity.epochs for trial in stopped)
    said = f"Early stopping ended {format_number(len(stopped), 'trial')} after {trained} of {3 * len(stopped)} epochs"
    assert any(said in sentence for sentence in ended.report)
    folder = bench.folder / "storage" / "studies" / whole.id / "checkpoints"
    assert not list(folder.glob("*")) if folder.exists() else True

    def stop_at_the_first_rung_that_stops(event) -> None:
        if isinstance(event, EpochDone) and (event.number, event.record.epoch) == (stopped[0].number, 1):
            signal.raise_signal(signal.SIGTERM)

    first = run_search(bench.store, broken.id, bench.settings, progress=stop_at_the_first_rung_that_stops)
    assert first.state is StudyState.PAUSED
    assert bench.search(broken).state is StudyState.FINISHED
    assert shown(bench, broken.id) == shown(bench, whole.id)
    assert [replace(r, number=0) for r in bench.store.rungs(broken.id)] == [
        replace(r, number=0) for r in bench.store.rungs(whole.id)
    ]
