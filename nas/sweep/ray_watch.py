"""Watches the daemons of a private Ray: a driver that lost one of them hangs for a minute, or is ended by Ray."""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

RAY_LOST = 75
"""Exit code of a driver that lost its Ray; EX_TEMPFAIL of sysexits.h."""

_VITAL = ("gcs_server", "raylet")


@contextmanager
def daemons_watched(lost: Callable[[str], int]) -> Iterator[None]:
    """Watch the daemons of this process's private Ray inside the block.

    Ray's client cannot be restarted in the process: its native code calls ``exit`` within a minute. Therefore the
    process ends when a daemon has ended, and the search continues from the tables in another process.

    Args:
        lost: Function that receives the name of the daemon, in a thread of its own, and returns the exit code of the
            process.
    """
    watched = {os.pidfd_open(pid): name for name, pid in _daemons()} if hasattr(os, "pidfd_open") else {}
    stopped, stop = os.pipe()
    thread = threading.Thread(target=_watch, args=(watched, stopped, lost), name="ray-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.close(stop)
        thread.join()
        for descriptor in (*watched, stopped):
            os.close(descriptor)


def _daemons() -> list[tuple[str, int]]:
    """Return the vital daemons that this process has started; none in a cluster that it has joined."""
    from ray._private import worker

    node = worker._global_node
    started = {} if node is None else node.all_processes
    return [(name, info.process.pid) for name in _VITAL for info in started.get(name, ())]


def _watch(watched: dict[int, str], stopped: int, lost: Callable[[str], int]) -> None:
    poll = select.poll()
    for descriptor in (*watched, stopped):
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
    ended = [descriptor for descriptor, _ in poll.poll()]
    if stopped in ended:
        return
    code = RAY_LOST
    try:
        code = lost(watched[ended[0]])
        sys.stdout.flush()
    except Exception:
        logger.exception("the loss of Ray could not be recorded")
    finally:
        os._exit(code)
