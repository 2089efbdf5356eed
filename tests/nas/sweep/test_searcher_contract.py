"""What each searcher keeps: seeded, the same after an interruption, no repetition, points first, earlier results."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import pytest

from nas.definition.searchers import SEARCHERS
from nas.study import PriorTrial
from nas.sweep.searchers import AskTell
from nas.trial import Fidelity, Trial, TrialKind, TrialState
from tests.nas.strategies import make_candidate, make_definition, make_trial

LEARNING = [name for name, facts in SEARCHERS.items() if facts.learns]
DISCRETE = {"target": 4.0, "batch_size": {"int": [16, 18]}, "optimizer": {"choice": ["adamw", "sgd"]}}
NARROW = {"target": {"log_uniform": [2, 8]}, "penalty": {"uniform": [0.0, 2.0]}}
EVERY = pytest.mark.parametrize("searcher", list(SEARCHERS))


def definition(searcher: str, trials: int = 8, seed: int = 0, **changes):
    sweep = {"trials": trials, "seed": seed, "searcher": searcher, **changes.pop("sweep", {})}
    return make_definition(sweep=sweep, **{"space": NARROW, **changes})


def scores(parameters) -> tuple[float, float]:
    """Return a made-up result: more expensive networks are better, and a penalty of 0.9 is best."""
    target, penalty = float(parameters["target"]), float(parameters.get("penalty", 0.9))
    return 0.9 - 0.02 * target - 0.1 * abs(penalty - 0.9), 1e6 / target


def run(asker: AskTell, numbers, ends=lambda _number: TrialState.COMPLETE, constraints=()) -> list[Trial]:
    """Ask, end and tell trial after trial; ``ends`` says how a trial ends."""
    trials = []
    for number in numbers:
        parameters, registered = asker.ask()
        registered(number)
        trials.append(ended(number, dict(parameters), ends(number)))
        match trials[-1].state:
            case TrialState.COMPLETE:
                top1, macs = scores(parameters)
                limits = {str(limit): limit.violation({"macs": macs}) for limit in constraints}
                asker.tell(number, [top1, macs], limits)
            case TrialState.PRUNED:
                asker.tell_stopped(number)
            case TrialState.FAILED:
                asker.tell(number, None)
    return trials


def ended(number: int, parameters: dict, state: TrialState) -> Trial:
    trial = make_trial(number, scores(parameters) if state is TrialState.COMPLETE else None, parameters=parameters)
    return replace(trial, state=state, fidelity=Fidelity(2, 30) if state is TrialState.PRUNED else None)


def proposals(trials) -> list[dict]:
    return [dict(trial.parameters) for trial in trials]


@EVERY
def test_proposals_depend_on_the_seed_alone(searcher) -> None:
    first, again, other = (proposals(run(AskTell(definition(searcher, seed=s)), range(5))) for s in (3, 3, 4))
    assert first == again
    assert first != other


ENDS = [TrialState.COMPLETE] * 4 + [TrialState.PRUNED, TrialState.FAILED] + [TrialState.COMPLETE] * 2


def limited(searcher: str):
    return definition(searcher, constraints=["macs <= 250 K"])


@cache
def uninterrupted(searcher: str) -> tuple[Trial, ...]:
    """Trials that end with a result, with one that breaks a constraint, by early stopping, with a failure."""
    study = limited(searcher)
    return tuple(run(AskTell(study), range(len(ENDS)), ENDS.__getitem__, study.constraints))


@EVERY
@pytest.mark.parametrize("broken_after", [1, 6])
def test_an_interrupted_search_proposes_what_it_would_have_proposed(searcher, broken_after) -> None:
    study, whole = limited(searcher), uninterrupted(searcher)
    resumed = AskTell(study)
    resumed.restore(whole[:broken_after])
    rest = run(resumed, range(broken_after, len(ENDS)), ENDS.__getitem__, study.constraints)
    assert proposals(rest) == proposals(whole[broken_after:])


@EVERY
def test_trials_that_ran_during_an_interruption_are_taken_up_as_they_were(searcher) -> None:
    study = definition(searcher)
    asker = AskTell(study)
    told = run(asker, range(4))
    waiting = []
    for number in (4, 5):
        parameters, registered = asker.ask()
        registered(number)
        waiting.append(make_trial(number, parameters=dict(parameters), state=TrialState.QUEUED))
    resumed = AskTell(study)
    resumed.restore([*told, *waiting])
    assert proposals(run(resumed, [6])) == proposals(run(asker, [6]))
    for one in (asker, resumed):
        one.tell(4, [0.5, 1.0])
    assert [trial.values for trial in asker.study.trials] == [trial.values for trial in resumed.study.trials]


@EVERY
@pytest.mark.parametrize("told", [True, False], ids=["one by one", "all at once"])
def test_no_proposal_is_repeated_before_the_space_is_used_up(searcher, told) -> None:
    asker = AskTell(definition(searcher, trials=6, space=DISCRETE))
    found = []
    for number in range(6):
        parameters, registered = asker.ask()
        registered(number)
        found.append((parameters["batch_size"], parameters["optimizer"]))
        if told:
            asker.tell(number, [0.5 + 0.01 * number, 1e6])
    assert sorted(found) == sorted((size, name) for size in (16, 17, 18) for name in ("adamw", "sgd"))


@pytest.mark.parametrize("searcher", LEARNING)
def test_a_space_that_is_used_up_repeats(searcher) -> None:
    asker = AskTell(definition(searcher, trials=4, space={"target": 4.0, "optimizer": {"choice": ["adamw", "sgd"]}}))
    found = [parameters["optimizer"] for parameters in proposals(run(asker, range(4)))]
    assert sorted(found[:2]) == ["adamw", "sgd"]
    assert len(found) == 4
    assert sum(trial.state.name == "COMPLETE" for trial in asker.study.trials) == 4


@EVERY
def test_given_points_come_first_and_are_completed(searcher) -> None:
    points = [{"target": 8.0, "penalty": 0.25}, {"penalty": 1.75}]
    first, second, *_ = proposals(run(AskTell(definition(searcher, sweep={"points": points})), range(3)))
    assert first == points[0]
    assert second["penalty"] == 1.75
    assert 2 <= second["target"] <= 8


@EVERY
def test_results_of_an_earlier_study_are_known_and_are_no_trials(searcher) -> None:
    prior = [
        PriorTrial("before", number, {"target": target, "penalty": 1.0}, dict(zip(("top1", "macs"), pair, strict=True)))
        for number, (target, pair) in enumerate((t, scores({"target": t, "penalty": 1.0})) for t in (2.0, 4.0, 8.0))
    ]
    study = definition(searcher, constraints=["macs <= 300 K"])
    asker = AskTell(study, prior)
    assert [trial.params["target"] for trial in asker.study.trials] == [2.0, 4.0, 8.0]
    assert [max(trial.constraints.values()) > 0 for trial in asker.study.trials] == [True, False, False]
    found = run(asker, range(2), constraints=study.constraints)
    assert [trial.number for trial in found] == [0, 1]
    assert len(asker.study.trials) == 5


@pytest.mark.parametrize("searcher", LEARNING)
def test_it_learns(searcher) -> None:
    trials = {"tpe": 40, "nsga2": 60, "gp": 14}[searcher]
    space = {"target": 4.0, "penalty": {"uniform": [0.0, 2.0]}}
    means = {}
    for name in (searcher, "random"):
        found = proposals(run(AskTell(definition(name, trials=trials, space=space)), range(trials)))[-trials // 3 :]
        means[name] = sum(abs(p["penalty"] - 0.9) for p in found) / len(found)
    assert means[searcher] < 0.6 * means["random"]


@pytest.mark.parametrize("searcher", LEARNING)
def test_it_keeps_to_the_constraints(searcher) -> None:
    """Of two objectives that grow apart, the constraint forbids all but an eighth of the space."""
    trials = {"tpe": 40, "nsga2": 60, "gp": 14}[searcher]
    space = {"target": {"log_uniform": [2, 8]}, "penalty": 0.9}
    study = definition(searcher, trials=trials, space=space, constraints=["macs <= 150 K"])
    late = run(AskTell(study), range(trials), constraints=study.constraints)[-trials // 3 :]
    assert sum(scores(trial.parameters)[1] <= 150e3 for trial in late) >= len(late) / 3  # by chance an eighth


def test_a_grid_has_each_point_once() -> None:
    study = make_definition(sweep={"searcher": "grid", "grid": {"target": 3, "penalty": 2}}, space=NARROW)
    assert study.sweep.trials == 6
    found = {(p["target"], p["penalty"]) for p in proposals(run(AskTell(study), range(6)))}
    expected = {(target, penalty) for target in (2.0, 4.0, 8.0) for penalty in (0.0, 2.0)}
    assert {(round(target, 9), penalty) for target, penalty in found} == expected
    part = {(p["target"], p["penalty"]) for p in proposals(run(AskTell(definition("grid", 4, space=NARROW)), range(4)))}
    assert len(part) == 4


def test_only_search_trials_are_known_to_a_searcher() -> None:
    asker = AskTell(definition("tpe"))
    baseline = make_trial(0, (0.5, 10.0), kind=TrialKind.BASELINE)
    asker.restore([baseline])
    assert asker.study.trials == []
    asker.tell_stopped(0)


@pytest.mark.parametrize("stopped", range(1, 12, 3))
def test_tpe_learns_from_any_number_of_stopped_trials(stopped) -> None:
    """A trial that was stopped early counts as worse than all complete ones, and has no values."""
    ends = [TrialState.PRUNED] * stopped + [TrialState.COMPLETE] * (14 - stopped)
    found = proposals(run(AskTell(definition("tpe", trials=14)), range(14), ends.__getitem__))
    assert len({str(point) for point in found}) == 14
    assert all(math.isfinite(point["penalty"]) for point in found)


def test_the_scores_of_a_stopped_trial_do_not_reach_the_searcher() -> None:
    asker = AskTell(definition("tpe"))
    asker.restore([ended(0, {"target": 4.0, "penalty": 1.0}, TrialState.PRUNED)])
    [known] = asker.study.trials
    assert (known.state.name, known.values) == ("PRUNED", None)
    complete = make_trial(1, (0.5, 1.0), parameters={"target": 4.0, "penalty": 0.5})
    asker.restore([replace(complete, candidates=(make_candidate(0.5, 1.0),), state=TrialState.COMPLETE)])
    assert asker.study.trials[-1].values == [0.5, 1.0]
