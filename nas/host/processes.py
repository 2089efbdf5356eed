"""Processes of this machine, from /proc: the remains of a session, and orphans of a private Ray."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PROC = Path("/proc")


def die_with(parent: int, number: signal.Signals) -> None:
    """Make the kernel send a signal to this process when its parent ends (Linux).

    Args:
        parent: Process id of the parent, read before this process was started.
        number: Signal; if the parent has already ended, this process ends with exit code 1.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def end_session(leader: int) -> None:
    """Kill what remains of a session: Ray's daemons and trials outlive a search that was killed.

    Args:
        leader: Process id of the session's first process.
    """
    for pid in other_processes():
        with suppress(OSError, IndexError):  # it has ended meanwhile
            fields = (_PROC / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] != "Z":
                os.kill(pid, signal.SIGKILL)


def command_line(pid: int) -> list[str]:
    """Return the words of a process's command line; none if it has ended."""
    try:
        text = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return text.decode(errors="replace").rstrip("\0").split("\0")


def other_processes() -> Iterator[int]:
    """Yield the process ids of this user's other processes."""
    with suppress(OSError), os.scandir(_PROC) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.name.isdecimal() and entry.stat().st_uid == os.geteuid() and int(entry.name) != os.getpid():
                    yield int(entry.name)


def open_files(pid: int) -> Iterator[str]:
    """Yield the paths of the open files of a process; none if it has ended."""
    with suppress(OSError):
        for entry in (_PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                yield str(entry.readlink())


def describe_exit(code: int) -> str:
    """Return ``exit code 3``; for a negative code, the name of the signal."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
