"""Optuna's words and ours: distributions, directions, trials. Every pair of functions is each other's inverse."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from nas.candidate import Candidate
from nas.definition.space import Choice, Distribution, Integer, LogUniform, Parameters, Uniform
from nas.definition.study import StudyDefinition
from nas.findings.scores import candidate_values, told_kind
from nas.metrics import METRICS, Direction
from nas.trial import Trial, TrialKind, TrialState


def to_optuna(distribution: Distribution) -> BaseDistribution:
    """Return Optuna's form of a distribution; both bounds of an integer are included in either form."""
    match distribution:
        case Uniform():
            return FloatDistribution(*distribution.uniform)
        case LogUniform():
            return FloatDistribution(*distribution.log_uniform, log=True)
        case Integer():
            return IntDistribution(*distribution.int)
        case Choice():
            return CategoricalDistribution(distribution.choice)


def from_optuna(distribution: BaseDistribution) -> Distribution:
    """Return our form of one of Optuna's distributions.

    Raises:
        ValueError: If ours has no such form (a step, a logarithmic integer).
    """
    match distribution:
        case FloatDistribution(log=True, step=None):
            return LogUniform(log_uniform=(distribution.low, distribution.high))
        case FloatDistribution(step=None):
            return Uniform(uniform=(distribution.low, distribution.high))
        case IntDistribution(log=False, step=1):
            return Integer(int=(distribution.low, distribution.high))
        case CategoricalDistribution():
            return Choice(choice=tuple(distribution.choices))
    raise ValueError(f"no form of ours for {distribution!r}; known: uniform, log_uniform, int, choice")


def optuna_space(definition: StudyDefinition) -> dict[str, BaseDistribution]:
    """Return what Optuna samples, by name."""
    return {name: to_optuna(entry) for name, entry in definition.sampled.items()}


def at_quantile(distribution: BaseDistribution, share: float) -> Any:
    """Return the value of ``distribution`` below which ``share`` (0 <= share < 1) of its mass lies."""
    match distribution:
        case FloatDistribution(log=True):
            value = distribution.low * (distribution.high / distribution.low) ** share
            return min(max(value, distribution.low), distribution.high)
        case FloatDistribution():
            return distribution.low + (distribution.high - distribution.low) * share
        case IntDistribution():
            return distribution.low + int(share * (distribution.high - distribution.low + 1))
        case CategoricalDistribution():
            return distribution.choices[int(share * len(distribution.choices))]
    raise ValueError(f"no quantiles of {distribution!r}")


def optuna_directions(objectives: Sequence[str]) -> list[str]:
    """Return Optuna's word for the direction of each objective."""
    return ["maximize" if METRICS[name].direction is Direction.MAXIMIZE else "minimize" for name in objectives]


def objective_values(candidates: Sequence[Candidate], definition: StudyDefinition) -> list[float] | None:
    """Return the figures that the searcher is told of a trial, in the order of the objectives; None if one is missing.

    Of several networks these are the means: every trial is asked for networks of the same targets.
    """
    rows = [candidate_values(candidate, told_kind(definition)) for candidate in candidates]
    if not rows or any(name not in row for row in rows for name in definition.objectives):
        return None
    return [fmean(row[name] for row in rows) for name in definition.objectives]


def to_optuna_trial(trial: Trial, definition: StudyDefinition) -> FrozenTrial | None:
    """Return Optuna's form of an ended search trial, for telling it again; None for what is not told.

    Only trials of kind ``search`` are told. One that failed, or that lacks an objective, is told as failed.
    """
    if trial.kind is not TrialKind.SEARCH or trial.state not in (TrialState.COMPLETE, TrialState.FAILED):
        return None
    space = optuna_space(definition)
    values = objective_values(trial.candidates, definition)
    complete = trial.state is TrialState.COMPLETE and values is not None
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.COMPLETE if complete else optuna.trial.TrialState.FAIL,
        values=values if complete else None,
        params={name: trial.parameters[name] for name in space},
        distributions=space,
    )


def sampled(parameters: Parameters, definition: StudyDefinition) -> dict[str, Any]:
    """Return the part of a search trial's parameters that Optuna sampled."""
    return {name: parameters[name] for name in optuna_space(definition)}
