"""The folder of a training while it runs, and its checkpoints in the storage. Loads neither torch nor ray.

Where the storage is a folder of this machine, the training works there. Elsewhere it works in a temporary folder, and
its checkpoints are copied to the storage, so that any worker can continue from them.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from nas.artifacts import Artifacts
from nas.candidate import Artifact
from nas.scratch import scratch_folder
from nas.trainings import Training

CHECKPOINTS = "checkpoints"
STORAGE = "ray"
"""Folder of the checkpoints that Ray keeps, of a training on a cluster."""
FOLDER = "NAS_TRAINING_FOLDER"
"""Variable with the working folder, for the processes of one training."""
_LOOK_SECONDS = 5.0
_NAME = re.compile(r"(?:epoch-(?P<epoch>\d+)-step-(?P<step>\d+)|(?P<best>best))-(?P<checksum>[0-9a-f]{16})\.pt")


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint of a training in the storage.

    Args:
        name: Name of the file.
        epoch: Number of completed epochs; None for that of the best epoch.
        step: Number of completed steps of the next epoch; None for that of the best epoch.
        best: Whether it is that of the best epoch.
        checksum: First 16 digits of the SHA-256 checksum, hexadecimal.
        size: Size in bytes.
        at: Time of the writing; None if the storage does not tell.
    """

    name: str
    epoch: int | None
    step: int | None
    best: bool
    checksum: str
    size: int
    at: datetime | None


def stored_checkpoints(artifacts: Artifacts, training: Training) -> list[StoredCheckpoint]:
    """Return the checkpoints of a training, newest first; that of the best epoch comes last.

    Raises:
        StoreError: If the storage cannot be read.
    """
    found = {}
    files = [file for place in (STORAGE, CHECKPOINTS) for file in artifacts.files(f"{training.folder}/{place}")]
    for file in files:
        name = file.uri.rpartition("/")[2]
        match = _NAME.fullmatch(name)
        if match is not None:
            epoch, step = (None if match[key] is None else int(match[key]) for key in ("epoch", "step"))
            best = match["best"] is not None
            found[name] = StoredCheckpoint(name, epoch, step, best, match["checksum"], file.size, file.modified)
    return sorted(found.values(), key=lambda item: (item.best, -(item.epoch or 0), -(item.step or 0)))


@dataclass(frozen=True)
class Elsewhere:
    """The files of a training on a cluster whose storage is no folder that the nodes share.

    Args:
        storage: URL of the storage.
        folder: URI of the training's files.
        weights: First weights; None for those of the request.
    """

    storage: str
    folder: str
    weights: Artifact | None = None

    def fetch(self, folder: Path) -> Path | None:
        """Copy the newest checkpoint of before, and the first weights, into a folder; return the path of the latter.

        Raises:
            StoreError: If the storage cannot be read.
        """
        artifacts = Artifacts(self.storage)
        newest = max(_by_place(artifacts, f"{self.folder}/{CHECKPOINTS}"), default=None)
        if newest is not None:
            _copy(artifacts, newest[1], folder / CHECKPOINTS)
        return None if self.weights is None else artifacts.fetch(self.weights, folder / "start.safetensors")


def _by_place(artifacts: Artifacts, folder: str) -> list[tuple[tuple[int, int], str]]:
    """Return the place in the training and the URI of each checkpoint, at any depth, but that of the best epoch."""
    found = []
    for file in artifacts.files(folder):
        match = _NAME.fullmatch(file.uri.rpartition("/")[2])
        if match is not None and match["best"] is None:
            found.append(((int(match["epoch"]), int(match["step"])), file.uri))
    return found


def _copy(artifacts: Artifacts, uri: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    artifacts.copy(uri, folder / uri.rpartition("/")[2])


@dataclass
class WorkingFiles:
    """The files of a training while it runs.

    Args:
        folder: Folder on this machine.
        artifacts: Storage of the files.
        training: Training that they belong to.
        copied: Whether the storage is elsewhere.
    """

    folder: Path
    artifacts: Artifacts
    training: Training
    copied: bool
    _stored: set[str] = field(default_factory=set)
    _looked_at: float = field(default_factory=time.monotonic)

    @property
    def _uri(self) -> str:
        return f"{self.training.folder}/{CHECKPOINTS}"

    def fetch(self) -> None:
        """Copy the checkpoints from a storage elsewhere, and the newest of those that a cluster has written there.

        Raises:
            StoreError: If the storage cannot be read.
        """
        if not self.copied:
            return
        target = self.folder / CHECKPOINTS
        target.mkdir(parents=True, exist_ok=True)
        for name in self.artifacts.names(self._uri):
            self.artifacts.copy(f"{self._uri}/{name}", target / name)
            self._stored.add(name)
        newest = max(_by_place(self.artifacts, f"{self.training.folder}/{STORAGE}"), default=None)
        if newest is not None and newest[1].rpartition("/")[2] not in self._stored:
            _copy(self.artifacts, newest[1], target)

    def store(self) -> None:
        """Copy new checkpoints to a storage elsewhere, and delete there what is no longer kept.

        Raises:
            StoreError: If the storage cannot be written.
        """
        if not self.copied:
            return
        there = self.folder / CHECKPOINTS
        names = {path.name for path in there.glob("*.pt")} if there.is_dir() else set()
        for name in sorted(names - self._stored):
            self.artifacts.put(there / name, f"{self._uri}/{name}", "checkpoint")
        for name in sorted(self._stored - names):
            self.artifacts.remove(f"{self._uri}/{name}")
        self._stored = names

    def store_sometimes(self) -> None:
        """Call :meth:`store` if the last look at the folder is some seconds old."""
        if self.copied and time.monotonic() - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self.store()


@contextmanager
def working_folder(artifacts: Artifacts, training: Training) -> Iterator[WorkingFiles]:
    """Yield the files of a training inside the block, with the checkpoints of earlier runs."""
    own = artifacts.folder
    if own is not None:
        yield WorkingFiles(own / training.folder, artifacts, training, copied=False)
        return
    given = os.environ.get(FOLDER)
    if given is not None:  # as one of several processes; their parent has fetched the checkpoints
        yield WorkingFiles(Path(given), artifacts, training, copied=True)
        return
    with scratch_folder("train") as scratch:
        files = WorkingFiles(scratch, artifacts, training, copied=True)
        files.fetch()
        yield files
