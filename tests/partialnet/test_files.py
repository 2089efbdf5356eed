"""Files that this package writes: the umask gives their permissions."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from partialnet.architecture import Architecture
from partialnet.data.cache import decode_cached
from partialnet.files import save_safetensors
from partialnet.models.partialnet import create
from partialnet.package import Preprocessing, save_package, save_tensors
from partialnet.train.checkpoint import write_tensors

MICRO = Architecture("partialnet_micro", {"num_classes": 10, "in_chans": 1, "patch_size": 1, "depths": [1, 1, 1, 1]})
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
