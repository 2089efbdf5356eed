"""The checkpoints of a training in a folder: the newest ones and the best one, each with its checksum."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from partialnet.errors import PartialNetError
from partialnet.train.checkpoint import Checkpoint, Plan, checkpoint_content, load_checkpoint

_log = logging.getLogger(__name__)

# The checksum is part of the name, so that one renaming publishes both.
_NAME = re.compile(r"(?:epoch-(\d+)-step-(\d+)|best)-([0-9a-f]{16})\.pt")
_SCRATCH = ".checkpoint-"


def _ignored(_path: Path | None) -> None:
    """Do nothing; as a function of a module it goes to other processes."""


@dataclass
class KeptCheckpoints:
    """A folder of checkpoints, named ``epoch-E-step-S-CHECKSUM.pt`` and ``best-CHECKSUM.pt``.

    Args:
        folder: The folder, which is created.
        keep: Number of the newest checkpoints that are kept.
        minutes: Time between two checkpoints within an epoch; 0 for none. Each epoch ends with one as well.
        published: Function that all processes call together after each checkpoint; the process that has written it
            gives its path, the others None.
    """

    folder: Path
    keep: int = 3
    minutes: float = 0.0
    published: Callable[[Path | None], None] = _ignored
    _written: float = field(default_factory=time.monotonic)

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint within an epoch."""
        return self.minutes > 0 and time.monotonic() - self._written >= 60 * self.minutes

    def files(self) -> list[Path]:
        """Return the checkpoints without the best one, newest first."""
        found = {path: _NAME.fullmatch(path.name) for path in self._entries()}
        placed = {path: (int(match[1]), int(match[2])) for path, match in found.items() if match and match[1]}
        return sorted(placed, key=lambda path: (*placed[path], path.stat().st_mtime), reverse=True)

    def best(self) -> Path | None:
        """Return the checkpoint of the best epoch, if there is one."""
        return next((path for path in self._entries() if path.name.startswith("best-")), None)

    def _entries(self) -> Iterator[Path]:
        return self.folder.iterdir() if self.folder.is_dir() else iter(())

    def clear(self) -> None:
        """Delete all checkpoints, for a training that starts anew."""
        for path in [path for path in self._entries() if _NAME.fullmatch(path.name)]:
            path.unlink()

    def save(self, plan: Plan, checkpoint: Checkpoint, *, best: bool = False) -> Path | None:
        """Write a checkpoint, and delete those that are no longer kept.

        A failure, such as a full disk, is logged and costs the checkpoint; earlier ones stay.

        Args:
            plan: Settings of the training.
            checkpoint: State of the training.
            best: Whether its scores are the best so far.

        Returns:
            The file; None if none was written.
        """
        self._written = time.monotonic()
        step = 0 if checkpoint.position is None else checkpoint.position.step
        name = f"epoch-{checkpoint.epoch:05d}-step-{step:07d}"
        try:
            path = self._write(name, checkpoint_content(plan, checkpoint))
            if best:
                self._keep_best(path)
            for old in self.files()[self.keep :]:
                old.unlink()
            return path
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            _log.warning("%s: no checkpoint was written (%s); the training continues", self.folder / name, reason)
            return None

    def _write(self, name: str, content: Mapping[str, Any]) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self.folder) as scratch:
            fresh = Path(scratch) / "checkpoint.pt"
            torch.save(dict(content), fresh)
            with fresh.open("rb") as file:
                os.fsync(file.fileno())
            path = self.folder / f"{name}-{_checksum(fresh)}.pt"
            fresh.replace(path)
        return path

    def _keep_best(self, path: Path) -> None:
        match = _NAME.fullmatch(path.name)
        assert match is not None
        target = self.folder / f"best-{match[3]}.pt"
        old = [other for other in self._entries() if other.name.startswith("best-") and other != target]
        if not target.exists():
            try:
                os.link(path, target)
            except OSError:  # a file system without hard links
                with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self.folder) as scratch:
                    shutil.copyfile(path, Path(scratch) / "copy").replace(target)
        for other in old:
            other.unlink()

    def load(self, plan: Plan) -> tuple[Path, Checkpoint] | None:
        """Read the newest whole checkpoint; damaged ones are named in the log.

        Returns:
            The file and its content; None if the folder holds no checkpoint.

        Raises:
            PartialNetError: If all are damaged, or the newest whole one belongs to another plan.
        """
        files = self.files()
        for path in files:
            match = _NAME.fullmatch(path.name)
            assert match is not None
            try:
                whole = _checksum(path) == match[3]
            except OSError as error:
                _log.warning("%s: cannot be read (%s); trying the one before", path, error.strerror)
                continue
            if whole:
                return path, load_checkpoint(path, plan)
            _log.warning("%s: damaged (its checksum differs); trying the one before", path)
        if files:
            raise PartialNetError(f"{self.folder}: all {len(files)} checkpoints are damaged; remove it to start again")
        return None


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
