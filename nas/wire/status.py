"""Bodies of readiness, version, queue and workers. Loads neither torch nor ray."""

from __future__ import annotations

from datetime import datetime

from nas.wire.bodies import Body, JobBody


class ReadyBody(Body):
    """Whether requests should be sent to this process.

    Args:
        reason: Reason why not.
        worker: State of the embedded worker: ``running``, ``restarting`` or ``off``.
        read_only: Whether the database can only be read.
    """

    ready: bool
    reason: str | None
    worker: str
    read_only: bool


class VersionBody(Body):
    """Versions of the program and of the API."""

    version: str
    api: str


class QueueBody(Body):
    """Jobs that wait or run, in the order of their turns, or all jobs, the newest first.

    Args:
        waiting: Number of jobs that wait for a worker.
        running: Number of jobs that a worker runs.
        after: Mark of the page's end; None on the last page.
    """

    jobs: tuple[JobBody, ...]
    count: int
    waiting: int
    running: int
    after: str | None = None


class WorkerBody(Body):
    """A worker that holds jobs.

    Args:
        name: Machine and process of the worker.
        jobs: Jobs that it runs.
        expires_at: Time at which its first lease ends without a heartbeat.
        alive: Whether all its leases hold.
        seen_at: Time of its last heartbeat.
        trials: Number of trials that its searches run.
        cpus: Shares of CPUs that these trials hold.
        gpus: Shares of GPUs that these trials hold.
        nodes: Machines of these trials.
    """

    name: str
    jobs: tuple[JobBody, ...]
    expires_at: datetime
    alive: bool
    seen_at: datetime | None = None
    trials: int = 0
    cpus: float = 0.0
    gpus: float = 0.0
    nodes: tuple[str, ...] = ()


class WorkerList(Body):
    """Workers that hold jobs; an idle worker is not known to the database."""

    workers: tuple[WorkerBody, ...]
    count: int
