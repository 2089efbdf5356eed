"""Jobs: work that needs torch and so never runs in the API's process. No SQL here, no torch.

Life of a job::

    queued -> running -> finished | failed | cancelled
      |  ^-------'    (its worker shut down, or died and the lease expired, or the job's process died)
      '----------------------------> cancelled   (a stop was requested before a worker took it)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

INT8 = "int8_max_drop"
"""Parameter of an export with an 8-bit form: largest fall of top-1, in points."""


class JobKind(StrEnum):
    """The kinds of work."""

    SEARCH = "search"
    EXPORT = "export"
    TRAIN = "train"
    PROBE = "probe"
    REPORT = "report"


class JobState(StrEnum):
    """The states of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class DesiredState(StrEnum):
    """The state that the user requests for a job; its worker reads it with each heartbeat."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Job:
    """A job, as the store keeps it.

    Args:
        id: UUID of the job.
        kind: Kind of the work.
        payload: Parameters of the work as JSON values, such as ``{"number": 3}`` for the export of a trial.
        state: Present state.
        desired: State that the user requests.
        attempt: Number of leases since the last progress that ended in neither a result nor a clean hand-back,
            including the present one. Progress is an epoch or the end of a trial that was not recorded before.
        epoch: Number of the lease; a write with an older one is refused.
        study_id: Id of the study that it works for.
        worker: Name of the lease's holder.
        expires_at: Time when the lease ends unless it is renewed; for a queued job whose process died, when it may be
            leased again. UTC by the database's clock.
        expired: Whether the lease has ended because its holder died; any worker then takes the job.
        result: Result as JSON values.
        error: Reason why it failed; for a queued job, how its last process died.
        created_at: Time of creation in UTC.
        started_at: Start of the newest attempt in UTC.
        ended_at: Time of the end in UTC.
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
