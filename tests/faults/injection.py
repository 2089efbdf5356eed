"""kill -9 at random moments over small real studies below a worker, and what it cost."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nas.definition.study import StudyDefinition
from nas.jobs import Job
from nas.store import Store
from nas.study import StudyState
from nas.training.feasibility import reference_point
from nas.trial import TrialState
from tests.faults.studies import essence

_LONGEST_SECONDS = 900.0


@dataclass(frozen=True)
class Damage:
    """What kills did to one study.

    Args:
        target: Process that was killed.
        kills: Number of kills.
        state: State of the study at the end.
        lost: Trials of the undisturbed run that did not come to the same end.
        doubled: Trials that the undisturbed run does not have.
        zombies: Trials that are still called running.
        repeated: Epochs that were recorded more than once.
        differ: Trials whose decisions, epochs, scores or weights are not those of the undisturbed run.
        left: Processes and folders that outlive it.
        seconds: Time in seconds until the study had ended.
    """

    target: str
    kills: int
    state: StudyState
    lost: int
    doubled: int
    zombies: int
    repeated: int
    differ: int
    left: int
    seconds: float

    @property
    def harmless(self) -> bool:
        """Whether nothing was lost but an epoch for each kill."""
        damage = self.lost + self.doubled + self.zombies + self.differ
        return self.state is StudyState.FINISHED and not damage and self.repeated <= self.kills


@dataclass(frozen=True)
class Ran:
    """A study that was run.

    Args:
        study_id: Its id.
        kills: Number of kills.
        seconds: Time in seconds until it had ended.
    """

    study_id: str
    kills: int
    seconds: float


class Site:
    """A store, a storage and a worker process in folders of their own, which are deleted at the end."""

    def __init__(self, definition: StudyDefinition) -> None:
        self.definition = definition
        # Short: Ray's sockets lie below it.
        self.folder = Path(tempfile.mkdtemp(prefix="nf-"))
        self.scratch = self.folder / "t"
        self.scratch.mkdir()
        self.url = f"sqlite:///{self.folder}/nas.db"
        self.store = Store.open(self.url)
        self._worker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.processes():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if self._worker is not None:
            self._worker.wait()
        self.store.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, target: str | None = None, moments: tuple[float, ...] = ()) -> Ran:
        """Run a study to its end, and kill ``target`` at ``moments``.

        Moments are counted in epochs that are recorded, so that they do not depend on how busy the machine is; what is
        behind the point are seconds to wait from there.
        """
        study, job = self.store.submit_study(self.definition, reference_point(self.definition))
        began, kills, left = time.monotonic(), 0, list(moments)
        reached = began
        while not self.store.job(job.id).state.ended:
            if time.monotonic() - began > _LONGEST_SECONDS:
                break
            self._keep_a_worker()
            done = sum(len(trial.history) for trial in self.store.trials(study.id, history=True))
            if not left or done < int(left[0]):
                reached = time.monotonic()
            elif target and time.monotonic() - reached >= left[0] % 1:
                pid = TARGETS[target](self, job)
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
                    kills += 1
                    left.pop(0)
            time.sleep(0.1)
        ended = time.monotonic()
        if self._worker is not None:
            with suppress(subprocess.TimeoutExpired):
                self._worker.wait(60)
        return Ran(study.id, kills, ended - began)

    def _keep_a_worker(self) -> None:
        """Start a worker if there is none: what a service manager does."""
        if self._worker is not None and self._worker.poll() is None:
            return
        settings = {"NAS_DATABASE_URL": self.url, "NAS_STORAGE": str(self.folder / "storage")}
        environment = {**os.environ, **settings, "TMPDIR": str(self.scratch), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "nas.worker", "--once", "--runs", str(self.folder / "runs")]
        with (self.folder / "worker.log").open("ab") as log:
            self._worker = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def worker(self, _job: Job) -> int | None:
        """Return the worker's process."""
        return None if self._worker is None or self._worker.poll() is not None else self._worker.pid

    def driver(self, job: Job) -> int | None:
        """Return the process of the search, below the worker."""
        return next((pid for pid in self.processes() if {"--job", job.id} <= set(_words(pid))), None)

    def ray_worker(self, job: Job) -> int | None:
        """Return the process that trains, if one does."""
        assert job.study_id is not None
        alive = set(self.processes())
        running = [t for t in self.store.trials(job.study_id) if t.state is TrialState.RUNNING and t.placement]
        return next((t.placement.pid for t in running if t.placement and t.placement.pid in alive), None)

    def daemon(self, name: str) -> int | None:
        """Return a daemon of Ray by the name of its program."""
        return next((pid for pid in self.processes() if Path(_words(pid)[0]).name == name), None)

    def processes(self) -> list[int]:
        """Return all processes that were started for this site, by their environment."""
        found, mark = [], f"NAS_DATABASE_URL={self.url}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0") and _words(int(entry.name))[0]:
                    found.append(int(entry.name))
        return found

    def left_behind(self) -> list[str]:
        """Return what outlives a search: processes, and folders beside the storage."""
        deadline = time.monotonic() + 20  # daemons of Ray end when they notice
        while (pids := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.5)
        processes = [" ".join(_words(pid))[:80] for pid in pids]
        return processes + [path.name for path in self.scratch.iterdir() if path.name.startswith("nas-")]

    def outcome(self, study_id: str) -> list[dict[str, Any]]:
        """Return what a fault must not change."""
        return essence(self.store, study_id, self.folder / "storage")

    def repeated_epochs(self, study_id: str) -> int:
        """Return how many epochs were recorded again with other figures."""
        events = [event.payload for event in self.store.events_after(study_id, 0) if event.kind == "epoch"]
        return len(events) - len({(event["number"], event["epoch"]) for event in events})


