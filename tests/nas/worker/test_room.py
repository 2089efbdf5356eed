"""A worker whose disks are full puts jobs off; and light jobs run beside a search."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from nas.errors import StoreError, StoreLost
from nas.host.room import ROOM_SECONDS
from nas.jobs import Job, JobKind, JobState
from nas.settings import Settings
from nas.store import Store
from nas.study import StudyState
from nas.worker.options import WorkerOptions
from nas.worker.runner import run_job
from nas.worker.worker import run_worker
from tests.disks import full, small_disk
from tests.nas.store.makers import REFERENCE, definition
from tests.nas.worker.test_worker import Run, ended, settings, started, store

__all__ = ["settings", "small_disk", "store"]


def leased(store: Store) -> Job:
    job = store.lease_job("me", seconds=60)
    assert job is not None
    return job


def waits(store: Store, job: Job) -> bool:
    """Return whether a job waits for a later look, and no death was counted."""
    found, now = store.job(job.id), store.study("digits").updated_at
    assert found.expires_at is not None
    put_off = timedelta(0) < found.expires_at - now <= timedelta(seconds=ROOM_SECONDS)
    return found.state is JobState.QUEUED and put_off and found.attempt == 0


def test_a_search_without_room_waits_for_it(store: Store, settings: Settings, small_disk: Path) -> None:
    study, _ = store.submit_study(definition(), REFERENCE)
    storage = small_disk / "storage"
    with full(small_disk):
        job = leased(store)
        assert run_job(store, settings.model_copy(update={"storage": str(storage)}), job.id, job.epoch) == 0
    found = store.study(study.id)
    assert found.state is StudyState.PAUSED
    assert str(found.reason).startswith(f"storage {storage} has 0.0 MiB free")
    assert store.job(job.id).error == found.reason
    assert waits(store, job)
    assert store.trials(study.id) == []


def test_the_hundredth_look_for_room_loads_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from nas.worker.kinds import KINDS, search\n"
        "assert search.lack_of_room('storage') is None\n"
        "print(sorted({'torch', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "[]\n"


@pytest.fixture
def closed(small_disk: Path) -> Iterator[Path]:
    """A file system that can only be read."""
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    yield small_disk
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)


def test_a_log_that_cannot_be_written_puts_the_job_off(store: Store, settings: Settings, closed: Path) -> None:
    study, job = store.submit_study(definition(), REFERENCE)
    run_worker(settings, once=True, options=WorkerOptions(runs=closed / "runs", poll_seconds=0.05))
    assert waits(store, job)
    found = store.study(study.id)
    assert found.state is StudyState.PAUSED
    assert "Read-only file system" in str(found.reason)


def test_a_light_job_runs_beside_a_search(store: Store, settings: Settings) -> None:
    study, search = store.submit_study(definition(), REFERENCE)
    with Run(settings):
        started(search)
        export = store.enqueue_job(JobKind.EXPORT, {"number": 0}, study_id=study.id)
        assert ended(store, export).started_at is not None
        assert store.job(search.id).state is JobState.RUNNING


def test_a_worker_ends_with_its_database_and_puts_no_empty_one_in_its_place(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "nas.db"
    failed: list[BaseException] = []

    def work() -> None:
        try:
            run_worker(settings, options=WorkerOptions(runs=tmp_path / "runs", poll_seconds=0.05))
        except StoreLost as error:
            failed.append(error)

    with Store.open(settings.database_url) as store:
        store.submit_study(definition(), REFERENCE)
        held = leased(store)
        worker = threading.Thread(target=work)
        worker.start()
        time.sleep(0.5)
        assert worker.is_alive()
        path.unlink()
        worker.join(30)
    assert not worker.is_alive()
    (error,) = failed
    assert f"{path} was deleted while it was in use" in str(error)
    with pytest.raises(StoreError, match="does not exist"):
        run_worker(settings, options=WorkerOptions(runs=tmp_path / "runs"))
    assert not path.exists()
    (saved,) = tmp_path.glob("nas.db.saved-*")
    with Store.open(f"sqlite:///{saved}") as rescued:
        assert rescued.job(held.id).state is JobState.RUNNING
