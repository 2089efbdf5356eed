"""Folders and orphans of processes that died are swept; those of processes that live are not."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nas import scratch
from nas.scratch import scratch_folder, sweep_leftovers

HOLD = """\
import sys
import time
from pathlib import Path
from nas.scratch import scratch_folder
with scratch_folder(sys.argv[1], Path(sys.argv[2])) as folder:
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_text("x")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@contextmanager
def holder(kind: str, base: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, kind, str(base)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("kind", ["ray", "tune", "trial", "weights", "checkpoint", "export", "download", "bench"])
def test_the_folder_of_a_killed_process_is_swept(tmp_path: Path, kind: str) -> None:
    with holder(kind, tmp_path) as (process, folder):
        assert folder.name.startswith(f"nas-{kind}-")
        assert sweep_leftovers() == []
        assert (folder / "deep" / "file").exists()
        process.kill()
        process.wait()
        assert sweep_leftovers() == [folder]
    assert list(tmp_path.iterdir()) == []


def test_one_that_ends_in_order_leaves_nothing(tmp_path: Path) -> None:
    with scratch_folder("trial") as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


def test_what_is_young_or_another_s_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [tmp_path / "nas-trial-other", tmp_path / "nas-storage-abcdefgh", tmp_path / "other-trial-abcdefgh"]
    elsewhere = tmp_path / "elsewhere"
    for folder in (*kept, elsewhere):
        folder.mkdir()
    (tmp_path / "nas-ray-abcdefgh").symlink_to(elsewhere)
    (tmp_path / "nas-tune-abcdefgh").write_text("a file")
    young = tmp_path / ".new-nas-trial-abcdefgh"  # may not be locked yet
    young.mkdir()
    there = set(tmp_path.iterdir())
    monkeypatch.setattr(scratch, "_YOUNG_SECONDS", 60.0)
    assert sweep_leftovers() == []
    monkeypatch.setattr(scratch, "_YOUNG_SECONDS", -1.0)
    assert sweep_leftovers([tmp_path / "none"]) == [young]
    assert set(tmp_path.iterdir()) == there - {young}


def orphan(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start a process that has a file open in a folder, as Ray's agents have their logs."""
    with (folder / "agent.log").open("w") as log:
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *words], stdout=log)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("removed", [False, True])
def test_processes_of_a_private_ray_without_a_driver_are_ended(tmp_path: Path, removed: bool) -> None:
    with holder("ray", tmp_path) as (driver, folder), holder("tune", tmp_path) as (_, other):
        agent, stranger = orphan(folder, f"--session-dir={folder}"), orphan(other)
        try:
            sweep_leftovers()
            assert (agent.poll(), stranger.poll()) == (None, None)
            driver.kill()
            driver.wait()
            if removed:
                shutil.rmtree(folder)
            sweep_leftovers()
            assert agent.wait(30) == -signal.SIGKILL
            assert stranger.poll() is None
        finally:
            for process in (agent, stranger):
                process.kill()
                process.wait()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds processes in /proc")
def test_a_driver_that_has_ended_its_ray_lives_on(tmp_path: Path) -> None:
    """It keeps files of the deleted folder open, while it measures or starts another Ray."""
    folder = tmp_path / "nas-ray-abcdefgh"
    folder.mkdir()
    driver = orphan(folder)
    try:
        shutil.rmtree(folder)
        sweep_leftovers()
        time.sleep(0.2)
        assert driver.poll() is None
    finally:
        driver.kill()
        driver.wait()


def test_no_other_way_to_make_such_a_folder_is_left() -> None:
    root = Path(__file__).parents[2]
    texts = {file.name: file.read_text() for package in ("nas", "service") for file in (root / package).rglob("*.py")}
    makers = {name for name, text in texts.items() if "mkdtemp(" in text or "TemporaryDirectory(" in text}
    assert makers == {"scratch.py"}
