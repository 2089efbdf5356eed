from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.artifacts import Artifacts, check_uri, zip_folder
from nas.errors import InputError, NotFoundError, StoreError
from tests.nas.object_store import object_store

URI = "studies/0b1c/3/weights.safetensors"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with object_store() as url:
        yield url


@pytest.fixture(params=["folder", "file URL", "memory URL", "S3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Artifacts:
    if request.param == "S3":
        return Artifacts(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")
    places = {
        "folder": str(tmp_path / "storage"),
        "file URL": f"file://{tmp_path}/storage",
        "memory URL": f"memory://{tmp_path.name}",
    }
    return Artifacts(places[request.param])


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "local.bin"
    path.write_bytes(os.urandom(3 << 20))
    return path


def test_what_was_put_is_fetched(storage: Artifacts, local: Path, tmp_path: Path) -> None:
    artifact = storage.put(local, URI, "weights")
    assert artifact.sha256 == hashlib.sha256(local.read_bytes()).hexdigest()
    assert (artifact.uri, artifact.size, artifact.kind) == (URI, 3 << 20, "weights")
    assert storage.exists(URI)
    folder = tmp_path / "into"
    folder.mkdir()
    assert storage.fetch(artifact, folder) == folder / "weights.safetensors"
    assert storage.fetch(artifact, folder / "other").read_bytes() == local.read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["other", "weights.safetensors"]


def test_put_again_replaces(storage: Artifacts, local: Path, tmp_path: Path) -> None:
    old = storage.put(local, URI, "weights")
    local.write_bytes(b"new")
    new = storage.put(local, URI, "weights")
    assert storage.fetch(new, tmp_path / "fetched").read_bytes() == b"new"
    with pytest.raises(StoreError, match="damaged"):
        storage.fetch(old, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == b"new"


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"\0" + data[1:], lambda data: b""])
def test_damage_is_noticed_and_nothing_left_behind(tmp_path: Path, local: Path, damage) -> None:
    storage = Artifacts(str(tmp_path / "storage"))
    artifact = storage.put(local, URI, "weights")
    stored = tmp_path / "storage" / URI
    stored.write_bytes(damage(stored.read_bytes()))
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(StoreError, match=r"weights\.safetensors is damaged"):
        storage.fetch(artifact, into)
    assert list(into.iterdir()) == []


def test_nothing_half_written(tmp_path: Path, local: Path) -> None:
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "studies").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match="cannot be written"):
        Artifacts(str(tmp_path / "storage")).put(local, URI, "weights")
    Artifacts(str(tmp_path / "storage")).put(local, "exports/a.zip", "export")
    assert [path.name for path in (tmp_path / "storage" / "exports").iterdir()] == ["a.zip"]


def test_what_is_missing(storage: Artifacts, local: Path, tmp_path: Path) -> None:
    artifact = storage.put(local, URI, "weights")
    with pytest.raises(NotFoundError, match=r"exports/gone\.zip; is NAS_STORAGE right"):
        storage.fetch(replace(artifact, uri="exports/gone.zip"), tmp_path)
    with pytest.raises(NotFoundError, match="no file"):
        storage.put(tmp_path / "gone", URI, "weights")
    assert not storage.exists("exports/gone.zip")


@pytest.mark.parametrize(
    "uri",
    ["", "/etc/passwd", "../secret", "a/../../b", "a//b", "a/", "./a", "a\\b", "a/.hidden", "a b", "s3://x/y", "a\n",
     "x" * 513, "~/a", "a/%2e%2e/b"],
)
def test_no_way_out_of_the_storage(tmp_path: Path, local: Path, uri: str) -> None:
    storage = Artifacts(str(tmp_path / "storage"))
    artifact = storage.put(local, URI, "weights")
    with pytest.raises(InputError, match="relative"):
        storage.put(local, uri, "weights")
    with pytest.raises(InputError, match="relative"):
        storage.fetch(replace(artifact, uri=uri), tmp_path)
    with pytest.raises(InputError, match="relative"):
        storage.exists(uri)


@given(st.text(max_size=30))
def test_an_accepted_uri_stays_below(uri: str) -> None:
    try:
        check_uri(uri)
    except InputError:
        return
    assert os.path.normpath(f"/storage/{uri}") == f"/storage/{uri}"


def test_storages_that_cannot_be_used() -> None:
    with pytest.raises(StoreError, match="nope://") as caught:
        Artifacts("nope://key:secret@bucket/folder")
    assert "secret" not in str(caught.value)


def test_a_folder_as_a_zip(tmp_path: Path) -> None:
    folder = tmp_path / "digits-trial-3"
    (folder / "more").mkdir(parents=True)
    (folder / "more" / "a.txt").write_text("a")
    with zipfile.ZipFile(zip_folder(folder, tmp_path / "export.zip")) as archive:
        assert archive.read("digits-trial-3/more/a.txt") == b"a"


def test_files_without_a_record_are_copied_listed_and_deleted(storage: Artifacts, local: Path, tmp_path: Path) -> None:
    folder, uri = "studies/0b1c/checkpoints", "studies/0b1c/checkpoints/3.tar"
    assert storage.names(folder) == []
    storage.put(local, uri, "checkpoint")
    storage.put(local, f"{folder}/deeper/4.tar", "checkpoint")
    assert storage.names(folder) == ["3.tar"]
    assert storage.copy(uri, tmp_path / "copy").read_bytes() == local.read_bytes()
    storage.remove(uri)
    storage.remove(uri)
    assert (storage.exists(uri), storage.names(folder)) == (False, [])
    with pytest.raises(NotFoundError, match=r"has no file studies/0b1c/checkpoints/3\.tar"):
        storage.copy(uri, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("place", ["nope://key:s3cr/e3t@bucket/x", "nope://key:s3cr@e3t@bucket", "nope://b?secret=s3cr&e3t"])
def test_no_secret_of_a_storage_is_shown(place: str) -> None:
    with pytest.raises(StoreError, match="cannot be used") as caught:
        Artifacts(place)
    assert "s3cr" not in str(caught.value)
    assert "e3t" not in str(caught.value)


def test_what_a_killed_process_left_half_written_is_swept(tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        file.truncate(4 << 30)  # takes seconds to copy, and no room
    place = str(tmp_path / "storage")
    code = (
        "import sys; from pathlib import Path; from nas.artifacts import Artifacts\n"
        "Artifacts(sys.argv[1]).put(Path(sys.argv[2]), sys.argv[3], 'weights')"
    )
    storage = Artifacts(place)
    storage.discard_partials("studies/0b1c")  # there is no such folder yet
    child = subprocess.Popen([sys.executable, "-c", code, place, str(large), URI])
    try:
        while not (left := storage.names("studies/0b1c/3")):
            assert child.poll() is None
    finally:
        child.kill()
        child.wait()
    assert left[0].endswith(".partial")
    assert storage.names("studies/0b1c/3") == left
    large.write_bytes(b"x")
    kept = storage.put(large, URI, "weights")
    storage.discard_partials("studies/0b1c", "other")
    assert len(storage.names("studies/0b1c/3")) == 2
    storage.discard_partials("studies/0b1c", "weights")
    assert storage.names("studies/0b1c/3") == ["weights.safetensors"]
    assert storage.fetch(kept, tmp_path / "fetched").read_bytes() == b"x"
