"""Every translation is undone by its inverse, whatever the values."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState as OptunaState
from ray.exceptions import ActorDiedError, RayTaskError, WorkerCrashedError

from nas.definition.space import Choice, Integer
from nas.errors import MemoryExhausted
from nas.metrics import Measurement
from nas.sweep.breaker import Failure, Scope
from nas.sweep.deaths import DeathCause
from nas.sweep.optuna_words import at_quantile, from_optuna, optuna_space, to_optuna, to_optuna_trial
from nas.sweep.ray_words import (
    Outcome,
    from_ray_config,
    from_ray_result,
    to_ray_config,
    to_ray_result,
    translate_death,
)
from nas.sweep.searchers import AskTell
from nas.trial import Compute, Placement, Trial, TrialKind, TrialState
from tests.nas.store.makers import networks
from tests.nas.strategies import candidates, distributions, epochs, make_definition, make_trial, names, specs

# What Ray adds to every result on its way.
RAY = {"training_iteration": 3, "done": True, "trial_id": "ab12_00000", "config": {"a": 1}, "time_total_s": 1.5}

placements = st.builds(
    Placement,
    node=names,
    pid=st.integers(1, 2**22),
    cpus=st.floats(0, 64),
    gpus=st.floats(0, 8),
    gpu_ids=st.lists(names, max_size=3).map(tuple),
    cuda_visible_devices=st.none() | names,
    compute=st.none()
    | st.builds(
        Compute,
        device=names,
        precision=names,
        convolutions=names,
        products=names,
        memory_gib=st.none() | st.floats(0, 1e3),
        versions=st.dictionaries(names, names, max_size=2),
    ),
)
outcomes = st.builds(Outcome, candidates=st.lists(candidates, max_size=2).map(tuple))


@given(distributions)
def test_distributions_survive_optuna(distribution) -> None:
    assert from_optuna(to_optuna(distribution)) == distribution


@given(distributions)
def test_both_ends_of_a_distribution_are_kept(distribution) -> None:
    theirs = to_optuna(distribution)
    low, high = at_quantile(theirs, 0.0), at_quantile(theirs, 1 - 2**-53)
    if isinstance(distribution, Integer):
        assert (low, high) == distribution.int
    elif isinstance(distribution, Choice):
        assert (low, high) == (distribution.choice[0], distribution.choice[-1])
    else:
        bounds = next(iter(distribution.model_dump().values()))
        near = 1e-9 * max(map(abs, bounds))
        assert (low, high) == (pytest.approx(bounds[0], abs=near), pytest.approx(bounds[1], abs=near))
        assert bounds[0] <= low <= high <= bounds[1]


@given(distributions, st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_quantiles_lie_inside_and_ascend(distribution, a, b) -> None:
    theirs = to_optuna(distribution)
    low, high = (at_quantile(theirs, share) for share in sorted((a, b)))
    assert theirs._contains(theirs.to_internal_repr(low))
    if isinstance(distribution, Choice):
        order = list(map(str, distribution.choice))  # False equals 0, but not in writing
        assert order.index(str(low)) <= order.index(str(high))
    else:
        assert low <= high


@pytest.mark.parametrize(
    "theirs", [FloatDistribution(0, 1, step=0.5), IntDistribution(1, 8, log=True), IntDistribution(0, 8, step=2)]
)
def test_forms_that_we_lack_are_refused(theirs) -> None:
    with pytest.raises(ValueError, match="has no form in a study"):
        from_optuna(theirs)


@given(specs)
def test_specs_survive_ray(spec) -> None:
    assert from_ray_config({**to_ray_config(spec), "other": 1}) == spec


@given(st.one_of(epochs, placements, outcomes, st.builds(Failure, names, st.sampled_from(Scope))))
def test_reports_survive_ray(report) -> None:
    assert from_ray_result({**to_ray_result(report), **RAY}) == report


def test_results_of_others_are_none() -> None:
    assert from_ray_result(RAY) is None


def test_plain_values_of_the_space_are_fixed() -> None:
    definition = make_definition(space={"target": {"uniform": [2, 4]}, "penalty": 0.9, "batch_size": {"int": [8, 64]}})
    assert definition.constants == {"penalty": 0.9}
    assert sorted(optuna_space(definition)) == ["batch_size", "target"]


@pytest.mark.parametrize(
    ("trial", "state"),
    [
        (make_trial(0, (0.9, 10.0)), OptunaState.COMPLETE),
        (make_trial(0, reason="diverged"), OptunaState.FAIL),
        (make_trial(0, (0.9, 10.0), measurements=()), OptunaState.FAIL),
        (make_trial(0, (0.9, 10.0), kind=TrialKind.BASELINE), None),
        (make_trial(0, state=TrialState.QUEUED), None),
        (make_trial(0, state=TrialState.CANCELLED), None),
    ],
)
def test_only_ended_search_trials_are_told(trial, state) -> None:
    told = to_optuna_trial(trial, make_definition())
    assert (told.state if told else None) == state
    if state is OptunaState.COMPLETE:
        assert told.values == [0.9, 10.0]
        assert told.params == trial.parameters


def test_a_supernet_is_told_by_the_means_of_its_networks() -> None:
    space = {"target": {"log_uniform": [2, 8]}, "learning_rate": {"log_uniform": [0.001, 0.01]}}
    definition = make_definition(method="supernet", space=space)
    assert set(optuna_space(definition)) == {"learning_rate"}
    found = tuple(networks(3))
    trial = Trial(0, TrialKind.SEARCH, TrialState.COMPLETE, {"learning_rate": 0.002}, 1, candidates=found)
    told = to_optuna_trial(trial, definition)
    assert told.state is OptunaState.COMPLETE
    assert told.values == [pytest.approx(0.6), 2000.0]  # inherited top-1 of 0.5, 0.6, 0.7; 1000 to 3000
    unscored = replace(trial, candidates=(*found, replace(found[0], evaluations=())))
    assert to_optuna_trial(unscored, definition).state is OptunaState.FAIL


def test_a_searcher_receives_the_measurements_of_its_own_study() -> None:
    """A network may have been found by another study as well, whose measurements of it are newer."""
    told = {"objectives": ["top1", "predicted_ms"], "constraints": ["latency <= 3 ms"]}
    definition = make_definition(latency={"table": "auto"}, **told)
    values = {"own": 2.0, "another": 9.0, "b": 1.0}
    times = tuple(Measurement("predicted_ms", ms, {}, where) for where, ms in values.items())
    trial, own = make_trial(0, (0.9, 10.0), measurements=times), {"predicted_ms": "own"}
    asker = AskTell(definition, own=own)
    asker.ask()[1](0)
    asker.tell_outcome(0, trial.candidates)
    [live], restored = asker.study.trials, to_optuna_trial(trial, definition, own)
    assert live.values == restored.values == [0.9, 2.0]
    assert live.constraints == restored.constraints == {"predicted_ms <= 3.0": pytest.approx(-1 / 3)}


KILLED = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: ImplicitFunc\n\tpid: 18023\n"
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was "
    "killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker crashed"
)


@pytest.mark.parametrize(
    ("error", "text", "cause", "said"),
    [
        (ActorDiedError(), KILLED, DeathCause.PROCESS, "the trial's process died: The actor died unexpectedly"),
        (None, KILLED, DeathCause.PROCESS, "ended by a signal"),
        (WorkerCrashedError(), "", DeathCause.PROCESS, "ended by a signal"),
        (None, "The actor died because its node has died. Node Id: 5d", DeathCause.NODE, "node that ran the trial"),
        (None, "the actor's node was preempted: spot", DeathCause.NODE, "node that ran the trial"),
        (None, "1 worker(s) were killed due to the node running low on memory.", DeathCause.MEMORY, "out of memory"),
        (None, "", DeathCause.PROCESS, "Ray does not say why"),
        (RayTaskError("train", "", ValueError("bad")), "", DeathCause.OWN, "ValueError: bad"),
        (RayTaskError("train", "", MemoryExhausted("no memory left")), "", DeathCause.MEMORY, "no memory left"),
    ],
)
def test_what_ray_says_of_a_trial_that_broke_off(error, text, cause, said) -> None:
    death = translate_death(error, text)
    assert death.cause is cause
    assert said in death.reason
