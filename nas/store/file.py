"""The file of an SQLite database while it is open: it must stay the file that was opened, and writable."""

from __future__ import annotations

import ctypes
import logging
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from nas.errors import StoreError, StoreLost

_log = logging.getLogger(__name__)


class OpenFile:
    """Checks the file of an SQLite database before each transaction.

    SQLite itself continues with a deleted file, whose content ends with the process. A write to its shared memory after
    the file system has become read-only ends the process with SIGBUS.

    Args:
        path: Path of the file.
        shown: Name of the database in messages.
    """

    def __init__(self, path: Path, shown: str) -> None:
        self._path = path.absolute()  # the process may change its folder
        self._shown = shown
        self._opened: tuple[int, int] | None = None
        self._lost: StoreLost | None = None
        self._lock = threading.Lock()

    def check(self, engine: Engine) -> None:
        """Check that the file is the one of the first check, and that it can be written.

        Args:
            engine: Engine whose connections hold the file open.

        Raises:
            StoreLost: If it was deleted or replaced; its content is saved beside it, if that is possible.
            StoreError: If it cannot be written now.
        """
        found = _identity(self._path)
        if self._opened is None:
            self._opened = found
        if self._lost is not None or found != self._opened:
            with self._lock:
                if self._lost is None:
                    self._lost = self._loss(engine, replaced=found is not None)
            raise StoreLost(str(self._lost))
        for file in (self._path, *(self._path.with_name(f"{self._path.name}{end}") for end in ("-wal", "-shm"))):
            if file.exists() and not is_writable(file):
                raise StoreError(f"{self._shown}: {file} cannot be written any more; is its file system read-only?")

    def _loss(self, engine: Engine, *, replaced: bool) -> StoreLost:
        what = "replaced by another file" if replaced else "deleted"
        saved = self._save(engine)
        rest = f"; its content is saved in {saved}: end all processes that use it, and move it back" if saved else ""
        return StoreLost(f"{self._shown}: {self._path} was {what} while it was in use{rest}")

    def _save(self, engine: Engine) -> Path | None:
        """Copy the content of the lost file from a connection that still holds it."""
        assert self._opened is not None
        # Several processes that lose the same file save it once.
        target = self._path.with_name(f"{self._path.name}.saved-{self._opened[1]}")
        if target.exists():
            return target
        if not engine.pool.checkedin():  # type: ignore[attr-defined]  # of the pool that SQLite files use
            return None  # a new connection would open another file
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        try:
            with closing(engine.raw_connection()) as held, closing(sqlite3.connect(partial)) as copy:
                held.driver_connection.backup(copy)  # type: ignore[union-attr]  # sqlite3's
            partial.replace(target)
        except (sqlite3.Error, SQLAlchemyError, OSError) as error:
            _log.warning("%s: the content of the lost file could not be saved: %s", self._shown, error)
            partial.unlink(missing_ok=True)
            return None
        return target


def keep_open(engine: Engine) -> None:
    """Leave the connections open until the process ends: closing one writes to shared memory that nobody may write."""
    held = [engine.raw_connection() for _ in range(engine.pool.checkedin())]  # type: ignore[attr-defined]
    for connection in held:
        # Not even the end of the interpreter may close it.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection.driver_connection))


def is_writable(path: Path) -> bool:
    """Return whether this process may write to a path: by its rights, and by the file and its file system."""
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
