"""Unpacks an archive of a study into a store. An archive may come from anybody, so nothing in it is believed.

Names within the archive are compared with those that it may have; none becomes a path. Sizes are those that the
archive declares, which zipfile does not exceed, and are checked before anything is read.
"""

from __future__ import annotations

import hashlib
import re
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from nas.artifacts import Artifacts
from nas.candidate import Artifact, Candidate
from nas.definition.study import parse_study
from nas.errors import ConflictError, InputError, NasError
from nas.scratch import scratch_folder
from nas.store import Store
from nas.store.transfer import WholeStudy, WholeTrial
from nas.study import ComparisonPlan, DataFingerprint, PriorTrial, Study, StudyState
from nas.transfer.entries import (
    FORMAT,
    STUDY,
    TRIALS,
    CandidateEntry,
    StudyEntry,
    TrialEntry,
    WeightsEntry,
    checked,
    read_entry,
    weights_name,
)
from nas.trial import Fidelity, Placement, Rung, Trial, TrialSpec, TrialState
from partialnet.architecture import Architecture

MAX_BYTES = 64 << 30
_MAX_STUDY = 64 << 20
_MAX_LINE = 64 << 20
_MAX_ENTRIES = 200_000
_MAX_RATIO = 400  # JSON of histories shrinks to a twentieth; a bomb to a thousandth
_WEIGHTS = re.compile(r"weights/[0-9]{1,9}-[0-9]{1,6}\.safetensors")
_CHUNK = 1 << 20
_UNFINISHED = (StudyState.QUEUED, StudyState.RUNNING, StudyState.INTERRUPTED)
IMPORTED = "imported before its search had ended"


def unpack_study(
    store: Store, artifacts: Artifacts, path: Path, *, new_id: bool = False, max_bytes: int = MAX_BYTES
) -> Study:
    """Write the study of an archive into a store, with its own id: it stays the same study, wherever it is.

    An unfinished search becomes a paused one; its unfinished trials start anew, since checkpoints do not travel.

    Args:
        store: Store to write to.
        artifacts: Storage of the weights.
        path: Zip file of :func:`nas.transfer.pack.pack_study`.
        new_id: Whether it gets a new id, to have it twice in one store.
        max_bytes: Largest size of the unpacked archive in bytes.

    Returns:
        Study, whose name is numbered if it was taken.

    Raises:
        InputError: If the file is not such an archive, is damaged, or is larger than allowed; the message says where.
        ConflictError: If the study is in the store already.
    """
    with _opened(path, max_bytes) as archive:
        entry = read_entry(StudyEntry, _read(archive, STUDY, _MAX_STUDY, path), f"{path}: {STUDY}")
        if entry.format != FORMAT:
            raise InputError(f"{path}: the archive has format {entry.format}, but this version reads format {FORMAT}")
        whole = _study_from(entry, f"{path}: {STUDY}", new_id)
        if store.has_study(whole.study.id):
            raise ConflictError(
                f"study {whole.study.name} ({whole.study.id}) is in this database already; --new-id imports a copy"
            )
        trials = _Trials(archive, path, whole.study.id)
        found = trials.check(entry.trials)
        stored: list[str] = []
        try:
            for number, position, weights in found:
                stored.append(_uri(whole.study.id, number, position))
                _store_weights(archive, artifacts, path, (number, position), weights, stored[-1])
            return store.import_study(whole, trials)
        except BaseException:
            for uri in stored:
                artifacts.remove(uri)
            raise


