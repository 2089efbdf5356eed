"""Names of lease holders, which show whether the process of a holder still lives."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from functools import cache
from pathlib import Path

_NAME = re.compile(r".*:(?P<pid>\d+)/(?P<machine>[0-9a-f]{8})-(?P<start>\d+)")


def worker_name() -> str:
    """Return a name of this process: host and process id for people, then machine and start time for :func:`is_gone`.

    Process ids are reused and hosts share names, so neither alone identifies a process.
    """
    pid = os.getpid()
    name, machine, start = f"{socket.gethostname()}:{pid}", _machine(), _start(pid)
    return f"{name}/{machine}-{start}" if machine and start else name


def is_gone(name: str) -> bool:
    """Return whether the process with that name ran on this machine and is dead; False if that is unknown."""
    found = _NAME.fullmatch(name)
    if found is None or found["machine"] != _machine():
        return False
    return _start(int(found["pid"])) != found["start"]


@cache
def _machine() -> str | None:
    """Return a name of this machine's boot and of its process ids, of which a container has its own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        facts = (socket.gethostname(), boot, str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        return None
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]


def _start(pid: int) -> str | None:
    """Return the start of a process in ticks since the machine's start; None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]
