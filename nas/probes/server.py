"""A small server that times networks in ONNX Runtime on this machine, for a probe that runs elsewhere.

This file stands alone: it needs Python, onnxruntime and numpy, and nothing else of this project. Copy it to the
machine and start it there::

    NAS_PROBE_TOKEN=... python server.py --host 0.0.0.0 --port 8766

It listens on the loopback unless ``--host`` says otherwise. Each request needs the token. It runs ONNX files that it
receives, keeps them in memory, and opens no path of a request. It only times: stopping rules, ratios and intervals
are the client's business.

=========================  ==============================================================================
``GET /v1/device``         name, number of processors, versions
``POST /v1/networks``      an ONNX file with fixed sizes (``?threads=1``); the answer is ``{"id": ...}``
``DELETE /v1/networks/ID``  forgets it
``POST /v1/turns``         ``{"networks": [ID, ...], "passes": 50, "seconds": 20}``; the answer is
                            ``{"passes": [[[ms, busy_ms, held], ...], ...]}``, one list for each network
=========================  ==============================================================================
"""

from __future__ import annotations

import argparse
import gc
import hmac
import json
import os
import platform
import secrets
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

if sys.platform != "win32":  # there, no lock joins processes, and interruptions stay unseen
    import fcntl
    import resource

PORT = 8766
TOKEN_VARIABLE = "NAS_PROBE_TOKEN"  # noqa: S105 (a name, no password)
MAX_PASSES = 100_000
_MAX_SECONDS = 60.0  # of one request; the client asks again
_MAX_NETWORKS = 8
_MAX_QUESTION = 1 << 16
_SOCKET_SECONDS = 60.0
_EXTERNAL_DATA = b"\n\x08location\x12"  # a tensor's data in another file, as protocol buffers write it

Run = Callable[[], object]
Pass = tuple[float, float, bool]
"""Milliseconds of a pass by the clock, those of the processor over all threads, and whether other work interrupted it.
"""


def timed(run: Run) -> Pass:
    """Time one pass on the processor."""
    before, busy = _interruptions(), time.process_time_ns()
    start = time.perf_counter_ns()
    run()
    ms = (time.perf_counter_ns() - start) / 1e6
    return ms, (time.process_time_ns() - busy) / 1e6, _interruptions() != before


def _interruptions() -> int:
    """Return how often the system has taken the processor from this process."""
    return 0 if sys.platform == "win32" else resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def take_turns(
    runs: Sequence[Run], count: int, *, seconds: float = float("inf"), clock: Callable[[Run], Pass] = timed
) -> list[list[Pass]]:
    """Time networks in turn, so that a drift of the machine meets all of them alike.

    Args:
        runs: Functions that run one pass of a network each.
        count: Number of rounds; each network has one pass in a round.
        seconds: Time after which no further round starts; there is at least one.
        clock: Function that times one pass.

    Returns:
        Passes of each network in their order.
    """
    passes: list[list[Pass]] = [[] for _ in runs]
    collects = gc.isenabled()
    gc.disable()
    end = time.monotonic() + seconds
    try:
        for turn in range(count):
            if turn and time.monotonic() > end:
                break
            for run, found in zip(runs, passes, strict=True):
                found.append(clock(run))
    finally:
        if collects:
            gc.enable()
    return passes


