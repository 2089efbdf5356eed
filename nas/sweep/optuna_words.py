"""Conversion between Optuna's types and ours: distributions, directions, trials. Each pair of functions is inverse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from nas.candidate import Candidate
from nas.definition.space import Choice, Distribution, Integer, LogUniform, Parameters, Uniform
from nas.definition.study import StudyDefinition
from nas.findings.scores import told_kind, told_values
from nas.metrics import METRICS, Direction
from nas.study import PriorTrial
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
    """Return our form of a distribution of Optuna.

    Raises:
        ValueError: If there is no such form (a step, a logarithmic integer).
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
    raise ValueError(f"{distribution!r} has no form in a study's space; known: uniform, log_uniform, int, choice")


def optuna_space(definition: StudyDefinition) -> dict[str, BaseDistribution]:
    """Return the distributions that Optuna samples, by name."""
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


def values_of(distribution: BaseDistribution, most: int) -> Sequence[Any] | None:
    """Return all values of ``distribution``; None if it is continuous or has more than ``most``."""
    match distribution:
        case IntDistribution() if distribution.high - distribution.low < most:
            return range(distribution.low, distribution.high + 1)
        case CategoricalDistribution():
            return tuple(distribution.choices)
    return None


def optuna_directions(objectives: Sequence[str]) -> list[str]:
    """Return Optuna's name for the direction of each objective."""
    return ["maximize" if METRICS[name].direction is Direction.MAXIMIZE else "minimize" for name in objectives]


def objective_values(
    candidates: Sequence[Candidate], definition: StudyDefinition, own: Mapping[str, str]
) -> list[float] | None:
    """Return a trial's values for the searcher, in the order of the objectives; None if one is missing.

    None as well if the value of a constraint is missing: samplers accept all constraints of a trial or no trial at all.

    Args:
        candidates: Networks of the trial.
        definition: Definition of the study.
        own: Circumstances of the study's own measurements by metric.
    """
    values = told_values(candidates, told_kind(definition), own)
    limited = [limit.metric for limit in definition.told_constraints]
    if any(name not in values for name in (*definition.objectives, *limited)):
        return None
    return [values[name] for name in definition.objectives]


def constraint_values(
    candidates: Sequence[Candidate], definition: StudyDefinition, own: Mapping[str, str]
) -> dict[str, float]:
    """Return the violation of each constraint by its text, positive if it is broken.

    A constraint on a metric that is measured after the trials is left out: the searcher cannot know it.

    Args:
        candidates: Networks of the trial.
        definition: Definition of the study.
        own: Circumstances of the study's own measurements by metric.
    """
    return _violations(told_values(candidates, told_kind(definition), own), definition)


def _violations(values: Mapping[str, float], definition: StudyDefinition) -> dict[str, float]:
    found = {str(limit): limit.violation(values) for limit in definition.told_constraints}
    return {text: violation for text, violation in found.items() if violation is not None}


def to_optuna_trial(
    trial: Trial, definition: StudyDefinition, own: Mapping[str, str] = MappingProxyType({})
) -> FrozenTrial | None:
    """Return Optuna's form of an ended search trial, to restore the searcher; None if the searcher ignores it.

    The searcher receives only trials of kind ``search``. A failed trial, or one that lacks an objective, counts as
    failed. A trial that was stopped early has no values: those of fewer epochs cannot be compared with the others.

    Args:
        trial: Trial in any state.
        definition: Definition of the study.
        own: Circumstances of the study's own measurements by metric; empty if the study has no latency table.
    """
    if trial.kind is not TrialKind.SEARCH or trial.state not in _TOLD:
        return None
    space = optuna_space(definition)
    values = objective_values(trial.candidates, definition, own) if trial.state is TrialState.COMPLETE else None
    state = _TOLD[trial.state] if values is not None or trial.state is TrialState.PRUNED else _TOLD[TrialState.FAILED]
    return optuna.trial.create_trial(
        state=state,
        values=values,
        params={name: trial.parameters[name] for name in space},
        distributions=space,
        constraints=None if values is None else constraint_values(trial.candidates, definition, own),
    )


_TOLD: Mapping[TrialState, optuna.trial.TrialState] = MappingProxyType(
    {
        TrialState.COMPLETE: optuna.trial.TrialState.COMPLETE,
        TrialState.PRUNED: optuna.trial.TrialState.PRUNED,
        TrialState.FAILED: optuna.trial.TrialState.FAIL,
    }
)


def prior_to_optuna(trial: PriorTrial, definition: StudyDefinition) -> FrozenTrial:
    """Return Optuna's form of a result of an earlier study."""
    return optuna.trial.create_trial(
        values=[trial.values[name] for name in definition.objectives],
        params=dict(trial.parameters),
        distributions=optuna_space(definition),
        constraints=_violations(trial.values, definition),
    )


def sampled(parameters: Parameters, definition: StudyDefinition) -> dict[str, Any]:
    """Return the part of a search trial's parameters that Optuna sampled."""
    return {name: parameters[name] for name in optuna_space(definition)}
