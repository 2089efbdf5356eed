"""Files that nothing needs any more: finds them, and deletes them. Loads neither torch nor ray.

Only studies and trainings that have ended are looked at: a search may be about to record a file that it has just
stored.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from nas.artifacts import Artifacts, StoredFile
from nas.errors import ConflictError
from nas.scratch import leftovers, sweep_leftovers
from nas.store import Store
from nas.store.retention import ENDED
from nas.study import Study
from nas.training.files import CHECKPOINTS, FIRST_WEIGHTS, STORAGE
from nas.trainings import Training, TrainingState

_PLACES = ("studies", "exports")
_TRAININGS = "trainings"
_CHECKPOINT = re.compile(r"studies/[^/]+/checkpoints/(?P<number>[0-9]+)\.tar")
_YOUNG = timedelta(hours=1)


class Kind(StrEnum):
    """The kinds of files that can be collected."""

    CHECKPOINT = "checkpoint"
    """Checkpoint of a trial that has ended, or of a training that has finished."""
    WEIGHTS = "weights"
    """Weights of a network that nothing keeps."""
    UNREFERENCED = "unreferenced"
    """File of a study or a training that no record refers to."""
    PARTIAL = "partial"
    """Half-written file of a process that died."""
    SCRATCH = "scratch"
    """Temporary folder of a process that died."""
    FOREIGN = "foreign"
    """File of a study or a training that this database does not know."""


@dataclass(frozen=True)
class Item:
    """A file or folder that can be collected.

    Args:
        kind: Kind of the file.
        place: URI relative to the storage, or path of a temporary folder.
        size: Size in bytes.
        study_id: Id of its study; None for a temporary folder, and for a file of a training.
        training_id: Id of its training; None for all others.
    """

    kind: Kind
    place: str
    size: int
    study_id: str | None
    training_id: str | None = None


@dataclass(frozen=True)
class Plan:
    """The result of a look at the storage.

    Args:
        items: Files and folders that can be collected.
        kept: Numbers of weights that are kept, by reason.
        used: Bytes in the storage by study id, of all studies that were looked at.
        active: Names of the studies that have not ended: their files are left alone.
    """

    items: tuple[Item, ...]
    kept: Mapping[str, int]
    used: Mapping[str, int]
    active: tuple[str, ...]

    def size(self, kinds: Iterable[Kind] = tuple(Kind)) -> int:
        """Return the bytes of the items of ``kinds``."""
        wanted = set(kinds)
        return sum(item.size for item in self.items if item.kind in wanted)


def find_garbage(store: Store, artifacts: Artifacts, only: Study | None = None) -> Plan:
    """Return what can be collected.

    Args:
        store: Store of the studies.
        artifacts: Storage of their files.
        only: Study to look at; None for all, for trainings, for files of unknown ones, and for temporary folders.

    Raises:
        StoreError: If the database or the storage cannot be read.
    """
    studies = [only] if only is not None else [row.study for row in store.studies()]
    items: list[Item] = []
    kept: Counter[str] = Counter()
    used: dict[str, int] = {}
    for study in studies:
        files = files_of(artifacts, study.id)
        used[study.id] = sum(file.size for file in files)
        if study.state in ENDED:
            items += _of_study(store, study.id, files, kept)
    if only is None:
        items += _of_trainings(store, artifacts)
        items += _foreign(store, artifacts)
        items += [Item(Kind.SCRATCH, str(path), _folder_size(path), None) for path in leftovers()]
    active = tuple(study.name for study in studies if study.state not in ENDED)
    return Plan(tuple(items), dict(kept), used, active)


def files_of(artifacts: Artifacts, study_id: str) -> list[StoredFile]:
    """Return all stored files of a study."""
    return [file for place in _PLACES for file in artifacts.files(f"{place}/{study_id}")]


def _of_study(store: Store, study_id: str, files: Sequence[StoredFile], kept: Counter[str]) -> list[Item]:
    recorded, unfinished = store.recorded_files(study_id), store.unfinished(study_id)
    weights = store.stored_weights(study_id)
    kept.update(row.kept for row in weights if row.kept is not None)
    # Networks of one trial may share a file.
    needed = {row.uri for row in weights if row.kept is not None}
    loose = {row.uri for row in weights} - needed
    found = []
    for file in files:
        kind = _kind(file, recorded, unfinished, loose)
        if kind is not None:
            found.append(Item(kind, file.uri, file.size, study_id))
    there = {file.uri for file in files}
    found += [Item(Kind.WEIGHTS, uri, 0, study_id) for uri in sorted(loose - there)]  # the file is gone already
    return found


def _kind(file: StoredFile, recorded: set[str], unfinished: set[int], loose: set[str]) -> Kind | None:
    checkpoint = _CHECKPOINT.fullmatch(file.uri)
    if checkpoint is not None:
        return None if int(checkpoint["number"]) in unfinished else Kind.CHECKPOINT
    if file.uri in loose:
        return Kind.WEIGHTS
    # A process may be about to record what it has just written.
    if file.uri in recorded or file.modified is None or datetime.now(UTC) - file.modified < _YOUNG:
        return None
    return Kind.PARTIAL if file.partial else Kind.UNREFERENCED


def _of_trainings(store: Store, artifacts: Artifacts) -> list[Item]:
    return [
        Item(kind, file.uri, file.size, None, training.id)
        for training in store.all_trainings()
        for file in artifacts.files(training.folder)
        if (kind := _kind_in_training(file, training)) is not None
    ]


def _kind_in_training(file: StoredFile, training: Training) -> Kind | None:
    """Return the kind of a file that the training does not need; one that has stopped may resume from its checkpoints.
    """
    if not training.state.ended:
        return None
    path = file.uri.removeprefix(f"{training.folder}/")
    finished = training.state is TrainingState.FINISHED
    if finished and path.partition("/")[0] in (CHECKPOINTS, STORAGE):
        return Kind.CHECKPOINT
    if file.modified is None or datetime.now(UTC) - file.modified < _YOUNG:
        return None
    if file.partial:
        return Kind.PARTIAL
    result = training.result
    recorded = set() if result is None else {kept.uri for kept in (result.package, result.last) if kept is not None}
    # Packages that a process with an expired lease has stored, and what a finished training has begun with.
    spare = path.endswith(".zip") or (finished and path == FIRST_WEIGHTS)
    return Kind.UNREFERENCED if spare and file.uri not in recorded else None


def _foreign(store: Store, artifacts: Artifacts) -> list[Item]:
    """Return the files of unknown studies and trainings."""
    folders = {place: artifacts.folders(place) for place in (*_PLACES, _TRAININGS)}
    # Read after the folders: what was created meanwhile is known.
    known = {row.study.id for row in store.studies()}
    own = {training.id for training in store.all_trainings()}
    return [
        Item(Kind.FOREIGN, file.uri, file.size, *((None, name) if place == _TRAININGS else (name, None)))
        for place, names in folders.items()
        for name in names
        if name not in (own if place == _TRAININGS else known)
        for file in artifacts.files(f"{place}/{name}")
    ]


def _folder_size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except OSError:
            continue
    return total


def collect(store: Store, artifacts: Artifacts, items: Iterable[Item]) -> list[Item]:
    """Delete what a plan found, and return what was deleted.

    The record of weights is removed before their file. Whatever has come into use since the plan was made is left.

    Raises:
        StoreError: If the database or the storage fails.
    """
    found, gone = list(items), []
    for study_id in sorted({item.study_id for item in found if item.study_id is not None}):
        gone += _collect_study(store, artifacts, study_id, [item for item in found if item.study_id == study_id])
    gone += _collect_trainings(store, artifacts, [item for item in found if item.training_id is not None])
    scratch = {item.place: item for item in found if item.kind is Kind.SCRATCH}
    if scratch:
        swept = {str(path) for path in sweep_leftovers()}
        gone += [item for place, item in scratch.items() if place in swept or not Path(place).exists()]
    return gone


def _collect_study(store: Store, artifacts: Artifacts, study_id: str, items: Sequence[Item]) -> list[Item]:
    weights = {item.place for item in items if item.kind is Kind.WEIGHTS}
    foreign = [item for item in items if item.kind is Kind.FOREIGN]
    own = [item for item in items if item.kind is not Kind.FOREIGN]
    gone = foreign
    if own:
        try:
            forgotten = set(store.forget_weights(study_id, weights))
        except ConflictError:
            return []  # it was resumed meanwhile
        recorded, unfinished = store.recorded_files(study_id), store.unfinished(study_id)
        gone = gone + [item for item in own if _still(item, forgotten, recorded, unfinished)]
    for item in gone:
        artifacts.remove(item.place)
    return gone


def _collect_trainings(store: Store, artifacts: Artifacts, items: Sequence[Item]) -> list[Item]:
    ended = {training.id for training in store.all_trainings() if training.state.ended}
    gone = [item for item in items if item.kind is Kind.FOREIGN or item.training_id in ended]
    for item in gone:
        artifacts.remove(item.place)
    return gone


def _still(item: Item, forgotten: set[str], recorded: set[str], unfinished: set[int]) -> bool:
    checkpoint = _CHECKPOINT.fullmatch(item.place)
    if checkpoint is not None:
        return int(checkpoint["number"]) not in unfinished
    return item.place in forgotten if item.kind is Kind.WEIGHTS else item.place not in recorded
