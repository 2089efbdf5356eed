"""Conversion between Ray's configs and results and our types. Only this file and ``optuna_words`` convert.

All data that cross a process border do so as one JSON text under one key, because Ray flattens, copies and decorates
the dictionaries that it receives. Each pair of functions here is inverse. Ray's reasons for a trial that broke off are
converted here as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.candidate import Candidate, candidate_from_dict, candidate_to_dict
from nas.errors import MemoryExhausted, explain
from nas.sweep.breaker import Failure, Scope
from nas.sweep.deaths import Death, DeathCause
from nas.trial import EpochRecord, Placement, TrialSpec

SPEC, EPOCH, OUTCOME, FAILURE, PLACEMENT = "nas_spec", "nas_epoch", "nas_outcome", "nas_failure", "nas_placement"


@dataclass(frozen=True)
class Outcome:
    """The result of a trial.

    Args:
        candidates: Networks that it settled on, with their scores and measurements.
    """

    candidates: tuple[Candidate, ...]


Report = Placement | EpochRecord | Outcome | Failure


def to_ray_config(spec: TrialSpec) -> dict[str, str]:
    """Return the config of a Ray trial."""
    return {SPEC: _dump(spec.to_dict())}


def from_ray_config(config: Mapping[str, Any]) -> TrialSpec:
    """Return the trial of a Ray config, whatever keys Ray has added."""
    return TrialSpec.from_dict(json.loads(config[SPEC]))


def to_ray_result(report: Report) -> dict[str, str]:
    """Return the argument of ``ray.tune.report``."""
    match report:
        case Placement():
            return {PLACEMENT: _dump(report.to_dict())}
        case EpochRecord():
            data = {"metrics": dict(report.metrics), "active_channels": dict(report.active_channels)}
            return {EPOCH: _dump({"epoch": report.epoch, "phase": report.phase, **data})}
        case Outcome():
            return {OUTCOME: _dump([candidate_to_dict(candidate) for candidate in report.candidates])}
        case Failure():
            return {FAILURE: _dump({"reason": report.reason, "scope": report.scope.value})}


def from_ray_result(result: Mapping[str, Any]) -> Report | None:
    """Return the report of a trial; None for a result of Ray's own."""
    if FAILURE in result:
        failure = json.loads(result[FAILURE])
        return Failure(failure["reason"], Scope(failure["scope"]))
    if OUTCOME in result:
        return Outcome(tuple(candidate_from_dict(data) for data in json.loads(result[OUTCOME])))
    if EPOCH in result:
        return EpochRecord(**json.loads(result[EPOCH]))
    if PLACEMENT in result:
        return Placement.from_dict(json.loads(result[PLACEMENT]))
    return None


def death_of(trial: Any) -> Death:
    """Return why a Ray trial broke off.

    Ray writes the error beside the trial: pickled if the trial raised it or its actor died, otherwise only as text.
    """
    return translate_death(_error_of(trial), _text_of(trial.error_file))


def translate_death(error: BaseException | None, text: str) -> Death:
    """Return the cause and the reason in words for an error of Ray.

    Args:
        error: Error itself, if Ray kept it.
        text: Text of the error.
    """
    from ray.exceptions import RayTaskError

    if isinstance(error, RayTaskError):
        cause = error.cause if isinstance(error.cause, BaseException) else error
        return Death(DeathCause.MEMORY if isinstance(cause, MemoryExhausted) else DeathCause.OWN, explain(cause))
    said = " ".join((str(error) if error is not None else text).split())
    for phrases, kind, reason in _DEATHS:
        if any(phrase in said for phrase in phrases):
            return Death(kind, reason)
    unknown = "the trial's process died"
    return Death(DeathCause.PROCESS, f"{unknown}: {said[:500]}" if said else f"{unknown}; Ray does not say why")


# Parts of messages of Ray's memory monitor, control store and node manager; the first that matches counts.
_DEATHS = (
    (
        ("running low on memory", "OutOfMemoryError"),
        DeathCause.MEMORY,
        "the machine ran out of memory, and Ray killed the trial's process; fewer trials at a time (sweep.concurrent) "
        "or a smaller training.batch_size need less",
    ),
    (
        ("is temporarily unavailable",),
        DeathCause.NODE,
        "the connection to the trial's process broke: its node was lost, or the network",
    ),
    (
        ("node has died", "node was terminated", "node was preempted", "NodeDiedError", "node is either dead"),
        DeathCause.NODE,
        "the node that ran the trial was lost",
    ),
    (
        ("worker process has died", "Worker unexpectedly exits", "unexpected system error", "worker died unexpectedly"),
        DeathCause.PROCESS,
        "the trial's process was ended by a signal (kill -9, the kernel for lack of memory, or a crash in native code)",
    ),
)


def _error_of(trial: Any) -> BaseException | None:
    from ray import cloudpickle

    try:
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    except Exception:  # there is none, or its class cannot be loaded here: only its text remains
        return None
    return error if isinstance(error, BaseException) else None


def _text_of(file: str | None) -> str:
    try:
        return "" if file is None else Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _dump(data: Any) -> str:
    return json.dumps(data, allow_nan=False)
