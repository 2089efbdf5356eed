"""Folders for what is needed for a while: held while their process lives, swept once it has died. No torch, no ray."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NAME = re.compile(r"nas-(bench|checkpoint|download|export|ray|trial|tune|weights)-[a-z0-9_]{8}")
_YOUNG_SECONDS = 60.0


@contextmanager
def scratch_folder(kind: str, base: Path | None = None) -> Iterator[Path]:
    """Make an empty folder of this user alone, and delete it afterwards.

    The folder itself is locked meanwhile. A lock goes with its process, however that ends, and is known in every
    container that shares the folder, where the number of a process is not.

    Args:
        kind: What it is for, a word of the folder's name.
        base: Where it is made; the system's folder for temporary files if absent.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"nas-{kind}-", dir=base))
    assert _NAME.fullmatch(folder.name), f"{kind!r} is not among what is swept"
    held = os.open(folder, os.O_RDONLY)
    try:
        _hold(held)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def sweep_leftovers(bases: Iterable[Path] = ()) -> list[Path]:
    """Delete the folders of processes that have died.

    Args:
        bases: Where to look besides the system's folder for temporary files.

    Returns:
        What was deleted.
    """
    found = []
    for base in {Path(tempfile.gettempdir()), *bases}:
        with suppress(OSError):
            found += [path for path in base.iterdir() if _NAME.fullmatch(path.name)]
    return [path for path in found if _sweep(path)]


def _sweep(path: Path) -> bool:
    try:
        status = path.lstat()
        # One that was just made may not be locked yet.
        if status.st_uid != os.geteuid() or time.time() - status.st_ctime < _YOUNG_SECONDS:
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
    """Lock an open folder; False if another process has, or where folders cannot be locked."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
