"""Whole studies that travel between stores, and archives that somebody else made."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from nas.artifacts import Artifacts
from nas.candidate import Artifact, Candidate
from nas.errors import ConflictError, InputError, NotFoundError
from nas.metrics import Measurement
from nas.store import Store
from nas.study import DataFingerprint, Study, StudyState
from nas.transfer.entries import CandidateEntry, StudyEntry, TrialEntry
from nas.transfer.pack import pack_study
from nas.transfer.unpack import IMPORTED, unpack_study
from nas.transfer.words import Weights
from nas.trial import EpochRecord, Fidelity, Placement, Rung, Trial, TrialKind, TrialState
from tests.nas.store.makers import candidate, study

Nas = Callable[..., tuple[int, str, str]]


def trained(store: Store, artifacts: Artifacts, folder: Path, *, ended: bool = True) -> Study:
    """Fill a study with every kind of row."""
    made = study(store, "whole", objectives=["top1", "macs"])
    store.record_data(made.id, DataFingerprint(("a", "b"), {"train": 9}, {"train": "00"}))
    for active in (3, 4, 5):
        (number,) = [spec.number for spec in store.add_trials(made.id, [(TrialKind.SEARCH, {"target": 2.5})])]
        store.start_trial(made.id, number)
        store.place_trial(made.id, number, Placement("here", 7, 1.0, 0.5, ("0",)))
        for epoch in (1, 2):
            record = EpochRecord(epoch, "gates", {"loss": 1.5 / epoch, "top1": 0.5}, {"stages.0.blocks.0.mixer": 4})
            store.record_epoch(made.id, number, record, Rung(number, epoch, (0.25,), True))
        file = folder / "weights.safetensors"
        file.write_bytes(bytes([active]) * 1000)
        weights = artifacts.put(file, f"studies/{made.id}/{number}/weights.safetensors", "weights")
        # The third one costs more and scores less than the others, so it is not on the front.
        costs = (Measurement("macs", 1000.0 * active, {"n": 1}, "fvcore"), Measurement("latency_ms", 2.5, {}, "here"))
        found = candidate(active, 0.1 if active == 5 else active / 10, measurements=costs, weights=weights)
        store.end_trial(made.id, number, TrialState.COMPLETE, candidates=[replace(found, within_budget=True)])
    store.pin(made.id, 1, 0)
    store.add_trials(made.id, [(TrialKind.SEARCH, {"target": 3.0})] * 2 + [(TrialKind.BASELINE, {"ratio": 0.5})])
    store.start_trial(made.id, 3)
    store.end_trial(made.id, 3, TrialState.PRUNED, fidelity=Fidelity(1, 4), reason="rung 1")
    store.start_trial(made.id, 4)
    store.record_epoch(made.id, 4, EpochRecord(1, "gates", {"loss": 1.0}, {}))
    if ended:
        store.end_trial(made.id, 4, TrialState.FAILED, reason="it diverged <b>\x01ü</b>")
        store.end_trial(made.id, 5, TrialState.CANCELLED)
        store.describe(made.id, tags=["a-tag"], note="A note: <b>", archived=True)
        store.set_study_state(made.id, StudyState.FINISHED, report=["It found nothing.", "ü & <b>"])
    else:
        store.set_study_state(made.id, StudyState.RUNNING)
    return store.study(made.id)


def plain(trials: list[Trial]) -> list[Trial]:
    """Return trials without the places of their weights, which are different in each storage."""
    def moved(weights: Artifact | None) -> Artifact | None:
        return None if weights is None else replace(weights, uri="x")

    return [
        replace(trial, candidates=tuple(replace(c, weights=moved(c.weights)) for c in trial.candidates))
        for trial in trials
    ]


@pytest.fixture
def other(tmp_path: Path, migrated_file: Path) -> Iterator[Store]:
    """Another, empty store."""
    shutil.copy(migrated_file, tmp_path / "other.db")
    with Store.open(f"sqlite:///{tmp_path / 'other.db'}") as opened:
        yield opened


def test_a_study_is_the_same_in_another_store_and_back(store: Store, other: Store, tmp_path: Path) -> None:
    here, there = Artifacts(str(tmp_path / "here")), Artifacts(str(tmp_path / "there"))
    made = trained(store, here, tmp_path)
    packed = pack_study(store, here, "whole", tmp_path / "S.zip", weights=Weights.ALL)
    assert (packed.trials, packed.weights, packed.missing) == (6, 3, [])
    found = unpack_study(other, there, tmp_path / "S.zip")
    assert replace(found, updated_at=made.updated_at) == made
    before, after = store.trials(made.id, history=True), other.trials(made.id, history=True)
    assert plain(before) == plain(after)
    assert store.rungs(made.id) == other.rungs(made.id)
    assert store.split_rows(made.id) == other.split_rows(made.id)
    assert store.pins(made.id) == other.pins(made.id) == {(1, 0)}
    assert store.front(made.id) == other.front(made.id)
    grown = [[(growth.number, growth.value) for growth in each.growths(made.id)] for each in (store, other)]
    assert grown[0] == grown[1] != []
    assert store.study_row(made.id).counts == other.study_row(made.id).counts
    for trial in after[:3]:
        weights = trial.candidates[0].weights
        assert weights is not None
        assert there.fetch(weights, tmp_path).read_bytes() == bytes([trial.number + 3]) * 1000
    # Back again, as a copy beside the first one.
    pack_study(other, there, made.id, tmp_path / "T.zip")
    with pytest.raises(ConflictError, match="--new-id"):
        unpack_study(store, here, tmp_path / "T.zip")
    copy = unpack_study(store, here, tmp_path / "T.zip", new_id=True)
    assert (copy.name, copy.id == made.id) == ("whole-2", False)
    assert store.front(copy.id).points == store.front(made.id).points


def test_each_fact_of_a_study_has_a_place_in_an_archive() -> None:
    here = {"updated_at", "finalist"}  # of this store alone; among the parameters
    for kind, entry in ((Study, StudyEntry), (Trial, TrialEntry), (Candidate, CandidateEntry)):
        facts = {item.name for item in fields(kind)} - here
        assert facts <= set(entry.model_fields), kind


def test_only_weights_that_are_kept_travel_by_default(store: Store, tmp_path: Path) -> None:
    here = Artifacts(str(tmp_path / "here"))
    made = trained(store, here, tmp_path)
    kept = {(entry.number, entry.position) for entry in store.stored_weights(made.id) if entry.kept is not None}
    assert 0 < len(kept) < 3
    for weights, count in ((Weights.KEPT, len(kept)), (Weights.NONE, 0)):
        assert pack_study(store, here, "whole", tmp_path / "S.zip", weights=weights).weights == count
    shutil.rmtree(tmp_path / "here")
    assert len(pack_study(store, here, "whole", tmp_path / "S.zip").missing) == len(kept)


def test_an_unfinished_search_becomes_a_paused_one(store: Store, other: Store, tmp_path: Path) -> None:
    here = Artifacts(str(tmp_path / "here"))
    made = trained(store, here, tmp_path, ended=False)
    pack_study(store, here, "whole", tmp_path / "S.zip")
    found = unpack_study(other, here, tmp_path / "S.zip")
    assert (found.state, found.reason) == (StudyState.PAUSED, IMPORTED)
    running = other.trial(made.id, 4)
    assert (running.state, running.history) == (TrialState.QUEUED, ())
    assert other.trial(made.id, 5).state is TrialState.QUEUED
    assert other.resume(made.id).study_id == made.id


def test_who_imports_owns_it(store: Store, other: Store, tmp_path: Path) -> None:
    here = Artifacts(str(tmp_path / "here"))
    made = trained(store, here, tmp_path)
    pack_study(store, here, "whole", tmp_path / "S.zip")
    assert unpack_study(other.acting("alice"), here, tmp_path / "S.zip").created_by == "alice"
    assert other.study(made.id).created_by == "alice"


def rewritten(path: Path, target: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """Copy an archive with changed entries."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return target


