"""The state that an interrupted trial resumes from: its last whole epoch, in one file in the storage. Loads no Ray."""

from __future__ import annotations

import json
import logging
import shutil
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas.artifacts import Artifacts
from nas.errors import CommonFault, NasError, NotFoundError
from nas.host.room import is_disk_fault
from nas.scratch import scratch_folder
from nas.trial import EpochRecord, TrialSpec
from nas.versions import versions

_log = logging.getLogger(__name__)

_FACTS = "trial.json"


def _folder(study_id: str) -> str:
    return f"studies/{study_id}/checkpoints"


class TrialCheckpoint:
    """The state of one trial: files that its phases write, and the epochs that it has reported.

    Phases write :attr:`search` and :attr:`network` at any time. :meth:`commit` stores both as one file, whole or not at
    all, so that the files read back belong together.

    Args:
        artifacts: Storage of the checkpoints.
        study_id: Id of the trial's study.
        spec: Number, parameters and seed of the trial.
        folder: Empty folder on this machine, which exists while the trial runs.
    """

    def __init__(self, artifacts: Artifacts, study_id: str, spec: TrialSpec, folder: Path) -> None:
        self._artifacts = artifacts
        self._uri = f"{_folder(study_id)}/{spec.number}.tar"
        self._facts = json.loads(json.dumps({"spec": spec.to_dict(), "versions": versions()}))
        self._name = f"trial {spec.number}"
        self._folder = folder / "state"
        self._folder.mkdir()
        self.history: tuple[EpochRecord, ...] = ()

    @property
    def search(self) -> Path:
        """Path of the state of the search, which may not exist."""
        return self._folder / "search.pt"

    @property
    def network(self) -> Path:
        """Path of the checkpoint of the fixed network's training, which may not exist."""
        return self._folder / "network.pt"

    def restore(self) -> bool:
        """Restore the files of an interrupted run of the same trial, if there are any.

        Files that are damaged or from other versions stay unused: the trial then starts anew.
        """
        try:
            with scratch_folder("checkpoint") as scratch:
                _unpack(self._artifacts.copy(self._uri, scratch / "checkpoint.tar"), self._folder)
            facts: dict[str, Any] = json.loads((self._folder / _FACTS).read_text(encoding="utf-8"))
            records = tuple(EpochRecord(**entry) for entry in facts.pop("history"))
            if facts != self._facts:
                raise ValueError("it belongs to another trial, or other versions wrote it")
        except NotFoundError:
            return False
        except (NasError, OSError, ValueError, TypeError, KeyError, tarfile.TarError) as error:
            _log.warning("%s starts anew: its checkpoint cannot be continued (%s)", self._name, error)
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(exist_ok=True)
            return False
        self.history = records
        return True

    def commit(self, history: Sequence[EpochRecord]) -> None:
        """Store the present files with the epochs so far. A failure costs the checkpoint, not the trial.

        Raises:
            CommonFault: If a disk is full or broken: the trial could not store its weights either, and continues from
                its last checkpoint when there is room.
        """
        try:
            content = {**self._facts, "history": [asdict(entry) for entry in history]}
            (self._folder / _FACTS).write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
            with scratch_folder("checkpoint") as scratch:
                path = scratch / "checkpoint.tar"
                with tarfile.open(path, "w") as archive:
                    for file in sorted(self._folder.iterdir()):
                        archive.add(file, file.name)
                self._artifacts.put(path, self._uri, "checkpoint")
        except (NasError, OSError) as error:
            if is_disk_fault(error):
                raise CommonFault(f"{self._name}: its checkpoint cannot be written ({error})") from error
            _log.warning("%s: epoch %d has no checkpoint (%s)", self._name, history[-1].epoch, error)


def _unpack(path: Path, folder: Path) -> None:
    """Write the plain files of an archive, which must hold no others; before Python 3.11.4, tarfile has no filters."""
    with tarfile.open(path) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() and member.name == Path(member.name).name else None
            if content is None:
                raise ValueError(f"{member.name!r} in it is not a plain file")
            with content, (folder / member.name).open("wb") as file:
                shutil.copyfileobj(content, file)


def discard_checkpoints(artifacts: Artifacts, study_id: str, numbers: Iterable[int]) -> None:
    """Delete the checkpoints of ended trials; a failure leaves the file and is logged."""
    try:
        there = set(artifacts.names(_folder(study_id)))
        for number in numbers:
            if f"{number}.tar" in there:
                artifacts.remove(f"{_folder(study_id)}/{number}.tar")
    except NasError as error:
        _log.warning("checkpoints of study %s could not be deleted: %s", study_id, error)