class _Trials:
    """The trials of an archive; each iteration reads them anew, so that few are in memory."""

    def __init__(self, archive: zipfile.ZipFile, path: Path, study_id: str) -> None:
        self._archive, self._path, self._study_id = archive, path, study_id

    def __iter__(self) -> Iterator[WholeTrial]:
        for entry, where in self._entries():
            yield _trial_from(entry, self._study_id, where)

    def check(self, count: int) -> list[tuple[int, int, WeightsEntry]]:
        """Check all trials; return the weights of the archive with their trial and position.

        Raises:
            InputError: If a trial is invalid, or there are others than there should be.
        """
        found, last = [], -1
        for entry, where in self._entries():
            if entry.number != last + 1:
                raise InputError(f"{where}: the trial has number {entry.number}, but should have {last + 1}")
            last = entry.number
            _trial_from(entry, self._study_id, where)
            found += [
                (entry.number, position, candidate.weights)
                for position, candidate in enumerate(entry.candidates)
                if candidate.weights is not None and entry.state.ended
            ]
        if last + 1 != count:
            raise InputError(f"{self._path}: {TRIALS} has {last + 1} trials, but {STUDY} says {count}")
        named = {weights_name(number, position) for number, position, _ in found}
        present = set(self._archive.namelist()) - {STUDY, TRIALS}
        if named != present:
            example = sorted(named ^ present)[0]
            which = "is missing" if example in named else "belongs to no network"
            raise InputError(f"{self._path}: {example} {which}")
        return found

    def _entries(self) -> Iterator[tuple[TrialEntry, str]]:
        with _open(self._archive, TRIALS, self._path) as lines:
            for place, line in enumerate(iter(lambda: lines.readline(_MAX_LINE + 1), b""), start=1):
                where = f"{self._path}: {TRIALS}, line {place}"
                if len(line) > _MAX_LINE:
                    raise InputError(f"{where}: the line has more than {_MAX_LINE:,} bytes")
                yield read_entry(TrialEntry, line, where), where


