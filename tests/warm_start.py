"""The processes of ``pytest -n 4`` as forks of one that has already loaded the libraries, which takes seconds in each.

pytest-xdist starts this file in place of Python (:func:`start_warm` sees to that). It passes its standard streams to
the warm process, which forks; the fork becomes the worker. The warm process loads no tests: pytest rewrites these.
Ctrl-C goes to all of these processes. Only workers listen to it; the others end with them.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
import types
from contextlib import suppress
from pathlib import Path

_PLACE = "TESTS_WARM_START"
_LENGTH = 8
_START_SECONDS = 60.0
_LIBRARIES = (
    "pytest", "torchvision", "timm", "torch._dynamo.testing", "ray.tune", "scipy.stats", "sklearn.ensemble", "pandas",
    "pyarrow", "optuna", "psycopg", "alembic.command", "plotly.graph_objects", "nas.cli", "nas.sweep.search",
    "nas.training.run_trial", "nas.worker.runner", "service.app",
)  # fmt: skip


PYTHON = shlex.join([sys.executable, __file__])
"""What stands for Python where pytest-xdist starts a worker."""


def start_warm(folder: Path) -> subprocess.Popen[bytes]:
    """Start the warm process, which ends after its workers when its socket in ``folder`` is gone."""
    place = folder / "warm"
    os.environ[_PLACE] = str(place)
    command = [sys.executable, "-m", "tests.warm_start", str(place)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[1], stdin=subprocess.DEVNULL)


def _ask() -> None:
    """Let the warm process fork a worker with our code, environment and streams; live as long as it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = _connect(Path(os.environ[_PLACE]))
    if connection is None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # Python would inherit that it is ignored
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    message = json.dumps([sys.argv[-1], dict(os.environ), str(Path.cwd())]).encode()
    with connection:
        socket.send_fds(connection, [len(message).to_bytes(_LENGTH, "big")], [0, 1, 2])
        connection.sendall(message)
        connection.recv(1)  # nothing comes: the worker's end closes it


def _connect(place: Path) -> socket.socket | None:
    """Connect to the warm process once it has loaded everything; return None if it does not come or has died."""
    connection = socket.socket(socket.AF_UNIX)
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        try:
            connection.connect(str(place))
        except FileNotFoundError:
            time.sleep(0.1)
        except ConnectionRefusedError:
            return None
        else:
            return connection
    return None


def _serve(place: Path) -> None:
    """Load the libraries, then fork a worker for each request, while our parent and the socket's file are there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    gc.disable()  # there is no garbage yet
    for name in _LIBRARIES:
        with suppress(Exception):  # the tests that need it say what is wrong
            importlib.import_module(name)
    gc.freeze()
    gc.enable()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place))
    listener.listen(64)
    while place.exists() and os.getppid() == parent:
        if not select.select([listener], [], [], 0.5)[0]:
            continue
        connection = listener.accept()[0]
        if os.fork() == 0:
            listener.close()
            _become_worker(connection)
        connection.close()
    with suppress(ChildProcessError):  # whoever measures our time wants theirs
        while True:
            os.wait()


def _become_worker(connection: socket.socket) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    length, streams, _, _ = socket.recv_fds(connection, _LENGTH, 3)
    with connection.makefile("rb") as stream:
        code, environment, folder = json.loads(stream.read(int.from_bytes(length, "big")))
    for number, stream_number in enumerate(streams):
        os.dup2(stream_number, number)
        os.close(stream_number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    random.seed()
    sys.argv = ["-c"]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(code, vars(main))
    sys.exit()


if __name__ == "__main__":
    if len(sys.argv) == 2:
        _serve(Path(sys.argv[1]))
    else:
        _ask()
