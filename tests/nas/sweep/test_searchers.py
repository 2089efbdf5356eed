"""Proposals: well spread, seeded, the same after an interruption; and what Ray's interface makes of them."""

from __future__ import annotations

import math
import pickle

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.sweep.breaker import Failure
from nas.sweep.first_proposals import baseline_parameters, spread
from nas.sweep.ray_words import Outcome, from_ray_config, to_ray_result
from nas.sweep.searchers import AskTell, StudySearcher
from nas.trial import TrialKind, TrialSpec, TrialState
from tests.nas.strategies import make_candidate, make_definition, make_trial

BASELINE = TrialSpec(0, TrialKind.BASELINE, {"ratio": 0.25}, 7)


def definition(searcher: str = "tpe", trials: int = 12, seed: int = 0, **changes):
    return make_definition(sweep={"trials": trials, "seed": seed, "searcher": searcher}, **changes)


def scores(parameters) -> list[float]:
    """Return a made-up result: more expensive networks are better, and a penalty of 0.9 is best."""
    return [0.9 - 0.02 * parameters["target"] - 0.1 * abs(parameters["penalty"] - 0.9), 1e6 / parameters["target"]]


def run(asker: AskTell, numbers) -> list[dict]:
    asked = []
    for number in numbers:
        parameters, registered = asker.ask()
        registered(number)
        asked.append(dict(parameters))
        asker.tell(number, scores(parameters))
    return asked


@given(st.integers(1, 6), st.integers(0, 2**31 - 1), st.integers(1, 12))
def test_the_start_has_one_point_in_each_part_of_every_dimension(dimensions, seed, count) -> None:
    points = [spread(index, count, dimensions, seed) for index in range(count)]
    for axis in zip(*points, strict=True):
        assert sorted(int(value * count) for value in axis) == list(range(count))


def test_the_start_of_a_search_spreads_its_targets() -> None:
    targets = sorted(parameters["target"] for parameters in run(AskTell(definition(trials=12)), range(6)))
    parts = [int(6 * math.log(target / 2) / math.log(4)) for target in targets]
    assert parts == list(range(6))


@pytest.mark.parametrize("searcher", ["tpe", "random"])
def test_proposals_depend_on_the_seed_alone(searcher) -> None:
    first, again, other = (run(AskTell(definition(searcher, seed=seed)), range(10)) for seed in (3, 3, 4))
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("searcher", ["tpe", "random"])
@pytest.mark.parametrize("broken_after", [1, 5, 8])
def test_an_interrupted_search_proposes_what_it_would_have_proposed(searcher, broken_after) -> None:
    whole = run(AskTell(definition(searcher)), range(12))
    trials = [make_trial(n, tuple(scores(p)), parameters=p) for n, p in enumerate(whole[:broken_after])]
    resumed = AskTell(definition(searcher))
    resumed.restore(trials)
    assert run(resumed, range(broken_after, 12)) == whole[broken_after:]


def test_tpe_learns_and_random_does_not() -> None:
    means = {}
    for searcher in ("tpe", "random"):
        space = {"target": 4.0, "penalty": {"uniform": [0.0, 2.0]}}
        asked = run(AskTell(definition(searcher, trials=40, space=space)), range(40))[-15:]
        means[searcher] = sum(abs(p["penalty"] - 0.9) for p in asked) / len(asked)
    assert means["tpe"] < 0.6 * means["random"]


def test_running_trials_are_taken_up_again_and_told() -> None:
    waiting = make_trial(3, state=TrialState.QUEUED, parameters={"target": 3.0, "complexity_exponent": 1, "penalty": 1})
    asker = AskTell(definition())
    baseline = make_trial(0, (0.5, 10.0), kind=TrialKind.BASELINE)
    asker.restore([baseline, make_trial(1, (0.9, 5.0)), make_trial(2), waiting])
    asker.tell(3, [0.95, 4.0])
    asker.tell(0, [0.5, 10.0])  # a baseline: not told
    states = [trial.state.name for trial in asker.study.trials]
    assert sorted(states) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert asker.study.trials[-1].params["target"] == 3.0