@contextmanager
def _opened(path: Path, max_bytes: int) -> Iterator[zipfile.ZipFile]:
    """Open an archive, and check its list of contents."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: not the zip file of a study ({reason}); nas study export makes one") from None
    with archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if len(names) > _MAX_ENTRIES or len(set(names)) < len(names):
            raise InputError(f"{path}: {len(names):,} entries, some of them twice or more than {_MAX_ENTRIES:,}")
        for entry in entries:
            if entry.filename not in (STUDY, TRIALS) and not _WEIGHTS.fullmatch(entry.filename):
                raise InputError(f"{path}: {entry.filename!r:.100} is no part of an archive of a study")
            if entry.flag_bits & 1:
                raise InputError(f"{path}: {entry.filename} is encrypted")
            if entry.file_size > _MAX_RATIO * max(entry.compress_size, 1024):
                raise InputError(f"{path}: {entry.filename} would unpack to {entry.file_size:,} bytes: too many")
        total = sum(entry.file_size for entry in entries)
        if total > max_bytes:
            raise InputError(f"{path}: it would unpack to {total:,} bytes, but at most {max_bytes:,} are allowed")
        if missing := {STUDY, TRIALS} - set(names):
            raise InputError(f"{path}: {sorted(missing)[0]} is missing; is it an archive of nas study export?")
        yield archive


@contextmanager
def _open(archive: zipfile.ZipFile, name: str, path: Path) -> Iterator[IO[bytes]]:
    """Open an entry; faults of its bytes become errors in words."""
    try:
        with archive.open(name) as file:
            yield file
    except NasError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, ValueError) as error:
        raise InputError(f"{path}: {name} is damaged ({error})") from None
    except Exception as error:  # zlib, bz2 and lzma raise errors of their own
        raise InputError(f"{path}: {name} is damaged ({type(error).__name__}: {error})") from None


def _read(archive: zipfile.ZipFile, name: str, limit: int, path: Path) -> bytes:
    with _open(archive, name, path) as file:
        found = file.read(limit + 1)
    if len(found) > limit:
        raise InputError(f"{path}: {name} has more than {limit:,} bytes")
    return found


def _store_weights(
    archive: zipfile.ZipFile,
    artifacts: Artifacts,
    path: Path,
    place: tuple[int, int],
    weights: WeightsEntry,
    uri: str,
) -> None:
    name, digest, size = weights_name(*place), hashlib.sha256(), 0
    with scratch_folder("weights") as scratch:
        copy = scratch / "model.safetensors"
        with _open(archive, name, path) as source, copy.open("wb") as target:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                target.write(chunk)
        if (digest.hexdigest(), size) != (weights.sha256, weights.size):
            raise InputError(f"{path}: {name} is damaged: its SHA-256 or its size is not the recorded one")
        artifacts.put(copy, uri, "weights")


def _uri(study_id: str, number: int, position: int) -> str:
    return f"studies/{study_id}/imported/{number}-{position}.safetensors"


def _study_from(entry: StudyEntry, where: str, new_id: bool) -> WholeStudy:
    definition = parse_study(entry.definition, f"{where}, definition")
    unfinished = entry.state in _UNFINISHED
    data, plan = entry.data, entry.comparison_plan
    study = Study(
        id=str(uuid.uuid4()) if new_id else str(entry.id),
        name=entry.name,
        state=StudyState.PAUSED if unfinished else entry.state,
        definition=definition,
        reference_point=entry.reference_point,
        created_at=entry.created_at,
        updated_at=entry.created_at,
        reason=IMPORTED if unfinished else entry.reason,
        report=entry.report,
        data=None if data is None else checked(lambda: DataFingerprint.from_dict(data), f"{where}, data"),
        extended=entry.extended,
        comparison_plan=None if plan is None else checked(lambda: ComparisonPlan.from_dict(plan), f"{where}, plan"),
        tags=entry.tags,
        note=entry.note,
        archived=entry.archived,
        created_by=entry.created_by,
    )
    if entry.prior is not None:
        checked(lambda: [PriorTrial.from_dict(result) for result in entry.prior or ()], f"{where}, prior")
    return WholeStudy(study, entry.prior, entry.latency_table, trials=entry.trials)


def _trial_from(entry: TrialEntry, study_id: str, where: str) -> WholeTrial:
    def build() -> WholeTrial:
        spec = TrialSpec.of_stored(entry.number, entry.kind, entry.parameters, entry.seed)
        candidates = tuple(
            _candidate_from(candidate, study_id, entry.number, position)
            for position, candidate in enumerate(entry.candidates)
        )
        trial = Trial(
            number=entry.number,
            kind=entry.kind,
            state=entry.state,
            parameters=spec.parameters,
            seed=entry.seed,
            reason=entry.reason,
            candidates=candidates,
            history=entry.history,
            started_at=entry.started_at,
            ended_at=entry.ended_at,
            placement=None if entry.placement is None else Placement.from_dict(entry.placement),
            finalist=spec.finalist,
            fidelity=None if entry.fidelity is None else Fidelity(entry.fidelity.epochs, entry.fidelity.budget),
        )
        if not trial.state.ended:
            again = replace(trial, state=TrialState.QUEUED, candidates=(), history=(), started_at=None, reason=None)
            return WholeTrial(again, entry.created_at)
        pinned = frozenset(position for position, candidate in enumerate(entry.candidates) if candidate.pinned)
        rungs = tuple(Rung(entry.number, rung.epoch, rung.scores, rung.kept) for rung in entry.rungs)
        return WholeTrial(trial, entry.created_at, pinned, rungs)

    found: WholeTrial = checked(build, where)
    return found


def _candidate_from(entry: CandidateEntry, study_id: str, number: int, position: int) -> Candidate:
    weights = entry.weights
    uri = _uri(study_id, number, position)
    return Candidate(
        architecture=Architecture.from_dict(entry.architecture),
        splits=entry.splits,
        evaluations=entry.evaluations,
        measurements=entry.measurements,
        weights=None if weights is None else Artifact(uri, weights.sha256, weights.size, "weights"),
        within_budget=entry.within_budget,
        note=entry.note,
        target=entry.target,
        measured_within_budget=entry.measured_within_budget,
        trainings=entry.trainings,
    )
