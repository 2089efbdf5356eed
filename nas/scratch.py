"""Temporary folders: locked while their process lives, deleted after its death. Loads neither torch nor ray."""

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
    """Create an empty folder of this user alone inside the block, and delete it afterwards.

    The folder itself is locked. A lock ends with its process in any case. All containers that share the folder see the
    lock, but not the process id.

    Args:
        kind: Purpose of the folder, as a word of its name.
        base: Parent folder; None for the system's folder for temporary files.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"nas-{kind}-", dir=base))
    assert _NAME.fullmatch(folder.name), f"{kind!r} is not a kind of swept folder"
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
        bases: Further parent folders besides the system's folder for temporary files.

    Returns:
        Deleted folders.
    """
    found = []
    for base in {Path(tempfile.gettempdir()), *bases}:
        with suppress(OSError):
            found += [path for path in base.iterdir() if _NAME.fullmatch(path.name)]
    return [path for path in found if _sweep(path)]


def _sweep(path: Path) -> bool:
    try:
        status = path.lstat()
        # A new folder may not be locked yet.
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
    """Lock an open folder; return False if another process holds it, or folders cannot be locked."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
