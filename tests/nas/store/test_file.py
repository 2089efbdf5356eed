"""The file of a database that is deleted, replaced, locked or closed to writing while it is open."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nas.errors import StoreError, StoreLost
from nas.store import Store
from nas.study import StudyState
from tests.disks import full, small_disk
from tests.nas.store.makers import complete, study

__all__ = ["small_disk"]


def delete(path: Path) -> None:
    path.unlink()


def delete_all(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def rename(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def replace_by_copy(path: Path) -> None:
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    copy.replace(path)


@pytest.mark.parametrize("harm", [delete, delete_all, rename, replace_by_copy])
def test_a_lost_file_is_said_and_its_content_saved(harm: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "nas.db"
    with Store.open(f"sqlite:///{path}") as store:
        made = study(store)
        complete(store, made.id)
        wanted = store.trials(made.id, history=True)
        harm(path)
        present = path.exists()
        for action in (lambda: complete(store, made.id), lambda: store.study(made.id), store.ping):
            with pytest.raises(StoreLost, match=rf"{path} was (deleted|replaced by another file) while it was in use"):
                action()
        assert path.exists() is present  # an empty file in its place would hide the loss
    (saved,) = tmp_path.glob("nas.db.saved-*")
    with Store.open(f"sqlite:///{saved}") as rescued:
        assert rescued.trials(made.id, history=True) == wanted


def test_several_processes_save_a_lost_file_once(tmp_path: Path) -> None:
    path = tmp_path / "nas.db"
    with Store.open(f"sqlite:///{path}") as one, Store.open(f"sqlite:///{path}") as other:
        study(one)
        other.ping()
        path.unlink()
        for store in (one, other):
            with pytest.raises(StoreLost, match="its content is saved in"):
                store.ping()
    assert len(list(tmp_path.glob("nas.db.saved-*"))) == 1


def test_a_lost_folder_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with Store.open(f"sqlite:///{folder}/nas.db") as store:
        study(store)
        shutil.rmtree(folder)
        with pytest.raises(StoreLost, match=r"nas.db was deleted while it was in use$"):
            store.ping()


def test_a_change_of_the_working_folder_is_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Store.open("sqlite:///nas.db") as store:
        monkeypatch.chdir("/")
        store.ping()


PROGRAM = """
import subprocess, sys
from pathlib import Path
from nas.errors import StoreError
from nas.store import Store
from tests.nas.store.makers import complete, study

for path, mend in ((Path(sys.argv[1]), True), (Path(sys.argv[2]), False)):
    with Store.open(f"sqlite:///{path}") as store:
        made = study(store)
        files = [str(file) for file in path.parent.glob(f"{path.name}*")]
        subprocess.run(["chattr", "+i", *files], check=True)
        for action in (lambda: complete(store, made.id), lambda: store.study(made.id)):
            try:
                action()
            except StoreError as error:
                print(error)
        if mend:
            subprocess.run(["chattr", "-i", *files], check=True)
            print(complete(store, made.id))
"""


@pytest.fixture
def unchanging(tmp_path: Path) -> Iterator[Path]:
    """A folder whose files can be made unchangeable."""
    probe = tmp_path / "probe"
    probe.touch()
    if shutil.which("chattr") is None or subprocess.run(["chattr", "+i", probe], capture_output=True).returncode:
        pytest.skip("files cannot be made unchangeable here")
    subprocess.run(["chattr", "-i", probe], check=True)
    yield tmp_path
    subprocess.run(["chattr", "-R", "-i", tmp_path], check=True)


def test_a_file_that_becomes_unchangeable_is_an_error_and_no_signal(unchanging: Path) -> None:
    """A write to SQLite's shared memory would end the process with SIGBUS, also while it closes the file."""
    mended, left = unchanging / "mended.db", unchanging / "left.db"
    command = [sys.executable, "-c", PROGRAM, str(mended), str(left)]
    ended = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    said = {path: f"sqlite:///{path}: {path} cannot be written any more; is its file system read-only?"
            for path in (mended, left)}  # fmt: skip
    assert ended.stdout.splitlines() == [said[mended], said[mended], "0", said[left], said[left]]


def many(store: Store, study_id: str) -> None:
    for _ in range(1000):
        complete(store, study_id)


def test_a_full_disk_is_said_and_the_database_goes_on_when_there_is_room(small_disk: Path) -> None:
    with Store.open(f"sqlite:///{small_disk}/nas.db") as store:
        made = study(store)
        with full(small_disk), pytest.raises(StoreError, match="database or disk is full"):
            many(store, made.id)
        before = len(store.trials(made.id))
        assert complete(store, made.id) >= before - 1
        store.set_study_state(made.id, StudyState.FINISHED)


def test_a_patient_store_waits_for_a_locked_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.store.database.BUSY_SECONDS", 0.1)
    path = tmp_path / "nas.db"
    with Store.open(f"sqlite:///{path}") as store:
        made = study(store)
        lock = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        lock.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            complete(store, made.id)
        threading.Timer(1.5, lambda: lock.execute("ROLLBACK")).start()
        began = time.monotonic()
        complete(store.patient(30), made.id)
        assert 1 < time.monotonic() - began < 20
        lock.close()


def test_patience_keeps_the_lease(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        assert store.fenced("job", 1).patient(5).leased
        assert not store.patient(5).leased
