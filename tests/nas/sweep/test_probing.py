"""Latency is measured once for each network and circumstance, of what is worth it."""

from __future__ import annotations

import pytest

from nas.metrics import Measurement
from nas.probes.latency import latency_fingerprint
from nas.store import Store
from nas.sweep.probing import probe_latencies, probed_trials
from nas.training.build import build_uniform
from nas.trial import TrialKind, TrialState
from tests.nas.strategies import make_definition, make_trial


def baseline(number: int, scores, ratio: float = 0.25):
    return make_trial(number, scores, kind=TrialKind.BASELINE, parameters={"ratio": ratio})


def test_front_and_baselines_are_probed() -> None:
    trials = [baseline(0, (0.5, 900.0)), make_trial(1, (0.9, 100.0)), make_trial(2, (0.8, 200.0)), make_trial(3)]
    assert [trial.number for trial in probed_trials(trials, make_definition())] == [0, 1]


def test_the_best_learned_networks_are_probed_behind_a_baseline_too() -> None:
    trials = [baseline(0, (0.9, 100.0)), make_trial(1, (0.8, 200.0)), make_trial(2, (0.7, 300.0))]
    milliseconds = make_definition(budget={"unit": "latency", "target": 5}, objectives=["top1", "macs"])
    assert [trial.number for trial in probed_trials(trials, milliseconds)] == [0, 1]
    assert [trial.number for trial in probed_trials(trials, make_definition())] == [0]


@pytest.fixture
def stored(tmp_path):
    from nas.training.build import build_network

    definition = make_definition(
        model={"name": "micro", "patch_size": 1, "merge_strides": [2, 1, 1]},
        latency={"n": 10, "warmup": 1, "interval": 1.0},
    )
    network = build_network(definition, 10).architecture()
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        made = store.create_study(definition, reference_point={})
        for number, trial in enumerate([baseline(0, (0.5, 1.0), 1 / 4), make_trial(1, (0.4, 2.0))]):
            store.add_trials(made.id, [(trial.kind, trial.parameters)])
            store.start_trial(made.id, number)
            [candidate] = make_trial(number, (0.5, 1.0), architecture=network).candidates
            store.end_trial(made.id, number, TrialState.COMPLETE, candidates=[candidate])
        yield store, made


def test_each_network_is_probed_once(stored) -> None:
    store, made = stored
    told = []
    for _ in range(2):
        probe_latencies(store, made, store.trials(made.id), lambda text: told.append(text) or True)
    measured = [m for m in store.trial(made.id, 0).candidates[0].measurements if m.metric == "latency_ms"]
    assert told == ["measuring latency, network 1 of 1"]
    assert len(measured) == 1
    assert measured[0].value > 0
    assert 10 <= measured[0].figures["n"] + measured[0].figures["held"] < 100


def test_a_latency_under_other_circumstances_does_not_count(stored) -> None:
    store, made = stored
    candidate = store.trial(made.id, 0).candidates[0]
    shape = made.definition.data.input_shape
    elsewhere = Measurement("latency_ms", 9.0, {}, "torch/cpu/t64/b1/1x8x8/another machine")
    store.add_measurements(candidate.architecture.id, [elsewhere], input_shape=shape)
    told = []
    probe_latencies(store, made, store.trials(made.id), lambda text: told.append(text) or True)
    assert told == ["measuring latency, network 1 of 1"]
    names = {m.fingerprint for m in store.trial(made.id, 0).candidates[0].measurements if m.metric == "latency_ms"}
    assert len(names) == 2


def test_probing_stops_when_told_to(stored) -> None:
    store, made = stored
    probe_latencies(store, made, store.trials(made.id), lambda _: False)
    assert store.trial(made.id, 0).candidates[0].score("latency_ms") is None


def test_all_latencies_of_a_study_refer_to_one_time_of_the_reference(stored) -> None:
    store, made = stored
    shape = made.definition.data.input_shape
    spec = made.definition.latency
    candidate = store.trial(made.id, 0).candidates[0]
    earlier = Measurement("latency_ms", 9.0, {"usual_reference_ms": 1000.0}, latency_fingerprint(spec, shape))
    other = make_trial(0, (0.9, 1.0), architecture=build_uniform(made.definition, 10, 1 / 2).architecture())
    store.add_trials(made.id, [(other.kind, other.parameters)])
    store.start_trial(made.id, 2)
    store.end_trial(made.id, 2, TrialState.COMPLETE, candidates=other.candidates)
    store.add_measurements(candidate.architecture.id, [earlier], input_shape=shape)
    probe_latencies(store, made, store.trials(made.id), lambda _: True)
    [new] = [m for m in store.trial(made.id, 2).candidates[0].measurements if m.metric == "latency_ms"]
    assert new.figures["usual_reference_ms"] == 1000.0
    assert new.value == pytest.approx(1000.0 * new.figures["ratio"])
