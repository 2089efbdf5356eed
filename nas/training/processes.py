"""Starting the processes of one training on this machine, and ending or restarting them together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from nas.errors import NasError
from nas.host.interrupts import INTERRUPTED, stop_requests
from nas.scratch import scratch_folder
from partialnet.train.launching import RENDEZVOUS

_RESTARTS = 3
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 30.0
_NOTICE_SECONDS = 3.0
LOST_CONNECTION = 75
"""Exit code of a process that lost its connection to another one of the same training."""


def run_processes(command: Sequence[str], count: int, again: str, note: Callable[[str], None]) -> int:
    """Run ``command`` as several processes that share each batch, and wait for them.

    If one is killed, or they lose their connection, all start again from the newest checkpoint, up to three times. A
    request to stop goes to all.

    Args:
        command: Command that resumes the training.
        count: Number of processes.
        again: Command with which the user continues the training.
        note: Function that receives notes for people.

    Returns:
        Exit code of the training.

    Raises:
        NasError: If it happens again and again.
    """
    with stop_requests() as stop:
        for restart in range(_RESTARTS + 1):
            code = _run_once(command, count, stop)
            if stop.is_set():
                return INTERRUPTED
            if code >= 0 and code != LOST_CONNECTION:
                return code
            what = "the processes lost their connection"
            if code < 0:
                what = f"a process was killed ({signal.Signals(-code).name})"
            if restart < _RESTARTS:
                note(f"{what}; continuing from the newest checkpoint")
    raise NasError(f"{what}, for the {_RESTARTS + 1}th time; continue with: {again}")


def lost_connection(error: RuntimeError) -> bool:
    """Return whether another process of the training has gone: each backend says it in words of its own."""
    from torch import distributed

    return isinstance(error, distributed.DistError) or "gloo" in str(error).lower()


def _run_once(command: Sequence[str], count: int, stop: threading.Event) -> int:
    """Return 0, or the exit code of the process that ended first; negative numbers are signals."""
    with scratch_folder("train") as meeting:
        children = [
            subprocess.Popen(command, env=_environment(index, count, meeting / "meet"))
            for index in range(count)
        ]
        try:
            return _wait(children, stop)
        finally:
            _end(children)


def _environment(index: int, count: int, meeting: Path) -> dict[str, str]:
    threads = max(1, (os.cpu_count() or 1) // count)
    own = {
        "RANK": str(index),
        "LOCAL_RANK": str(index),
        "LOCAL_WORLD_SIZE": str(count),
        "WORLD_SIZE": str(count),
        RENDEZVOUS: f"file://{meeting}",
        # Processes of one machine need not be reached from others.
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
    }
    return {"OMP_NUM_THREADS": str(threads), **os.environ, **own}


def _wait(children: Sequence[subprocess.Popen[bytes]], stop: threading.Event) -> int:
    deadline: float | None = None
    while True:
        codes = [child.poll() for child in children]
        failed = [code for code in codes if code]
        if all(code is not None for code in codes) or (deadline is not None and time.monotonic() > deadline):
            break
        if failed and deadline is None:
            # The others notice it within seconds, and the one that was killed may not be the first that is seen.
            deadline = time.monotonic() + _NOTICE_SECONDS
        if stop.is_set() and deadline is None:
            deadline = time.monotonic() + _GRACE_SECONDS
            for child in children:
                if child.poll() is None:
                    child.terminate()
        time.sleep(_POLL_SECONDS)
    # A process that is killed or fails makes the others lose their connection to it: that is the last reason.
    reasons = sorted(code for code in codes if code)
    return next((code for code in reasons if code != LOST_CONNECTION), reasons[0] if reasons else 0)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes that still run: they wait for one that has gone, or write the last checkpoint."""
    deadline = time.monotonic() + _GRACE_SECONDS
    for child in children:
        if child.poll() is None:
            child.terminate()
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
