"""What a definition says of its proposals: constraints, points, grids, earlier studies, early stopping."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.definition.constraints import Constraint, broken, parse_constraint
from nas.definition.study import parse_study
from nas.errors import DefinitionError
from nas.metrics import METRICS
from tests.nas.strategies import make_definition

SPACE = {
    "target": {"log_uniform": [2, 8]},
    "penalty": {"uniform": [0.0, 2.0]},
    "batch_size": {"int": [16, 18]},
    "optimizer": {"choice": ["adamw", "sgd"]},
}


def faulty(**changes) -> str:
    with pytest.raises(DefinitionError) as raised:
        make_definition(**{"space": SPACE, **changes})
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "metric", "bound", "at_most"),
    [
        ("latency_ms <= 20", "latency_ms", 20.0, True),
        ("latency <= 20 ms", "latency_ms", 20.0, True),
        ("predicted <= 0.5ms", "predicted_ms", 0.5, True),
        ("top1 >= 90 %", "top1", 0.9, False),
        ("params<=1.5M", "params", 1.5e6, True),
        (" macs <= 3e6 ", "macs", 3e6, True),
    ],
)
def test_a_constraint_is_read_with_its_unit(text, metric, bound, at_most) -> None:
    assert parse_constraint(text) == Constraint(metric, pytest.approx(bound), at_most)


@given(st.sampled_from(sorted(METRICS)), st.floats(1e-9, 1e15), st.booleans())
def test_a_constraint_survives_its_text(metric, bound, at_most) -> None:
    limit = Constraint(metric, bound, at_most)
    assert parse_constraint(str(limit)) == limit


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("latency < 20", "a constraint is a text such as"),
        ("20 >= latency_ms", "a constraint is a text such as"),
        ("speed <= 20", "unknown metric 'speed'"),
        ("macs <= 20 ms", "macs has no unit 'ms'"),
        ("top1 >= 1.2.3", "a constraint is a text such as"),
        ({"macs": 3}, "a constraint is a text such as"),
    ],
)
def test_a_constraint_that_cannot_be_read(text, said) -> None:
    assert said in faulty(constraints=[text])


def test_a_network_breaks_what_it_exceeds() -> None:
    limits = tuple(map(parse_constraint, ("macs <= 100", "top1 >= 0.5", "latency_ms <= 3")))
    assert broken(limits, {"macs": 100.0, "top1": 0.5}) == ()
    assert broken(limits, {"macs": 101.0, "top1": 0.4}) == limits[:2]
    assert limits[0].violation({"macs": 150.0}) == pytest.approx(0.5)
    assert limits[1].violation({"top1": 0.4}) == pytest.approx(0.2)
    assert limits[2].violation({}) is None


def test_a_definition_survives_its_own_form() -> None:
    sweep = {
        "trials": 5,
        "points": [{"target": 4.0, "optimizer": "sgd"}, {"batch_size": 17}],
        "from": "before",
        "early_stopping": {"method": "asha", "metric": "loss", "min_epochs": 3},
    }
    study = make_definition(space=SPACE, sweep=sweep, constraints=["macs <= 3 M", "top1 >= 50 %"])
    assert parse_study(study.to_dict()) == study
    assert study.to_dict()["sweep"]["from"] == "before"
    assert study.to_dict()["constraints"] == ["macs <= 3000000.0", "top1 >= 0.5"]


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([{"ratio": 0.5}], "sweep.points.0: 'ratio' is not swept; swept: target, penalty, batch_size, optimizer"),
        ([{"target": 9.0}], "target is 9.0, which is outside of {log_uniform: [2.0, 8.0]}"),
        ([{"batch_size": 16.5}], "batch_size is 16.5, which is outside of {int: [16, 18]}"),
        ([{"optimizer": "adam"}], "optimizer is 'adam', which is outside of"),
        ([{"penalty": True}], "penalty is True, which is outside of"),
        ([{}], "sweep.points.0: a point needs at least one parameter"),
        ([{"target": 4.0}, {"target": 4.0}], "sweep.points.1: the same point stands in the list twice"),
        ([{"target": 2.0 + n / 10} for n in range(17)], "there are 17 points, but sweep.trials is 16"),
    ],
)
def test_points_that_cannot_be_proposed(points, said) -> None:
    assert said in faulty(sweep={"points": points})


def test_a_grid_decides_the_number_of_trials() -> None:
    study = make_definition(space=SPACE, sweep={"searcher": "grid", "grid": {"target": 2, "penalty": 3}})
    assert study.sweep.trials == 2 * 3 * 3 * 2 == study.most_trials
    assert parse_study(study.to_dict()) == study
    assert {point["target"] for point in study.grid} == {2.0, 8.0}
    assert {point["penalty"] for point in study.grid} == {0.0, 1.0, 2.0}
    assert {point["batch_size"] for point in study.grid} == {16, 17, 18}
    assert make_definition(space=SPACE, sweep={"searcher": "grid", "trials": 5}).sweep.trials == 5


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({"searcher": "grid", "trials": 200}, "the grid has only 54 points, but 200 trials are requested"),
        ({"searcher": "grid", "grid": {"ratio": 2}}, "sweep.grid: 'ratio' is not swept"),
        ({"searcher": "grid", "grid": 0}, "target must have at least one value, but got 0"),
        ({"searcher": "grid", "grid": 1000}, "at most 100,000 are allowed"),
        ({"grid": 5}, "sweep.grid works only with searcher grid, not with 'tpe'"),
        ({"searcher": "annealing"}, "must be 'tpe', 'nsga2', 'gp', 'random' or 'grid'"),
        ({"from": ""}, "sweep.from"),
        ({"early_stopping": {"min_epochs": 30}}, "min_epochs is 30, but a trial has only 30 epochs"),
        ({"early_stopping": {"metric": "top1"}}, "'metric' works only with asha"),
        ({"early_stopping": {"method": "asha", "metric": "macs"}}, "metric must be one of top1, top5, loss"),
        ({"early_stopping": {"method": "hyperband"}}, "must be 'asha' or 'mo_asha'"),
        ({"early_stopping": {"reduction_factor": 1}}, "reduction_factor"),
    ],
)
def test_a_sweep_that_cannot_run(sweep, said) -> None:
    assert said in faulty(sweep=sweep)


def test_non_dominated_sorting_needs_scores_and_trials_of_different_cost() -> None:
    early = {"early_stopping": {}}
    assert "a trial of method supernet has networks of all costs" in faulty(
        method="supernet", sweep=early, space={"target": {"log_uniform": [2, 8]}}
    )
    assert "mo_asha needs an objective that is evaluated in each epoch" in faulty(
        sweep=early, objectives=["macs", "params"]
    )


@pytest.mark.parametrize(
    ("early", "rungs"),
    [({}, (7, 14, 28)), ({"min_epochs": 4, "reduction_factor": 3}, (4, 12)), ({"min_epochs": 29}, (29,))],
)
def test_rungs_lie_before_the_end_of_a_trial(early, rungs) -> None:
    """A trial has 20 + 10 epochs; the first rung comes after a quarter of them, unless it is given."""
    assert make_definition(sweep={"early_stopping": early}).rungs_of({}) == rungs
    assert make_definition().rungs_of({}) == ()


def test_the_shortest_trial_decides_the_first_rung() -> None:
    space = {"target": 4.0, "epochs": {"int": [6, 30]}}
    study = make_definition(space=space, sweep={"early_stopping": {}}, training={"finetune_epochs": 2})
    assert study.rungs_of({"epochs": 6}) == (2, 4)
    assert study.rungs_of({"epochs": 30}) == (2, 4, 8, 16)
    longer = make_definition(space=space, sweep={"early_stopping": {"min_epochs": 6}})
    assert longer.rungs_of({"epochs": 6}) == (6, 12)
