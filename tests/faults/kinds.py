"""The kinds of faults: what is done to a study's processes, and where the study runs."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType

from tests.faults.sites import ClockSite, PostgresSite, RunSite, ServiceSite, Site

_JUMP_SECONDS = 3600


def kill(find: Callable[[Site], int | None]) -> Callable[[Site], bool]:
    """Return a function that kills the process that ``find`` returns, if there is one."""

    def strike(site: Site) -> bool:
        pid = find(site)
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        return True

    return strike


def kill_all_trials(site: Site) -> bool:
    """Kill all processes that train at once, if there are at least two."""
    pids = site.ray_workers()
    if len(pids) < 2:
        return False
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return True


def sleep_through_the_lease(site: Site) -> bool:
    """Stop worker and search for longer than their lease, beside another worker; then let them go on."""
    pids = [site.program(), site.job_child()]
    if None in pids:
        return False
    for pid in pids:
        os.kill(pid or 0, signal.SIGSTOP)
    site.start_second()
    time.sleep(40)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid or 0, signal.SIGCONT)
    return True


def lock_beside_an_idle_worker(site: Site) -> bool:
    """Lock the database for 33 s while one worker searches and another waits."""
    site.start_second()
    time.sleep(5)
    site.lock_database(33)
    return True


def jump_forward(site: Site) -> bool:
    """Set the clock forward by an hour under a search that holds a lease, beside a worker that waits for its end."""
    assert isinstance(site, ClockSite)
    if site.job_child() is None:
        return False
    site.start_second()
    time.sleep(5)
    site.jump(_JUMP_SECONDS)
    return True


def jump_back(site: Site) -> bool:
    """Set the clock back by an hour and kill the worker at once, so that its last lease seems to last for an hour."""
    assert isinstance(site, ClockSite)
    pid = site.program()
    if pid is None or site.job_child() is None:
        return False
    site.start_second()
    time.sleep(5)
    os.kill(pid, signal.SIGKILL)
    site.jump(-_JUMP_SECONDS)
    return True


def _postgres(site: Site) -> bool:
    assert isinstance(site, PostgresSite)
    return site.kill_database(random.Random(site.study_id).uniform(1, 8))


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Args:
        strike: Function that injects it, and returns whether it found its process.
        site: Place where the study runs.
        concurrent: Number of trials at once.
    """

    strike: Callable[[Site], bool]
    site: type[Site] = Site
    concurrent: int = 1


KILLS: Mapping[str, Fault] = MappingProxyType(
    {
        "ray worker": Fault(kill(lambda site: next(iter(site.ray_workers()), None))),
        "raylet": Fault(kill(lambda site: site.daemon("raylet"))),
        "gcs": Fault(kill(lambda site: site.daemon("gcs_server"))),
        "job child": Fault(kill(Site.job_child)),
        "worker": Fault(kill(Site.program)),
        "driver": Fault(kill(Site.driver), RunSite),
        "service": Fault(kill(Site.program), ServiceSite),
        "postgresql": Fault(_postgres, PostgresSite),
    }
)
OTHERS: Mapping[str, Fault] = MappingProxyType(
    {
        "all trials": Fault(kill_all_trials, concurrent=2),
        "sleep": Fault(sleep_through_the_lease),
        "lock": Fault(lock_beside_an_idle_worker),
        "clock forward": Fault(jump_forward, ClockSite),
        "clock back": Fault(jump_back, ClockSite),
    }
)
FAULTS: Mapping[str, Fault] = MappingProxyType({**KILLS, **OTHERS})


def missing(name: str) -> str | None:
    """Return what this machine lacks for a kind of fault, in words; None if nothing."""
    if FAULTS[name].site is ClockSite and shutil.which("cc") is None:
        return f"{name}: a clock that jumps is built by a C compiler, and there is no cc"
    return None
