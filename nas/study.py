"""A study as the store keeps it: its definition, its state, and what came of it. No torch, no ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from nas.definition.study import StudyDefinition


class StudyState(StrEnum):
    """Where a study stands.

    ``interrupted`` is never stored: a study that runs reads so when the lease of its search has expired.
    """

    QUEUED = "queued"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    PAUSED = "paused"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class Study:
    """A study as the store keeps it.

    Args:
        id: UUID, hexadecimal with dashes.
        name: Unique.
        state: Where it stands.
        definition: What it runs.
        reference_point: Metric to value, for the hypervolume: fixed at creation (top1 0, costs at n = C).
        created_at: UTC.
        updated_at: UTC.
        reason: Why it failed or stopped.
        report: What the search found, in sentences; empty until it ended.
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
