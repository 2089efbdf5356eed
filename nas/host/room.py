"""Room on the disks that a search writes to: looked at before it writes, and recognised when it runs out.

Loads neither torch nor ray.
"""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from nas.artifacts import Artifacts
from nas.errors import CommonFault, StoreError

LEAST_FREE = 16 * 2**20
ROOM_SECONDS = 60.0
"""Time in seconds between two looks of a worker whether there is room again."""

_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN})
_TEXTS = tuple(os.strerror(number) for number in sorted(_DISK_ERRORS))


def check_room(storage: str, least: int = LEAST_FREE) -> None:
    """Check that the temporary folder and the storage of weights can be written, and have room.

    Args:
        storage: Folder, or fsspec URL.
        least: Number of bytes that must be free in each folder of this machine.

    Raises:
        CommonFault: If one of them is full or cannot be written.
    """
    try:
        temporary = Path(tempfile.gettempdir())
        _check_free(f"temporary folder {temporary}", temporary, least)
        with tempfile.TemporaryFile(dir=temporary) as file:
            file.write(bytes(4096))
            file.flush()
    except OSError as error:
        raise CommonFault(f"temporary files cannot be written ({error}); make room, or set TMPDIR") from error
    try:
        artifacts = Artifacts(storage)
        if artifacts.folder is not None:
            _check_free(f"storage {artifacts.folder}", artifacts.folder, least)
        artifacts.check_writable()
    except StoreError as error:
        raise CommonFault(str(error)) from error


def lack_of_room(storage: str) -> str | None:
    """Return what keeps a job from writing to the disks, in words; None if nothing does."""
    try:
        check_room(storage)
    except CommonFault as fault:
        return str(fault)
    return None


def _check_free(name: str, folder: Path, least: int) -> None:
    """Check the free bytes of the file system that holds ``folder``, which may not exist yet."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), None)
    if there is None:
        return
    found = os.statvfs(there)
    free = found.f_bavail * found.f_frsize
    if free < least:
        raise CommonFault(f"{name} has {_size(free)} free, but needs at least {_size(least)}; make room there")


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


def is_disk_fault(error: BaseException) -> bool:
    """Return whether a disk that is full, read-only or broken caused an error, by its chain of causes.

    Libraries in other languages raise errors of their own that hold the system's text.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, OSError) and cause.errno in _DISK_ERRORS:
            return True
        if any(text in str(cause) for text in _TEXTS):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
