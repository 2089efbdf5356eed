"""What an interrupted trial goes on from: its last whole epoch, in one file in the storage. No Ray."""

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
from nas.errors import NasError, NotFoundError
from nas.scratch import scratch_folder
from nas.trial import EpochRecord, TrialSpec
from nas.versions import versions

_log = logging.getLogger(__name__)

_FACTS = "trial.json"


def _folder(study_id: str) -> str:
    return f"studies/{study_id}/checkpoints"


class TrialCheckpoint:
    """The state of one trial: files that its phases write, and the epochs that it has reported.

    Phases write :attr:`search` and :attr:`network` as they like; :meth:`commit` stores what is there as one file, whole
    or not at all, so that what is read back belongs together.

    Args:
        artifacts: The storage.
        study_id: Whose trial.
        spec: The trial.
        folder: On this machine, empty, for as long as the trial runs.
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
        """Where the state of the search is, or would be."""
        return self._folder / "search.pt"

    @property
    def network(self) -> Path:
        """Where the checkpoint of the fixed network's training is, or would be."""
        return self._folder / "network.pt"

    def restore(self) -> bool:
        """Bring back what an interrupted run of the same trial left, if there is anything.

        What cannot be read, or was written by other versions, is left: the trial then starts anew.
        """
        try:
            with scratch_folder("checkpoint") as scratch:
                path = self._artifacts.copy(self._uri, scratch / "checkpoint.tar")
                with tarfile.open(path) as archive:
                    archive.extractall(self._folder, filter="data")
            facts: dict[str, Any] = json.loads((self._folder / _FACTS).read_text(encoding="utf-8"))
            records = tuple(EpochRecord(**entry) for entry in facts.pop("history"))
            if facts != self._facts:
                raise ValueError("it is another trial's, or other versions wrote it")
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
        """Store the files as they are, with the epochs so far. A failure costs the checkpoint, not the trial."""
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
            _log.warning("%s: epoch %d left no checkpoint (%s)", self._name, history[-1].epoch, error)


def discard_checkpoints(artifacts: Artifacts, study_id: str, numbers: Iterable[int]) -> None:
    """Delete the checkpoints of ended trials; what cannot be deleted is left, and said in the log."""
    try:
        there = set(artifacts.names(_folder(study_id)))
        for number in numbers:
            if f"{number}.tar" in there:
                artifacts.remove(f"{_folder(study_id)}/{number}.tar")
    except NasError as error:
        _log.warning("checkpoints of study %s were left behind: %s", study_id, error)
