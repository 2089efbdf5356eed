"""Temporary folders: locked while their process lives, deleted after its death. Loads neither torch nor ray."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nas.host.processes import command_line, open_files, other_processes

_NAME = re.compile(r"nas-(bench|checkpoint|download|export|ray|train|trial|tune|weights)-[a-z0-9_]{8}")
_RAY_FOLDER = "/nas-ray-"
_RAY_FILE = re.compile(rf"(?P<folder>/.*{_RAY_FOLDER}[a-z0-9_]{{8}})/.*")
_UNLOCKED = ".new-"
_YOUNG_SECONDS = 60.0


@contextmanager
def scratch_folder(kind: str, base: Path | None = None) -> Iterator[Path]:
    """Create an empty folder of this user alone inside the block, and delete it afterwards.

    The folder itself is locked. A lock ends with its process in any case. All containers that share the folder see the
    lock, but not the process id.

    Args:
        kind: Purpose of the folder, as a word of its name.
        base: Parent folder; None for the system's folder for temporary files.
    """
    # It gets its final name when it is locked: a folder with this name and without a lock has no owner.
    new = Path(tempfile.mkdtemp(prefix=f"{_UNLOCKED}nas-{kind}-", dir=base))
    folder = new.with_name(new.name.removeprefix(_UNLOCKED))
    assert _NAME.fullmatch(folder.name), f"{kind!r} is not a kind of swept folder"
    held = os.open(new, os.O_RDONLY)
    try:
        _hold(held)
        new.rename(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def sweep_leftovers(bases: Iterable[Path] = ()) -> list[Path]:
    """Delete the folders of processes that have died, and kill the processes of a private Ray whose driver has died.

    Args:
        bases: Further parent folders besides the system's folder for temporary files.

    Returns:
        Deleted folders.
    """
    _end_orphans()
    return [path for path in _folders(bases) if _sweep(path)]


def leftovers(bases: Iterable[Path] = ()) -> list[Path]:
    """Return the folders that :func:`sweep_leftovers` would delete."""
    return [path for path in _folders(bases) if _is_ours(path) and not _is_held(path)]


def _folders(bases: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for base in {Path(tempfile.gettempdir()), *bases}:
        with suppress(OSError):
            found += [path for path in base.iterdir() if _NAME.fullmatch(path.name.removeprefix(_UNLOCKED))]
    return sorted(found)


def _is_ours(path: Path) -> bool:
    """Return whether this user owns a folder, and a process may not be about to lock it."""
    try:
        status = path.lstat()
    except OSError:
        return False
    young = path.name.startswith(_UNLOCKED) and time.time() - status.st_ctime < _YOUNG_SECONDS
    return status.st_uid == os.geteuid() and not young


def _end_orphans() -> None:
    """Kill this user's processes of a private Ray whose folder nobody holds: they have files open in it.

    Command lines alone do not tell the folder, since Ray's processes rename themselves; but they tell which are Ray's.

    Ray's agents outlive a driver and a raylet that were killed. A driver itself keeps files of a Ray open that it has
    ended, and lives on: it measures, writes its report, and may start another Ray.
    """
    lives: dict[str, bool] = {}
    for pid in other_processes():
        line = " ".join(command_line(pid))
        if not _is_of_ray(line, _RAY_FOLDER):  # nearly all: to read what they have open takes far longer
            continue
        for folder in {found["folder"] for file in open_files(pid) if (found := _RAY_FILE.fullmatch(file))}:
            if folder not in lives:
                lives[folder] = _is_held(Path(folder))
            if not lives[folder] and _is_of_ray(line, folder):
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)


def _is_of_ray(line: str, folder: str) -> bool:
    """Return whether Ray started a process: its command line is a name of Ray's, or holds the folder."""
    return line.startswith("ray::") or folder in line


def _is_held(folder: Path) -> bool:
    """Return whether a process holds a folder; False if it does not exist."""
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        return not _hold(held)
    finally:
        os.close(held)


def _sweep(path: Path) -> bool:
    try:
        if not _is_ours(path):
            return False
        held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if not _hold(held):
            return False
        shutil.rmtree(path, ignore_errors=True)
        return not path.exists()
    finally:
        os.close(held)


def _hold(folder: int) -> bool:
    """Lock an open folder; return False if another process holds it, or folders cannot be locked."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