@pytest.mark.parametrize("values", [None, [float("nan"), 1.0], [0.5, float("inf")]])
def test_failures_are_told_as_failures(values) -> None:
    asker = AskTell(definition())
    _, registered = asker.ask()
    registered(5)
    asker.tell(5, values)
    asker.tell(5, [1.0, 1.0])  # a second word on the same trial is not heard
    assert [trial.state for trial in asker.study.trials] == [optuna.trial.TrialState.FAIL]


def test_baselines_train_in_the_middle_of_what_is_swept() -> None:
    space = {
        "target": {"uniform": [2, 8]},
        "momentum": 0.5,  # holds for all trials as it is
        "learning_rate": {"log_uniform": [0.01, 0.09]},
        "batch_size": {"int": [30, 50]},
    }
    definition = make_definition(space=space, training={"optimizer": "sgd"})
    parameters = baseline_parameters(definition, 0.25)
    assert parameters == {"ratio": 0.25, "learning_rate": pytest.approx(0.03), "batch_size": 40}
    assert definition.sampled_training(parameters).learning_rate == parameters["learning_rate"]


def test_every_kind_of_parameter_can_be_swept() -> None:
    space = {
        "target": {"log_uniform": [2, 8]},
        "batch_size": {"int": [16, 128]},
        "optimizer": {"choice": ["adamw", "sgd"]},
        "weight_decay": {"uniform": [0, 0.1]},
        "penalty": 0.5,
    }
    asked = []
    asker = AskTell(definition(trials=20, space=space))
    for number in range(20):
        parameters, registered = asker.ask()
        registered(number)
        asked.append(parameters)
        asker.tell(number, [0.5, 1.0 + number])
    assert all(16 <= p["batch_size"] <= 128 and isinstance(p["batch_size"], int) for p in asked)
    assert {p["optimizer"] for p in asked} == {"adamw", "sgd"}
    assert {p["penalty"] for p in asked} == {0.5}


@pytest.mark.parametrize("searcher", ["tpe", "random"])
def test_supernets_of_several_seeds_draw_nothing(searcher) -> None:
    asker = AskTell(definition(searcher, trials=3, method="supernet", space={"target": {"log_uniform": [2, 8]}}))
    proposals = []
    for number in range(3):
        parameters, registered = asker.ask()
        registered(number)
        proposals.append(parameters)
        asker.tell(number, [0.5, 1e6])
    assert proposals == [{}, {}, {}]
    assert [trial.state.name for trial in asker.study.trials] == ["COMPLETE"] * 3


class Table:
    """Stands for the tables: gives numbers, or refuses at first."""

    def __init__(self, first: int = 1) -> None:
        self.next = first
        self.refusing = False

    def register(self, parameters) -> TrialSpec | None:
        if self.refusing:
            return None
        self.next += 1
        return TrialSpec(self.next - 1, TrialKind.SEARCH, parameters, 1)


def make_searcher(table: Table, remaining: int = 2, closed=lambda: False) -> tuple[StudySearcher, AskTell]:
    asker = AskTell(definition())
    return StudySearcher(definition(), asker, [BASELINE], remaining, table.register, closed), asker


def test_the_queue_comes_first_and_then_what_remains() -> None:
    searcher, _ = make_searcher(Table())
    configs = [searcher.suggest(name) for name in "abcd"]
    specs = [from_ray_config(config) for config in configs[:3]]
    assert [(spec.number, spec.kind.value) for spec in specs] == [(0, "baseline"), (1, "search"), (2, "search")]
    assert configs[3] is None  # one of those that run may have to be run again
    for name in "abc":
        searcher.on_trial_complete(name, to_ray_result(Failure("the training diverged")))
    assert searcher.suggest("d") == StudySearcher.FINISHED


