"""The supervisor of ``nas run``, with searches that only hold their lease: they die, hang, and are stopped."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.jobs import DesiredState, JobState
from nas.store import Store
from nas.store.leased_jobs import MAX_ATTEMPTS
from nas.study import Study, StudyState
from tests.nas.store.makers import REFERENCE, definition
from tests.nas.worker.supervised import Command, commands
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="supervised on Linux only")

DIES = "os.kill(os.getpid(), signal.SIGKILL)"
DIES_TWICE = f"count > 2 or {DIES}"
WAITS = "print('held', flush=True); time.sleep(60)"
HANGS = f"[signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)]; {WAITS}"


class Started:
    """A supervised command over a study of its own."""

    def __init__(self, folder: Path, server: socket.socket) -> None:
        self.url, self.lives = f"sqlite:///{folder}/nas.db", folder / "lives"
        self.store = Store.open(self.url)
        self.study: Study = self.store.create_study(definition(), reference_point=REFERENCE)
        self.process: Command | None = None
        self._server = server

    def start(self, body: str, until: str | None = None, grace: float = 1.0) -> Command:
        """Start it, and wait for a line that it prints."""
        arguments = [self.url, self.study.id, str(self.lives), body, str(grace)]
        self.process = Command(self._server, arguments)
        if until is not None:
            assert self.process.stdout.readline() == f"{until}\n"
        return self.process

    @property
    def children(self) -> list[tuple[int, str]]:
        """Process ids of the children so far, and the study that each of them was to continue."""
        lines = self.lives.read_text().splitlines() if self.lives.exists() else []
        return [(int(line.split()[0]), line.split()[1]) for line in lines]

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.store.close()


@pytest.fixture(scope="module")
def server() -> Iterator[socket.socket]:
    """What starts the commands."""
    with commands() as made:
        yield made


@pytest.fixture
def command(tmp_path: Path, server: socket.socket) -> Iterator[Started]:
    made = Started(tmp_path, server)
    yield made
    made.close()


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_search_whose_process_is_killed_is_continued(command: Started) -> None:
    out, err = command.start(DIES_TWICE).communicate()
    assert (command.process.returncode, out) == (0, "done\n")
    assert err.count("the process of the search ended with SIGKILL; it continues from its last epochs") == 2
    assert [study for _, study in command.children] == ["None", command.study.id, command.study.id]
    [job] = command.store.jobs(command.study.id)
    assert (job.attempt, job.epoch) == (3, 3)


def test_not_for_ever_without_progress(command: Started) -> None:
    _, err = command.start(DIES).communicate()
    assert command.process.returncode == 1
    assert len(command.children) == MAX_ATTEMPTS
    assert f"study {command.study.name} failed: {MAX_ATTEMPTS} times in a row, without progress between" in err
    assert command.store.study(command.study.id).state is StudyState.FAILED


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(number, marks=pytest.mark.long) for number in (signal.SIGTERM, signal.SIGHUP))],
)
def test_a_signal_to_the_group_reaches_the_search_once_and_in_order(command: Started, number: signal.Signals) -> None:
    process = command.start(WAITS, until="held")
    [(child, _)] = command.children
    assert os.getsid(child) == child != os.getsid(process.pid)
    os.kill(process.pid, number)
    os.killpg(process.pid, number)  # as `timeout` does
    out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "")
    [job] = command.store.jobs(command.study.id)
    assert (job.state, command.store.study(command.study.id).state) == (JobState.CANCELLED, StudyState.PAUSED)


def test_a_search_that_does_not_stop_is_killed_and_the_tables_are_right(command: Started) -> None:
    process = command.start(HANGS, until="held")
    os.kill(process.pid, signal.SIGTERM)
    _, err = process.communicate()
    assert (process.returncode, err) == (130, f"nas: paused; continue with: nas run --resume {command.study.name}\n")
    [job] = command.store.jobs(command.study.id)
    assert (job.state, command.store.study(command.study.id).state) == (JobState.CANCELLED, StudyState.PAUSED)


def test_a_second_signal_shortens_that(command: Started) -> None:
    process = command.start(HANGS, until="held", grace=600)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(1.2)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait() == 130  # far earlier than after the grace, or the wait fails
    assert command.store.study(command.study.id).state is StudyState.PAUSED


def test_a_command_that_has_leased_nothing_ends_at_once(command: Started) -> None:
    process = command.start("idle", until="idle")
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert (process.returncode, err) == (130, "nas: interrupted\n")


def test_a_stop_from_elsewhere_ends_a_search_that_died(command: Started) -> None:
    process = command.start(HANGS, until="held")
    [job] = command.store.jobs(command.study.id)
    command.store.request_job(job.id, DesiredState.STOPPED)
    os.kill(command.children[0][0], signal.SIGKILL)
    _, err = process.communicate()
    assert (process.returncode, "stopped for good" in err) == (130, True)
    assert command.store.study(command.study.id).state is StudyState.STOPPED


def test_the_search_dies_with_its_supervisor(command: Started) -> None:
    process = command.start(WAITS, until="held")
    [(child, _)] = command.children
    process.kill()
    process.wait()
    wait_for(lambda: gone(child), 30)
