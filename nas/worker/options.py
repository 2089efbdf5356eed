"""How a worker works: slots, times, where its logs are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nas.jobs import JobKind
from nas.worker.kinds import KINDS
from nas.worker.lease import LEASE_SECONDS


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker works.

    Args:
        runs: Folder of the jobs' logs, made when needed.
        slots: Kinds of jobs that share one place, and how many run at once there; each kind has its own by default.
        lease_seconds: Until a dead worker's jobs go to another.
        poll_seconds: Between looks at the queue and the children.
        retry_seconds: Until a job whose process died is tried again; doubled with each death without progress.
        grace_seconds: That a job gets to stop cleanly after SIGINT, before SIGTERM and SIGKILL.
    """

    runs: Path = Path("nas-runs")
    slots: Mapping[tuple[JobKind, ...], int] = field(
        default_factory=lambda: {(kind,): known.places for kind, known in KINDS.items()}
    )
    lease_seconds: float = LEASE_SECONDS
    poll_seconds: float = 0.25
    retry_seconds: float = 1.0
    grace_seconds: float = 20.0
