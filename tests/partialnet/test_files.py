"""Files that this package writes: whole or not at all, through links, with the umask's permissions."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from partialnet.architecture import Architecture
from partialnet.data.cache import decode_cached
from partialnet.files import save_safetensors, whole_file
from partialnet.models.partialnet import create
from partialnet.package import Preprocessing, save_package, save_tensors
from partialnet.train.checkpoint import write_tensors

OPTIONS = {
    "num_classes": 10, "in_chans": 1, "patch_size": 1, "depths": [1], "merge_strides": [], "rests": ["identity"],
    "use_spatial_attn": False,
}  # fmt: skip
MICRO = Architecture("partialnet_micro", OPTIONS)
PREPROCESSING = Preprocessing("digits", tuple("0123456789"), (1, 8, 8), (0.3,), (0.4,))


@pytest.fixture(params=[0o022, 0o027, 0o002], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_permissions_of_all_that_is_written_are_the_umask_s(
    tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "image.png"
    Image.new("L", (8, 8)).save(image)
    monkeypatch.setenv("PARTIALNET_CACHE", str(tmp_path / "cache"))
    decode_cached("set", [image], 1, None)
    network = create(MICRO)
    onnx = umask == 0o022  # takes seconds
    save_package(tmp_path / "below" / "package", network, PREPROCESSING, readme="x")
    save_package(tmp_path / "below" / "package", network, PREPROCESSING, readme="x", onnx=onnx, overwrite=True)
    save_tensors(network, tmp_path / "weights.safetensors")
    write_tensors(tmp_path / "checkpoints" / "checkpoint.pt", {"schema": 1})
    MICRO.save(tmp_path / "architecture.json")
    written = [path for path in tmp_path.rglob("*") if path != image]
    suffixes = {".safetensors", ".lock", ".json", ".md", ".pt"} | ({".onnx"} if onnx else set())
    assert suffixes <= {path.suffix for path in written}
    expected = {path: (0o777 if path.is_dir() else 0o666) & ~umask for path in written}
    wrong = {path.name: oct(mode(path)) for path in written if mode(path) != expected[path]}
    assert wrong == {}


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.touch(0o640)
    save_safetensors({"a": torch.zeros(1)}, path)
    assert mode(path) == 0o640


WRITERS = {
    "architecture": MICRO.save,
    "checkpoint": lambda path: write_tensors(path, {"schema": 1}),
    "any": lambda path: _write(path, "new"),
}


def _write(path: Path, text: str) -> None:
    with whole_file(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("kind", WRITERS)
def test_a_link_stays_a_link_and_its_file_is_replaced(tmp_path: Path, kind: str) -> None:
    target, link = tmp_path / "disk" / "file", tmp_path / "link"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to(target)
    WRITERS[kind](link)
    assert link.readlink() == target
    assert target.read_bytes() != b"old"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["disk", "file", "link"]


def test_a_failure_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    _write(tmp_path / "below" / "file", "old")
    with pytest.raises(UnicodeEncodeError):
        _write(tmp_path / "below" / "file", "half \udc80")
    assert [path.read_text() for path in (tmp_path / "below").iterdir()] == ["old"]


def test_a_mounted_file_is_overwritten(tmp_path: Path) -> None:
    """In a mount namespace of its own, where an unprivileged user may mount a file over another."""
    disk, mounted = tmp_path / "disk", tmp_path / "mounted"
    disk.touch()
    mounted.touch()
    unshare, mount = shutil.which("unshare"), f"mount --bind {disk} {mounted}"
    if unshare is None or subprocess.run([unshare, "-rm", "sh", "-c", mount], check=False).returncode:
        pytest.skip("needs unshare(1) and the right to mount in a namespace")
    code = f"from partialnet.architecture import Architecture as A, Path; A('a').save(Path('{mounted}'))"
    command = f'{mount} && exec {sys.executable} -c "{code}"'
    subprocess.run([unshare, "-rm", "sh", "-c", command], check=True)
    assert Architecture.load(disk).model == "a"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "mounted"]


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_text()))
    reader.start()
    _write(tmp_path / "pipe", "new")
    reader.join(10)
    assert received == ["new"]
    assert (tmp_path / "pipe").is_fifo()


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        MICRO.save(tmp_path)
