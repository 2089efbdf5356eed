"""The kinds of jobs, one file for each. A new kind is a file, and an entry in :data:`KINDS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nas.jobs import Job, JobKind, Result
from nas.settings import Settings
from nas.store import Store
from nas.worker.kinds import export, search, train


@dataclass(frozen=True)
class KindOfJob:
    """The way in which a kind of job runs.

    Args:
        run: Function that runs a leased job in a process of its own, with a store that its lease fences. It returns the
            result, or None if it was interrupted, which the worker then explains.
        places: Number of jobs that run at once, besides those of other kinds.
    """

    run: Callable[[Store, Job, Settings], Result | None]
    places: int = 1


# An export need not wait for hours of search, but two searches would share the machine's cores.
KINDS: Mapping[JobKind, KindOfJob] = MappingProxyType(
    {
        JobKind.SEARCH: KindOfJob(search.run),
        JobKind.EXPORT: KindOfJob(export.run),
        JobKind.TRAIN: KindOfJob(train.run),
    }
)
