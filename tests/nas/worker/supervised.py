"""Supervised commands as forks of one process that has loaded the store, which takes half a second in each.

``python -m tests.nas.worker.supervised FD`` forks a command for each request that the socket ``FD`` brings. A request
is a list of arguments with the streams of the command; its answer is the process id. A process id alone is a request
to wait for this command; its answer is what :func:`os.waitpid` returns.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nas.host.interrupts import INTERRUPTED
from nas.store import Store
from nas.worker.lease import held_search
from nas.worker.supervisor import Times, supervised

_LONGEST = 65536
_WAIT_SECONDS = 120.0


class Command:
    """A supervised command that runs, as :class:`subprocess.Popen` has it."""

    def __init__(self, server: socket.socket, arguments: list[str]) -> None:
        (out, out_writer), (err, err_writer) = os.pipe(), os.pipe()
        socket.send_fds(server, [json.dumps(arguments).encode()], [out_writer, err_writer])
        for writer in (out_writer, err_writer):
            os.close(writer)
        self.pid: int = json.loads(server.recv(_LONGEST))
        self.returncode: int | None = None
        self.stdout, self._stderr = os.fdopen(out), os.fdopen(err)
        self._server = server

    def wait(self) -> int:
        """Wait for its end; return the exit code, negative for a signal."""
        if self.returncode is None:
            self._server.send(json.dumps(self.pid).encode())
            self.returncode = os.waitstatus_to_exitcode(json.loads(self._server.recv(_LONGEST)))
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """Wait for its end; return the rest of what it has printed on both streams."""
        with self.stdout, self._stderr:
            said = self.stdout.read(), self._stderr.read()
        self.wait()
        return said

    def kill(self) -> None:
        """Kill it, unless its end is known."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)


@contextmanager
def commands() -> Iterator[socket.socket]:
    """Start the process that forks commands; yield its socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    program = [sys.executable, "-m", "tests.nas.worker.supervised", str(theirs.fileno())]
    with ours, subprocess.Popen(program, cwd=Path(__file__).parents[3], pass_fds=[theirs.fileno()]):
        theirs.close()
        ours.settimeout(_WAIT_SECONDS)
        try:
            yield ours
        finally:
            ours.close()  # which ends it


def _forked(requests: socket.socket) -> list[str]:
    """Return in each fork, with its arguments; end with the socket."""
    while True:
        message, streams, _, _ = socket.recv_fds(requests, _LONGEST, 2)
        if not message:
            sys.exit()
        request = json.loads(message)
        if isinstance(request, int):
            requests.send(json.dumps(os.waitpid(request, 0)[1]).encode())
            continue
        pid = os.fork()
        if pid == 0:
            requests.close()
            os.setsid()
        for number, stream in enumerate(streams, start=1):
            if pid == 0:
                os.dup2(stream, number)
            os.close(stream)
        if pid == 0:
            return [str(argument) for argument in request]
        requests.send(json.dumps(pid).encode())


def _run(url: str, study_id: str, lives: str, body: str, grace: str) -> None:
    """Hold the search in a supervised child, and execute ``body`` there."""
    times = Times(grace=float(grace), term=0.5, idle=0.5, second=0.5, pause=0.005)
    part = supervised(url, times=times)
    with Path(lives).open("a") as file:
        file.write(f"{os.getpid()} {part.study_id}\n")
    count = len(Path(lives).read_text().splitlines())
    try:
        if body != "idle":
            with Store.open(url) as store, held_search(store, part.study_id or study_id, hold=part.hold):
                exec(body, {"os": os, "signal": signal, "time": time, "count": count})
        else:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            print("idle", flush=True)
            time.sleep(60)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    print("done", flush=True)


if __name__ == "__main__":
    gc.freeze()  # a fork that searches for garbage would copy all that is loaded
    _run(*_forked(socket.socket(fileno=int(sys.argv[1]))))
