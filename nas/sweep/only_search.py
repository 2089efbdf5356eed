"""The lock of a study on one machine, for a search without a lease."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from nas.errors import ConflictError
from nas.study import Study


@contextmanager
def only_search(study: Study) -> Iterator[None]:
    """Hold this machine's lock of a study inside the block.

    Raises:
        ConflictError: If another process of this machine runs the study.
    """
    path = Path(tempfile.gettempdir()) / f"nas-search-{study.id}.lock"
    lock = FileLock(path, mode=0o666)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConflictError(f"study {study.name} is being run by another process of this machine") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # no process waits for this lock: a second one is refused at once
        lock.release()