def test_others_wait_for_the_pilot_and_for_what_it_says() -> None:
    queue = [TrialSpec(number, TrialKind.BASELINE, {"ratio": 0.25}, 7) for number in range(4)]
    answers = [False, True]  # the results are not yet written at the first question
    made = StudySearcher(
        definition(), AskTell(definition()), queue, 0, Table().register, lambda: False, pilot={1, 3},
        piloted=lambda: answers.pop(0),
    )  # fmt: skip
    started = [from_ray_config(made.suggest(name)).number for name in "ab"]
    assert (started, made.suggest("c")) == ([1, 3], None)
    made.on_trial_complete("a", to_ray_result(Failure("the training diverged")))
    made.on_trial_complete("b", error=True)
    made.broke_off(queue[3], again=True)
    assert from_ray_config(made.suggest("b2")).number == 3
    assert (made.suggest("c"), answers) == (None, [False, True])
    made.on_trial_complete("b2", to_ray_result(Failure("the training diverged")))
    assert (made.suggest("c"), answers) == (None, [True])
    assert [from_ray_config(made.suggest(name)).number for name in "cd"] == [0, 2]
    assert answers == []


def test_what_broke_off_is_run_before_all_others_and_not_told() -> None:
    closed = [False]
    searcher, asker = make_searcher(Table(), closed=lambda: closed[0])
    [_, config] = [searcher.suggest(name) for name in "ab"]
    spec = from_ray_config(config)
    searcher.on_trial_complete("b", error=True)
    searcher.broke_off(spec, again=True)
    closed[0] = True  # it has begun, so that no budget of time ends it
    assert searcher.suggest("c") == config
    assert [trial.state.name for trial in asker.study.trials] == ["RUNNING"]
    searcher.on_trial_complete("c", to_ray_result(Outcome((make_candidate(0.8, 100.0),))))
    assert [trial.state.name for trial in asker.study.trials] == ["COMPLETE"]


def test_an_outcome_counts_though_its_process_died_right_after_it() -> None:
    searcher, asker = make_searcher(Table())
    [_, config] = [searcher.suggest(name) for name in "ab"]
    searcher.on_trial_result("b", to_ray_result(Outcome((make_candidate(0.8, 100.0),))))
    searcher.on_trial_complete("b", error=True)
    searcher.broke_off(from_ray_config(config), again=False)
    assert [trial.values for trial in asker.study.trials] == [[0.8, 100.0]]


def test_a_proposal_that_could_not_be_written_is_offered_again() -> None:
    table = Table()
    searcher, _ = make_searcher(table)
    searcher.suggest("a")
    table.refusing = True
    assert [searcher.suggest("b"), searcher.suggest("b")] == [None, None]
    table.refusing = False
    offered = from_ray_config(searcher.suggest("b"))
    assert offered.parameters == AskTell(definition()).ask()[0]


def test_nothing_starts_once_it_is_closed() -> None:
    closed = [False]
    searcher, _ = make_searcher(Table(), closed=lambda: closed[0])
    assert isinstance(searcher.suggest("a"), dict)
    closed[0] = True
    assert searcher.suggest("b") is None
    searcher.on_trial_complete("a", to_ray_result(Failure("the training diverged")))
    assert searcher.suggest("b") == StudySearcher.FINISHED


def test_only_outcomes_of_search_trials_are_told() -> None:
    searcher, asker = make_searcher(Table(), remaining=3)
    [*_, last] = [searcher.suggest(name) for name in "abcd"]
    good = to_ray_result(Outcome((make_candidate(0.8, 100.0),)))
    searcher.on_trial_complete("a", good)
    searcher.on_trial_complete("b", {**good, "done": True})
    searcher.on_trial_complete("c", to_ray_result(Failure("the training diverged")))
    searcher.on_trial_complete("d", error=True)
    searcher.broke_off(from_ray_config(last), again=False)
    assert [trial.state.name for trial in asker.study.trials] == ["COMPLETE", "FAIL", "FAIL"]
    assert asker.study.trials[0].values == [0.8, 100.0]


def test_what_ray_writes_to_disk_holds_nothing() -> None:
    """The tables are the record; a searcher holds an open database, which cannot be pickled."""
    searcher, _ = make_searcher(Table())
    assert type(pickle.loads(pickle.dumps(searcher))) is object
