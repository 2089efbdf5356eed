"""The only file that speaks foreign words and ours: Optuna's distributions and trials, Ray's configs and results.

Everything that crosses a process border does so as one JSON text under one key, because Ray flattens, copies and
decorates the dictionaries that pass through it. Every pair of functions here is each other's inverse.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from nas.candidate import Candidate, candidate_from_dict, candidate_to_dict
from nas.definition.space import Choice, Distribution, Integer, LogUniform, Parameters, Uniform
from nas.definition.study import StudyDefinition
from nas.findings.scores import candidate_values
from nas.metrics import METRICS, Direction, EvaluationKind
from nas.trial import EpochRecord, Trial, TrialKind, TrialSpec, TrialState

SPEC, EPOCH, OUTCOME, FAILURE, PLACEMENT = "nas_spec", "nas_epoch", "nas_outcome", "nas_failure", "nas_placement"


# Optuna


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


def fixed_parameters(definition: StudyDefinition) -> dict[str, float | int | str]:
    """Return the entries of the space that are plain values."""
    return {name: entry for name, entry in definition.space.items() if isinstance(entry, (int, float, str))}


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

    Of a supernet's networks these are the means: every trial is asked for networks of the same targets.
    """
    kind = EvaluationKind.INHERITED if definition.method == "supernet" else EvaluationKind.FINETUNED
    rows = [candidate_values(candidate, kind) for candidate in candidates]
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


# Ray


@dataclass(frozen=True)
class Placement:
    """Where Ray put a trial.

    Args:
        node: Host name.
        pid: Of its process.
        cpus: Share of CPUs.
        gpus: Share of GPUs.
        gpu_ids: GPUs it may see, by Ray's numbering.
        cuda_visible_devices: The environment variable as the trial sees it; None if it is not set.
    """

    node: str
    pid: int
    cpus: float
    gpus: float
    gpu_ids: tuple[str, ...] = ()
    cuda_visible_devices: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What a trial hands back at its end.

    Args:
        candidates: What it settled on, with all that was observed.
    """

    candidates: tuple[Candidate, ...]


Report = Placement | EpochRecord | Outcome | str


def to_ray_config(spec: TrialSpec) -> dict[str, str]:
    """Return the config of a Ray trial."""
    return {SPEC: _dump({**asdict(spec), "parameters": dict(spec.parameters)})}


def from_ray_config(config: Mapping[str, Any]) -> TrialSpec:
    """Return the trial that a Ray config stands for, whatever else Ray has put into it."""
    data = json.loads(config[SPEC])
    return TrialSpec(data["number"], TrialKind(data["kind"]), data["parameters"], data["seed"])


def to_ray_result(report: Report) -> dict[str, str]:
    """Return what a trial gives to ``ray.tune.report``; a plain string is the reason of a failure."""
    match report:
        case Placement():
            return {PLACEMENT: _dump(asdict(report))}
        case EpochRecord():
            data = {"metrics": dict(report.metrics), "active_channels": dict(report.active_channels)}
            return {EPOCH: _dump({"epoch": report.epoch, "phase": report.phase, **data})}
        case Outcome():
            return {OUTCOME: _dump([candidate_to_dict(candidate) for candidate in report.candidates])}
        case str():
            return {FAILURE: report}


def from_ray_result(result: Mapping[str, Any]) -> Report | None:
    """Return what a trial reported; None for a result that holds nothing of ours."""
    if FAILURE in result:
        return str(result[FAILURE])
    if OUTCOME in result:
        return Outcome(tuple(candidate_from_dict(data) for data in json.loads(result[OUTCOME])))
    if EPOCH in result:
        return EpochRecord(**json.loads(result[EPOCH]))
    if PLACEMENT in result:
        data = json.loads(result[PLACEMENT])
        return Placement(**{**data, "gpu_ids": tuple(data["gpu_ids"])})
    return None


def sampled(parameters: Parameters, definition: StudyDefinition) -> dict[str, Any]:
    """Return the part of a search trial's parameters that Optuna sampled."""
    return {name: parameters[name] for name in optuna_space(definition)}


def _dump(data: Any) -> str:
    return json.dumps(data, allow_nan=False)