def study_with(**changes: Any) -> Callable[[dict[str, bytes]], None]:
    def change(entries: dict[str, bytes]) -> None:
        entries["study.json"] = json.dumps({**json.loads(entries["study.json"]), **changes}).encode()

    return change


def first_trial_with(**changes: Any) -> Callable[[dict[str, bytes]], None]:
    def change(entries: dict[str, bytes]) -> None:
        first, *rest = entries["trials.jsonl"].splitlines()
        entries["trials.jsonl"] = b"\n".join([json.dumps({**json.loads(first), **changes}).encode(), *rest]) + b"\n"

    return change


def swapped(name: str, old: bytes, new: bytes) -> Callable[[dict[str, bytes]], None]:
    def change(entries: dict[str, bytes]) -> None:
        assert old in entries[name]
        entries[name] = entries[name].replace(old, new, 1)

    return change


WEIGHTS = "weights/0-0.safetensors"
BAD: dict[str, tuple[Callable[[dict[str, bytes]], object], str]] = {
    "a path that climbs": (lambda e: e.update({"../../evil.py": b"x"}), "no part of an archive"),
    "an absolute path": (lambda e: e.update({"/etc/cron.d/evil": b"x"}), "no part of an archive"),
    "a path below a good one": (lambda e: e.update({"weights/../../0-0.safetensors": b"x"}), "no part of an archive"),
    "a backslash": (lambda e: e.update({"weights\\..\\0-0.safetensors": b"x"}), "no part of an archive"),
    "code": (lambda e: e.update({"weights/0-0.pkl": b"x"}), "no part of an archive"),
    "a bomb": (lambda e: e.update({"trials.jsonl": b" " * (1 << 23)}), "would unpack to 8,388,608 bytes"),
    "no study": (lambda e: e.pop("study.json"), "study.json is missing"),
    "no trials": (lambda e: e.pop("trials.jsonl"), "trials.jsonl is missing"),
    "another format": (study_with(format=2), "format 2"),
    "an unknown key": (study_with(evil=1), "evil"),
    "an id that is a path": (study_with(id="../../x"), "id"),
    "a name that is a path": (study_with(name="../x"), "name"),
    "a broken definition": (study_with(definition={"name": "x", "data": {"name": "/etc"}}), "unknown data set"),
    "a number that is none": (swapped("study.json", b'"top1": 0.0', b'"top1": NaN'), "NaN"),
    "a number that is too large": (swapped("study.json", b'"top1": 0.0', b'"top1": 1e999'), "too large"),
    "a key twice": (swapped("study.json", b'"format"', b'"name": "y", "format"'), "twice"),
    "too few trials": (study_with(trials=9), "has 6 trials, but study.json says 9"),
    "trials of another order": (first_trial_with(number=3), "line 1: the trial has number 3"),
    "a trial without a seed": (first_trial_with(seed="x"), "line 1: seed"),
    "an epoch that is not finite": (swapped("trials.jsonl", b'"loss":1.5', b'"loss":Infinity'), "Infinity"),
    "an unknown metric": (swapped("trials.jsonl", b'"metric":"macs"', b'"metric":"evil"'), "line 1"),
    "an unknown architecture": (swapped("trials.jsonl", b'"schema":', b'"schemes":'), "line 1"),
    "a time without its zone": (swapped("trials.jsonl", b'Z"', b'"'), "line 1"),
    "weights without a network": (lambda e: e.update({"weights/9-0.safetensors": b"x"}), "belongs to no network"),
    "a network without its weights": (lambda e: e.pop(WEIGHTS), "weights/0-0.safetensors is missing"),
    "other weights": (lambda e: e.update({WEIGHTS: bytes(1000)}), "SHA-256"),
    "nested too deeply": (lambda e: e.update({"study.json": b'{"a":' * 3_000}), "not valid JSON"),
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with all weights."""
    folder = tmp_path_factory.mktemp("archive")
    artifacts = Artifacts(str(folder / "storage"))
    with Store.open(f"sqlite:///{folder / 'nas.db'}") as store:
        trained(store, artifacts, folder)
        pack_study(store, artifacts, "whole", folder / "S.zip", weights=Weights.ALL)
    return folder / "S.zip"


def test_whatever_is_wrong_with_an_archive_nothing_of_it_is_kept(
    other: Store, archive: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    for name, (change, expected) in BAD.items():
        bad = rewritten(archive, tmp_path / "bad.zip", change)
        with pytest.raises(InputError) as caught:
            unpack_study(other, Artifacts(str(target)), bad)
        assert expected in str(caught.value), (name, str(caught.value))
        assert str(caught.value).startswith(f"{bad}: ") or name == "a name that is a path"
    assert other.studies() == []
    assert [path for path in target.rglob("*") if path.is_file()] == []
    assert unpack_study(other, Artifacts(str(target)), archive).name == "whole"


def test_files_that_are_no_archive(other: Store, archive: Path, tmp_path: Path) -> None:
    artifacts = Artifacts(str(tmp_path / "target"))
    content = archive.read_bytes()
    torn = bytearray(content)
    place = content.find(b"trials.jsonl")
    torn[place + 40 : place + 60] = bytes(20)
    for written in (b"", b"PK", b"no zip", content[: len(content) // 2], bytes(torn)):
        (tmp_path / "bad.zip").write_bytes(written)
        with pytest.raises(InputError, match=r"bad\.zip"):
            unpack_study(other, artifacts, tmp_path / "bad.zip")
    with pytest.raises(InputError, match="No such file"):
        unpack_study(other, artifacts, tmp_path / "none.zip")
    with pytest.raises(InputError, match="at most 1,000 are allowed"):
        unpack_study(other, artifacts, archive, max_bytes=1000)
    assert other.studies() == []


def test_the_commands(nas: Nas, archive: Path, tmp_path: Path) -> None:
    database, storage = f"sqlite:///{tmp_path / 'nas.db'}", str(tmp_path / "storage")
    place = ("--database", database, "--storage", storage)
    code, out, err = nas("study", "import", str(archive), *place)
    assert (code, "is finished, with 6 trials" in out) == (0, True), err
    assert nas("study", "import", str(archive), *place)[0] == 2
    assert json.loads(nas("study", "import", str(archive), "--new-id", "--json", *place)[1])["name"] == "whole-2"
    target = tmp_path / "out.zip"
    code, out, err = nas("study", "export", "whole", "--out", str(target), *place)
    assert (code, "6 trials, weights of 2 networks" in out) == (0, True), out + err
    assert nas("study", "export", "whole", "--out", str(target), *place)[0] == 2
    assert nas("study", "export", "whole", "--out", str(target), "--force", *place)[0] == 0
    assert "whole" in nas("study", "whole", "--database", database)[1]
    assert nas("study", "--json", "whole", "--database", database)[0] == 0
    code, _, err = nas("study", "export", "none", "--out", str(tmp_path / "x.zip"), *place)
    assert (code, "did you mean whole" in err, (tmp_path / "x.zip").exists()) == (2, True, False)
    with Store.open(database) as store, pytest.raises(NotFoundError):
        pack_study(store, Artifacts(storage), "none", tmp_path / "x.zip")