def lock_path(device: str) -> Path:
    """Return the file whose lock probes of ``device`` hold, which all processes of this machine share."""
    shared = Path("/tmp")  # noqa: S108 (TMPDIR may differ between the processes of one machine)
    folder = shared if os.access(shared, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    return folder / f"nas-latency-{device}.lock"


def processor_name() -> str:
    """Return the name that the processor reports."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model\t", "Hardware\t")):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: only the platform module is left
    return platform.processor() or platform.machine()


def onnx_session(file: Any, threads: int, batch: int | None = None) -> Any:
    """Return a session of ONNX Runtime on the processor.

    Args:
        file: ONNX file: its path or its bytes.
        threads: Number of threads of an operation.
        batch: Size of a free dimension called ``batch``, for which the runtime then plans; None leaves it free.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    if batch is not None:
        options.add_free_dimension_override_by_name("batch", batch)
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


@contextmanager
def _machine_lock() -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    try:
        held = os.open(lock_path("cpu"), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:  # another user's, or a disk that cannot be written: this server's own lock must suffice
        yield
        return
    with suppress(OSError):
        os.fchmod(held, 0o666)  # whatever the umask: probes of other users wait here too
    with os.fdopen(held, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Refused(Exception):
    """A request that cannot be served, with the status of its answer."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Networks:
    """The networks that a server holds: the newest ones, up to a limit.

    Args:
        limit: Largest number of networks; the one that was used longest ago makes room.
    """

    def __init__(self, limit: int = _MAX_NETWORKS) -> None:
        self._limit = limit
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._lock = threading.Lock()
        self._timing = threading.Lock()

    def add(self, file: bytes, threads: int) -> str:
        """Load an ONNX file and return its id.

        Raises:
            Refused: If ONNX Runtime cannot load it, or its inputs have no fixed sizes.
        """
        if _EXTERNAL_DATA in file:
            raise Refused(HTTPStatus.BAD_REQUEST, "the ONNX file keeps tensors in other files; write one file")
        try:
            session = onnx_session(file, threads)
            run = _runner(session)
        except Refused:
            raise
        except Exception as error:  # the runtime raises exceptions of many types
            reason = " ".join(str(error).split())[:300]
            raise Refused(HTTPStatus.BAD_REQUEST, f"ONNX Runtime cannot run the file: {reason}") from error
        key = secrets.token_hex(8)
        with self._lock:
            self._runs[key] = run
            while len(self._runs) > self._limit:
                self._runs.popitem(last=False)
        return key

    def remove(self, key: str) -> None:
        """Forget a network, which may be unknown."""
        with self._lock:
            self._runs.pop(key, None)

    def turns(self, keys: Sequence[str], count: int, seconds: float) -> list[list[Pass]]:
        """Time networks in turn; requests wait for each other.

        Args:
            keys: Ids of the networks.
            count: Number of rounds.
            seconds: Time after which no further round starts; there is at least one.

        Raises:
            Refused: If a network is unknown.
        """
        with self._lock:
            missing = [key for key in keys if key not in self._runs]
            if missing:
                known = f"it holds the newest {self._limit}"
                raise Refused(HTTPStatus.NOT_FOUND, f"unknown network {missing[0]!r}; {known}, send it again")
            runs = [self._runs[key] for key in keys]
            for key in keys:
                self._runs.move_to_end(key)
        with self._timing, _machine_lock():
            return take_turns(runs, count, seconds=min(seconds, _MAX_SECONDS))


def _runner(session: Any) -> Run:
    import numpy as np

    generator = np.random.default_rng(0)
    feed = {}
    for entry in session.get_inputs():
        if entry.type != "tensor(float)" or not all(isinstance(size, int) for size in entry.shape):
            given = f"{entry.name} is {entry.type} of shape {entry.shape}"
            raise Refused(HTTPStatus.BAD_REQUEST, f"{given}, but inputs must be float32 tensors of fixed sizes")
        feed[entry.name] = generator.standard_normal(entry.shape, dtype=np.float32)
    session.run(None, feed)
    return lambda: session.run(None, feed)


def describe_device() -> dict[str, Any]:
    """Return what timings of this machine depend on."""
    import onnxruntime

    return {
        "device_name": processor_name(),
        "cpus": os.cpu_count(),
        "system": platform.platform(),
        "versions": {"onnxruntime": onnxruntime.__version__, "python": platform.python_version()},
    }


class _Handler(BaseHTTPRequestHandler):
    server: ProbeServer
    timeout = _SOCKET_SECONDS
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        if self.server.verbose:
            super().log_message(format, *args)

    def _answer(self) -> None:
        try:
            status, content = HTTPStatus.OK, self._serve(self.command)
        except Refused as refused:
            status, content = refused.status, {"error": str(refused)}
        except Exception as error:  # a fault of one request must not end the server
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            status, content = HTTPStatus.INTERNAL_SERVER_ERROR, {"error": reason}
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status is not HTTPStatus.OK:
            self.send_header("Connection", "close")  # a part of the body may be unread
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = _answer

    def _serve(self, method: str) -> dict[str, Any]:
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.server.token}".encode()):
            raise Refused(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong; send Authorization: Bearer TOKEN")
        address = urlsplit(self.path)
        place = (method, *address.path.strip("/").split("/"))
        if place == ("GET", "v1", "device"):
            return describe_device()
        if place == ("POST", "v1", "networks"):
            threads = _threads(parse_qs(address.query).get("threads", ["1"])[-1])
            return {"id": self.server.networks.add(self._body(self.server.max_bytes), threads)}
        if place[:3] == ("DELETE", "v1", "networks") and len(place) == 4:
            self.server.networks.remove(place[3])
            return {}
        if place == ("POST", "v1", "turns"):
            return {"passes": self.server.networks.turns(*_question(self._body(_MAX_QUESTION)))}
        raise Refused(HTTPStatus.NOT_FOUND, f"there is no {method} {address.path}")

    def _body(self, limit: int) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing")
        if int(length) > limit:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has {length} bytes, but at most {limit} pass")
        return self.rfile.read(int(length))


def _threads(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 1024):
        raise Refused(HTTPStatus.BAD_REQUEST, f"threads is {text!r}, but must be a number from 1 to 1024")
    return int(text)


def _question(body: bytes) -> tuple[list[str], int, float]:
    try:
        question = json.loads(body)
        keys, count, seconds = question["networks"], question["passes"], question.get("seconds", _MAX_SECONDS)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Refused(HTTPStatus.BAD_REQUEST, "the body must be JSON with the keys networks and passes") from error
    if not (isinstance(keys, list) and keys and all(isinstance(key, str) for key in keys)):
        raise Refused(HTTPStatus.BAD_REQUEST, f"networks is {keys!r}, but must be a list of ids")
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_PASSES:
        raise Refused(HTTPStatus.BAD_REQUEST, f"passes is {count!r}, but must be a number from 1 to {MAX_PASSES}")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise Refused(HTTPStatus.BAD_REQUEST, f"seconds is {seconds!r}, but must be a number of at least 0")
    return keys, count, float(seconds)


class ProbeServer(ThreadingHTTPServer):
    """The server; ``serve_forever`` runs it.

    Args:
        address: Host and port to listen on; port 0 takes a free one.
        token: Token that each request must carry, at least 16 characters.
        max_bytes: Largest size of an ONNX file in bytes.
        verbose: Whether each request is written to stderr.

    Raises:
        ValueError: If the token is too short.
        OSError: If the address cannot be listened on.
    """

    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], token: str, *, max_bytes: int = 512 << 20, verbose: bool = False
    ) -> None:
        if len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError("the token must be at least 16 printable ASCII characters without spaces")
        self.token = token
        self.max_bytes = max_bytes
        self.verbose = verbose
        self.networks = Networks()
        super().__init__(address, _Handler)


def serve(host: str, port: int, token: str | None, max_mib: int, *, verbose: bool = False) -> None:
    """Run the server until it is interrupted; the first lines of its output say how to reach it.

    Args:
        host: Host to listen on.
        port: Port to listen on; 0 takes a free one.
        token: Token that each request must carry; None makes one and prints it.
        max_mib: Largest size of an ONNX file in MiB.
        verbose: Whether each request is written to stderr.

    Raises:
        ValueError: If the token is too short.
        OSError: If the address cannot be listened on.
    """
    known = token or secrets.token_hex(16)
    with ProbeServer((host, port), known, max_bytes=max_mib << 20, verbose=verbose) as server:
        print(f"timing networks on {processor_name()}: http://{host}:{server.server_address[1]}", flush=True)
        if token is None:
            print(f"token: {known}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server from a command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Time networks in ONNX Runtime, for a probe elsewhere.")
    parser.add_argument("--host", default="127.0.0.1", help="host to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="port to listen on (default: %(default)s)")
    parser.add_argument("--max-mib", type=int, default=512, help="largest ONNX file in MiB (default: %(default)s)")
    parser.add_argument("--verbose", action="store_true", help="write each request to stderr")
    given = parser.parse_args(arguments)
    try:
        serve(given.host, given.port, os.environ.get(TOKEN_VARIABLE), given.max_mib, verbose=given.verbose)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
