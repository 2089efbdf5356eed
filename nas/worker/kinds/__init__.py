"""One file for each kind of job: what its process runs. A new kind is a file, and an entry in :data:`KINDS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nas.jobs import Job, JobKind, Result
from nas.settings import Settings
from nas.store import Store
from nas.worker.kinds import export, search


@dataclass(frozen=True)
class KindOfJob:
    """How a kind of job is run.

    Args:
        run: Runs a leased job in a process of its own, with a store that its lease fences; returns how it ended, or
            None if it was interrupted, which the worker explains.
        places: How many run at once beside those of other kinds.
    """

    run: Callable[[Store, Job, Settings], Result | None]
    places: int = 1


# An export need not wait for hours of search, but two searches would share the machine's cores.
KINDS: Mapping[JobKind, KindOfJob] = MappingProxyType(
    {JobKind.SEARCH: KindOfJob(search.run), JobKind.EXPORT: KindOfJob(export.run)}
)
