"""Expected costs of a running search against the costs of whole networks."""

from __future__ import annotations

import pytest

from nas.probes.counted import probe_counts
from nas.training.build import build_split, build_uniform
from nas.training.expected_cost import ExpectedCosts
from nas.trial import EpochRecord
from tests.nas.tiny import tiny
from tests.samples import sampled

METRICS = ("macs", "conv_macs", "params_inference")


def record(phase: str, active_channels=None, target: float = 0.0) -> EpochRecord:
    return EpochRecord(1, phase, {"target": target}, active_channels or {})


def counts(network) -> dict[str, float]:
    found = {m.metric: m.value for m in probe_counts(network, tiny().data.input_shape)}
    return {name: found[name] for name in METRICS}


def test_a_split_costs_what_its_network_costs() -> None:
    network = build_split(tiny(), 10, [2, 4, 16, 8])
    expected, wanted = ExpectedCosts(tiny(), 10, METRICS), counts(network)
    for phase in ("gates", "frozen", "finetune", "fractional"):
        assert expected(record(phase, network.architecture().active_channels)) == wanted, phase


@pytest.mark.parametrize(("ratio", "budget"), sampled([1 / 4, 1 / 2, 1], [("macs", "conv"), ("params", "network")]))
def test_before_a_split_is_chosen_it_is_that_of_the_uniform_ratio(ratio, budget) -> None:
    unit, scope = budget
    cost = {("macs", "conv"): "conv_macs", ("params", "network"): "params_inference"}[budget]
    target = 4.0 if scope == "conv" else 20_000.0
    study = tiny(budget={"unit": unit, "scope": scope}, space={"target": target, "penalty": 0.9})
    wanted = counts(build_uniform(study, 10, ratio))
    expected = ExpectedCosts(study, 10, METRICS)(record("uniform", target=wanted[cost]))
    assert expected == pytest.approx(wanted)


def test_a_metric_without_a_table_has_the_multiply_adds() -> None:
    network = build_split(tiny(), 10, [2, 4, 16, 8])
    expected = ExpectedCosts(tiny(), 10, ("activations",))(record("gates", network.architecture().active_channels))
    assert expected == {"activations": counts(network)["macs"]}


def test_a_trial_of_another_shape_costs_what_its_network_does() -> None:
    study = tiny(space={"target": 4.0, "width": [1, 1.5]})
    expected = ExpectedCosts(study, 10, METRICS)
    wide = expected.of_shape({"target": 4.0, "width": 1.5})
    assert wide is expected.of_shape({"target": 3.0, "width": 1.5})
    assert expected.of_shape({"target": 4.0, "width": 1}) is expected
    network = build_split(study.shaped({"width": 1.5}), 10, [3, 6, 24, 12])
    assert wide(record("gates", network.architecture().active_channels)) == counts(network)
