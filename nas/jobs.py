"""Jobs: work that needs torch and so never runs in the API's process. No SQL here, no torch.

Life of a job::

    queued -> running -> finished | failed | cancelled
      |  ^-------'    (its worker shut down, or died and the lease expired, or the job's process died)
      '----------------------------> cancelled   (asked to stop before a worker took it)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class JobKind(StrEnum):
    """What is to be done."""

    SEARCH = "search"
    EXPORT = "export"
    TRAIN = "train"
    PROBE = "probe"
    REPORT = "report"


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class DesiredState(StrEnum):
    """What the user wants of a job; its worker reads it with each heartbeat."""

    RUNNING = "running"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Job:
    """A job as the store keeps it.

    Args:
        id: UUID.
        kind: What is to be done.
        payload: Its parameters, for example ``{"number": 3}`` for the export of a trial: JSON values.
        state: Where it stands.
        desired: What the user wants of it.
        attempt: Leases since the last progress that ended in neither a result nor an orderly return, plus the present
            one. Progress is an epoch or a trial's end that was not recorded before.
        epoch: Of the lease; a write with an older one is refused.
        study_id: The study it works for.
        worker: Who holds the lease.
        expires_at: When the lease ends unless renewed; of a queued job whose process died, when it may be leased
            again. UTC by the database's clock.
        expired: Whether the lease has ended without a word of its holder, who must be dead: any worker takes the job.
        result: JSON values.
        error: Why it failed; of a queued job how its last process died.
        created_at: UTC.
        started_at: UTC; of the newest attempt.
        ended_at: UTC.
    """

    id: str
    kind: JobKind
    payload: Mapping[str, Any] = field(default_factory=dict)
    state: JobState = JobState.QUEUED
    desired: DesiredState = DesiredState.RUNNING
    attempt: int = 0
    epoch: int = 0
    study_id: str | None = None
    worker: str | None = None
    expires_at: datetime | None = None
    expired: bool = False
    result: Mapping[str, Any] | None = None
    error: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


Result = tuple[JobState, dict[str, Any]]
