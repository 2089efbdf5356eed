"""Ray's worker processes as forks of one process that has already loaded torch, which takes seconds of processor time.

Ray starts this file in place of its own program for workers (:func:`warm_workers` sees to that). It passes its
arguments, environment and output to the warm process, which forks; the fork becomes the worker. The shared Ray of the
tests does so, and that of a process which a test starts and which asks for it (:func:`share_warm_workers`): they fork
from the same warm process. The Ray of a command loads everything itself, as it does for users.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_FOLDER = "TESTS_WARM_WORKERS"
_OWNER = "TESTS_WARM_OWNER"
_LENGTH = 8
_START_SECONDS = 60.0
_MOST_IDENTITIES = 1_000  # forks are so many draws apart, so a worker must draw fewer; each takes a microsecond


def _ask() -> None:
    """Let the warm process fork a worker with our arguments, environment and output; live as long as it does."""
    place = Path(os.environ[_FOLDER], "warm")
    prepared = _prepared()
    variables = prepared.get("env_vars", {})
    sent = "command_prefix" in prepared or "PYTHONPATH" in variables  # code that is not the warm process's
    forks = sys.platform == "linux"  # elsewhere a fork of what has loaded libraries may fail
    connection = _connect(place) if forks and not sent else None
    if connection is None:
        cold = Path(sys.argv[1]).with_name("setup_worker.py")
        os.execv(sys.executable, [sys.executable, str(cold), *sys.argv[1:]])
    message = json.dumps([sys.argv[1:], {**os.environ, **variables}, str(Path.cwd())]).encode()
    with connection:
        socket.send_fds(connection, [len(message).to_bytes(_LENGTH, "big")], [1, 2])
        connection.sendall(message)
        connection.recv(1)  # nothing comes: the worker's end closes it


def _prepared() -> dict[str, Any]:
    """Return the environment that Ray has prepared for the worker: variables of Tune, code that a search sends."""
    contexts = [word.partition("=")[2] for word in sys.argv if word.startswith("--serialized-runtime-env-context=")]
    return {key: value for context in contexts for key, value in json.loads(context).items() if value}


def _connect(place: Path) -> socket.socket | None:
    """Connect to the warm process, and start it first if we are the first worker; return None if it has died."""
    with suppress(FileExistsError):
        place.with_suffix(".begun").mkdir()
        _start(place)
    connection = socket.socket(socket.AF_UNIX)
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError):
            try:
                connection.connect(str(place))
            except ConnectionRefusedError:
                return None
            return connection
        time.sleep(0.1)
    return None


def _start(place: Path) -> None:
    """Start the warm process in the environment of a worker: Ray reads some of it as it is loaded."""
    environment = {key: value for key, value in os.environ.items() if key != _FOLDER}
    command = [sys.executable, "-m", "tests.warm_workers", str(place)]
    subprocess.Popen(command, cwd=Path(__file__).parents[1], env=environment, start_new_session=True)


def _serve(place: Path) -> None:
    """Load what trials need, then fork a worker for each request, while the socket's file and our tests are there."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place))
    listener.listen(16)  # requests wait until all is loaded
    gc.disable()  # there is no garbage yet
    import torch

    import nas.sweep.trainable
    import nas.training.run_trial  # noqa: F401

    torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1)  # loads the rest
    gc.freeze()  # a trial begins with a collection of garbage, which would copy all that is loaded here
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that no zombies stay
    forks = 0
    owner = Path("/proc", os.environ[_OWNER])  # forks are made on Linux only
    while place.exists() and owner.exists():
        if not select.select([listener], [], [], 1.0)[0]:
            continue
        connection = listener.accept()[0]
        forks += 1
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            draw_own_identities(forks)
            _become_worker(connection)
        connection.close()


def draw_own_identities(number: int) -> None:
    """Move Ray's random generator on, so that this fork's identities are not those of the others.

    A fork inherits the generator's state. Two workers that start at the same time would put the same object into the
    store; Ray ends one of them then, and its driver waits for that worker for ever.

    Args:
        number: Number of this fork, from 1.
    """
    from ray._raylet import UniqueID

    for _ in range(number * _MOST_IDENTITIES):
        UniqueID.from_random()


def _become_worker(connection: socket.socket) -> None:
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # compiled

    os.setsid()  # Ray kills the group of a worker
    length, outputs, _, _ = socket.recv_fds(connection, _LENGTH, 2)
    with connection.makefile("rb") as stream:
        arguments, environment, folder = json.loads(stream.read(int.from_bytes(length, "big")))
    for number, output in enumerate(outputs, start=1):
        os.dup2(output, number)
        os.close(output)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    AuthenticationTokenLoader.instance().reset_cache()  # each Ray has a token of its own
    sys.argv = [word for word in arguments if not word.startswith(("--language", "--serialized-runtime-env"))]
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit()


@contextmanager
def warm_workers() -> Iterator[None]:
    """Make a Ray that is started inside the block fork its workers."""
    import pytest
    from ray._private import ray_constants

    with tempfile.TemporaryDirectory(prefix="warm-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv(_FOLDER, folder)
        patch.setenv(_OWNER, str(os.getpid()))
        patch.setattr(ray_constants, "SETUP_WORKER_FILENAME", __file__)
        yield


def share_warm_workers() -> None:
    """Make a Ray that this process starts fork its workers from the warm process of the test that started us.

    Call it inside :func:`nas.sweep.cluster.quiet_ray`, since Ray reads settings as it is loaded.

    Raises:
        KeyError: If the test is not inside :func:`warm_workers`.
    """
    from ray._private import ray_constants

    assert Path(os.environ[_FOLDER]).is_dir()
    ray_constants.SETUP_WORKER_FILENAME = __file__


if __name__ == "__main__":
    if _FOLDER in os.environ:
        _ask()
    else:
        _serve(Path(sys.argv[1]))