TARGETS: Mapping[str, Callable[[Site, Job], int | None]] = MappingProxyType(
    {
        "ray worker": Site.ray_worker,
        "driver": Site.driver,
        "worker": Site.worker,
        "raylet": lambda site, _job: site.daemon("raylet"),
        "gcs": lambda site, _job: site.daemon("gcs_server"),
    }
)


def inject(
    definition: StudyDefinition, plan: Mapping[str, int], seed: int, tell: Callable[[str], object]
) -> list[Damage]:
    """Run one study undisturbed, then one for each target of ``plan`` with that many kills.

    Args:
        definition: Definition of the studies.
        plan: Target to kills.
        seed: Seed of the moments.
        tell: Function that receives a line of progress.
    """
    with Site(definition) as site:
        whole = site.run()
        study = site.store.study(whole.study_id)
        assert study.state is StudyState.FINISHED, f"the undisturbed run is {study.state.value}: {study.reason}"
        wanted = site.outcome(whole.study_id)
        epochs = sum(len(entry["epochs"]) for entry in wanted)
        states = {entry["trial"][2] for entry in wanted}
        tell(f"undisturbed: {len(wanted)} trials, {', '.join(sorted(states))}; {whole.seconds:.0f} s")
    found = []
    for place, (target, kills) in enumerate(plan.items()):
        generator = random.Random(f"{seed}:{place}")
        moments = tuple(sorted(generator.uniform(0, epochs - 1) for _ in range(kills)))
        with Site(definition) as site:
            ran = site.run(target, moments)
            assert ran.kills == kills, f"{target}: only {ran.kills} of {kills} kills found their process"
            found.append(_damage(site, ran, target, wanted))
            for line in site.left_behind():
                tell(f"  left behind: {line}")
        tell(f"{target}: {kills} kills, study {found[-1].state.value}; {ran.seconds:.0f} s")
    return found


def _damage(site: Site, ran: Ran, target: str, wanted: list[dict[str, Any]]) -> Damage:
    outcome = site.outcome(ran.study_id)
    paired = list(zip(outcome, wanted, strict=False))
    ended = sum(mine["trial"][2] == theirs["trial"][2] for mine, theirs in paired)
    return Damage(
        target=target,
        kills=ran.kills,
        state=site.store.study(ran.study_id).state,
        lost=len(wanted) - ended,
        doubled=max(0, len(outcome) - len(wanted)),
        zombies=sum(entry["trial"][2] == TrialState.RUNNING.value for entry in outcome),
        repeated=site.repeated_epochs(ran.study_id),
        differ=sum(mine != theirs for mine, theirs in paired),
        left=len(site.left_behind()),
        seconds=ran.seconds,
    )


def _words(pid: int) -> list[str]:
    """Return a process's command line; of one that has ended a single empty word."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return [""]
