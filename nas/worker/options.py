"""Options of a worker: slots, times, folder of the logs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nas.jobs import JobKind
from nas.worker.kinds import KINDS
from nas.worker.lease import LEASE_SECONDS


@dataclass(frozen=True)
class WorkerOptions:
    """Options of a worker.

    Args:
        runs: Folder of the jobs' logs; it is created when needed.
        slots: Number of jobs that run at once, for each group of kinds that share a slot; by default each kind has its
            own.
        lease_seconds: Time in seconds until another worker may take the jobs of a dead worker.
        poll_seconds: Time in seconds between looks at the queue and the children.
        retry_seconds: Time in seconds until a job whose process died is retried; each death without progress doubles
            it.
        grace_seconds: Time in seconds between SIGINT and SIGTERM, in which a job can stop cleanly.
        command: Command that runs one job, to which ``--job`` and ``--epoch`` are added.
    """

    runs: Path = Path("nas-runs")
    slots: Mapping[tuple[JobKind, ...], int] = field(
        default_factory=lambda: {(kind,): known.places for kind, known in KINDS.items()}
    )
    lease_seconds: float = LEASE_SECONDS
    poll_seconds: float = 0.25
    retry_seconds: float = 1.0
    grace_seconds: float = 20.0
    command: Sequence[str] = (sys.executable, "-m", "nas.worker")
