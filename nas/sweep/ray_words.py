"""Conversion between Ray's configs and results and our types. Only this file and ``optuna_words`` convert.

All data that cross a process border do so as one JSON text under one key, because Ray flattens, copies and decorates
the dictionaries that it receives. Each pair of functions here is inverse.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas.candidate import Candidate, candidate_from_dict, candidate_to_dict
from nas.placement import Placement
from nas.trial import EpochRecord, TrialSpec

SPEC, EPOCH, OUTCOME, FAILURE, PLACEMENT = "nas_spec", "nas_epoch", "nas_outcome", "nas_failure", "nas_placement"


@dataclass(frozen=True)
class Outcome:
    """The result of a trial.

    Args:
        candidates: Networks that it settled on, with their scores and measurements.
    """

    candidates: tuple[Candidate, ...]


Report = Placement | EpochRecord | Outcome | str


def to_ray_config(spec: TrialSpec) -> dict[str, str]:
    """Return the config of a Ray trial."""
    return {SPEC: _dump(spec.to_dict())}


def from_ray_config(config: Mapping[str, Any]) -> TrialSpec:
    """Return the trial of a Ray config, whatever keys Ray has added."""
    return TrialSpec.from_dict(json.loads(config[SPEC]))


def to_ray_result(report: Report) -> dict[str, str]:
    """Return the argument of ``ray.tune.report``; a plain string is the reason of a failure."""
    match report:
        case Placement():
            return {PLACEMENT: _dump(report.to_dict())}
        case EpochRecord():
            data = {"metrics": dict(report.metrics), "active_channels": dict(report.active_channels)}
            return {EPOCH: _dump({"epoch": report.epoch, "phase": report.phase, **data})}
        case Outcome():
            return {OUTCOME: _dump([candidate_to_dict(candidate) for candidate in report.candidates])}
        case str():
            return {FAILURE: report}


def from_ray_result(result: Mapping[str, Any]) -> Report | None:
    """Return the report of a trial; None for a result of Ray's own."""
    if FAILURE in result:
        return str(result[FAILURE])
    if OUTCOME in result:
        return Outcome(tuple(candidate_from_dict(data) for data in json.loads(result[OUTCOME])))
    if EPOCH in result:
        return EpochRecord(**json.loads(result[EPOCH]))
    if PLACEMENT in result:
        return Placement.from_dict(json.loads(result[PLACEMENT]))
    return None


def _dump(data: Any) -> str:
    return json.dumps(data, allow_nan=False)
