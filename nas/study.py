"""A study, as the store keeps it: its definition, its state and its findings. Loads neither torch nor ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from nas.definition.study import StudyDefinition


class StudyState(StrEnum):
    """The states of a study."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class Study:
    """A study, as the store keeps it.

    Args:
        id: UUID, hexadecimal with dashes.
        name: Unique name.
        state: Present state.
        definition: Definition of the study.
        reference_point: Reference point of the hypervolume by metric, fixed at creation (top1 0, costs at n = C).
        created_at: Time of creation in UTC.
        updated_at: Time of the last change in UTC.
        reason: Reason why it failed or stopped.
        report: Findings of the search in sentences; empty until it has ended.
    """

    id: str
    name: str
    state: StudyState
    definition: StudyDefinition
    reference_point: Mapping[str, float]
    created_at: datetime
    updated_at: datetime
    reason: str | None = None
    report: tuple[str, ...] = ()
