"""What a trial leaves behind after each epoch: whole or not there, and only its own."""

from __future__ import annotations

import logging
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from nas.artifacts import Artifacts
from nas.errors import CommonFault
from nas.training.checkpoint import TrialCheckpoint, discard_checkpoints
from nas.trial import EpochRecord, TrialKind, TrialSpec
from tests.disks import full, small_disk

__all__ = ["small_disk"]

SPEC = TrialSpec(3, TrialKind.SEARCH, {"target": 4.0, "optimizer": "sgd"}, 17)
RECORDS = [EpochRecord(epoch, "gates", {"loss": 1 / epoch}, {"layer": 4}) for epoch in (1, 2)]
FILE = "studies/s/checkpoints/3.tar"


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def open_checkpoint(tmp_path: Path, storage: Path, process: str, spec: TrialSpec = SPEC) -> TrialCheckpoint:
    folder = tmp_path / process
    folder.mkdir()
    return TrialCheckpoint(Artifacts(str(storage)), "s", spec, folder)


def committed(tmp_path: Path, storage: Path) -> TrialCheckpoint:
    first = open_checkpoint(tmp_path, storage, "first")
    first.search.write_bytes(b"search")
    first.commit(RECORDS[:1])
    first.search.write_bytes(b"later")
    first.network.write_bytes(b"network")
    first.commit(RECORDS)
    return first


def test_another_process_finds_the_last_epoch(tmp_path: Path, storage: Path) -> None:
    committed(tmp_path, storage)
    second = open_checkpoint(tmp_path, storage, "second")
    assert second.restore()
    assert (second.search.read_bytes(), second.network.read_bytes()) == (b"later", b"network")
    assert second.history == tuple(RECORDS)
    assert sorted(path.name for path in (storage / FILE).parent.iterdir()) == ["3.tar"]


def test_the_first_run_finds_none(tmp_path: Path, storage: Path) -> None:
    checkpoint = open_checkpoint(tmp_path, storage, "first")
    assert not checkpoint.restore()
    assert checkpoint.history == ()
    assert not checkpoint.search.exists()


ADDED = {"a file elsewhere": ("../out", tarfile.REGTYPE), "a link": ("link", tarfile.SYMTYPE)}


@pytest.mark.parametrize("damage", ["cut", "other bytes", "empty", "another seed", *ADDED])
def test_what_cannot_be_continued_is_left(
    tmp_path: Path, storage: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    committed(tmp_path, storage)
    path, spec = storage / FILE, SPEC
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:700])
    elif damage == "other bytes":
        path.write_bytes(b"x" * 5000)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage in ADDED:
        with tarfile.open(path, "a") as archive:
            added = tarfile.TarInfo(ADDED[damage][0])
            added.type, added.linkname = ADDED[damage][1], "search.pt"
            archive.addfile(added)
    else:
        spec = replace(SPEC, seed=18)
    second = open_checkpoint(tmp_path, storage, "second", spec)
    with caplog.at_level(logging.WARNING):
        assert not second.restore()
    assert "trial 3 starts anew: its checkpoint cannot be continued" in caplog.text
    assert (second.history, second.search.exists(), second.network.exists()) == ((), False, False)
    second.commit(RECORDS)
    assert open_checkpoint(tmp_path, storage, "third", spec).restore()


def test_a_storage_that_refuses_costs_no_trial(
    tmp_path: Path, storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage.write_text("a file where a folder must be")
    with caplog.at_level(logging.WARNING):
        open_checkpoint(tmp_path, storage, "first").commit(RECORDS)
        discard_checkpoints(Artifacts(str(storage)), "s", [3])
    assert "trial 3: epoch 2 has no checkpoint" in caplog.text


def test_a_full_disk_is_no_trials_fault(small_disk: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tmp_path, small_disk, "first")
    checkpoint.commit(RECORDS[:1])
    checkpoint.network.write_bytes(bytes(100_000))
    with full(small_disk), pytest.raises(CommonFault, match=r"checkpoint cannot be written \(.*No space left"):
        checkpoint.commit(RECORDS)
    again = open_checkpoint(tmp_path, small_disk, "second")
    assert again.restore()
    assert again.history == tuple(RECORDS[:1])


def test_those_of_ended_trials_are_deleted(tmp_path: Path, storage: Path) -> None:
    committed(tmp_path, storage)
    discard_checkpoints(Artifacts(str(storage)), "s", [1, 2])
    assert (storage / FILE).exists()
    discard_checkpoints(Artifacts(str(storage)), "s", [2, 3])
    assert not (storage / FILE).exists()
    discard_checkpoints(Artifacts(str(storage)), "s", [3])
