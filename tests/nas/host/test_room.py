"""Room on disks: looked at before a search writes, on file systems that are really full."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from nas.artifacts import Artifacts
from nas.errors import CommonFault, StoreError
from nas.host.room import check_room, is_disk_fault
from tests.disks import full, small_disk

__all__ = ["small_disk"]


@pytest.mark.parametrize("new", [True, False])
def test_a_writable_storage_passes_and_nothing_stays(tmp_path: Path, new: bool) -> None:
    storage = tmp_path / "new" / "storage" if new else tmp_path
    check_room(str(storage))
    assert list(storage.iterdir()) == []
    check_room("memory://room")


def test_a_storage_without_room_is_one_sentence(small_disk: Path) -> None:
    storage = small_disk / "storage"
    check_room(str(storage))
    with full(small_disk), pytest.raises(CommonFault, match=rf"^storage {storage} has 0.0 MiB free, but needs at l"):
        check_room(str(storage))
    check_room(str(storage))


def test_temporary_files_need_room_too(small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with full(small_disk), pytest.raises(CommonFault, match=rf"^temporary folder {small_disk} has 0.0 MiB free"):
        check_room(str(tmp_path))


def test_a_vanished_temporary_folder_is_a_common_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(CommonFault, match="temporary files cannot be written"):
        check_room(str(tmp_path))


def test_a_full_disk_is_recognised_behind_the_error_of_the_storage(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(100_000))
    with full(small_disk), pytest.raises(StoreError) as caught:
        Artifacts(str(small_disk)).put(tmp_path / "weights", "weights", "weights")
    assert is_disk_fault(caught.value)
    assert not is_disk_fault(StoreError("the checksum differs"))
    assert [path.name for path in small_disk.iterdir()] == []
