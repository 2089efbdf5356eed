"""The number of a data set's images: the same wherever they lie, another one for every change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from partialnet.data import digest, load
from partialnet.data.digest import digest_of_files, digest_of_pixels
from partialnet.data.pieces import Transform
from partialnet.data.source import TensorImages
from partialnet.errors import DataError
from tests.partialnet.data import made

CLASSES = ("cat", "dog")


def files(folder: Path) -> tuple[list[Path], torch.Tensor]:
    paths = sorted(folder.rglob("*.png"))
    return paths, torch.tensor([CLASSES.index(path.parent.name) for path in paths])


@given(st.lists(st.integers(0, 255), min_size=12, max_size=12), st.integers(0, 11), st.integers(0, 2))
def test_every_pixel_and_class_of_images_in_memory_counts(values: list[int], place: int, image: int) -> None:
    images, targets = torch.tensor(values, dtype=torch.uint8).reshape(3, 1, 2, 2), torch.tensor([0, 1, 0])
    same = digest_of_pixels(images.clone(), targets.clone())
    assert digest_of_pixels(images, targets) == same
    other, classes = images.clone(), targets.clone()
    other.view(-1)[place] += 1
    classes[image] += 1
    changed = [(other, targets), (images, classes), (images[:2], targets[:2]), (images.reshape(3, 1, 4, 1), targets)]
    assert same not in {digest_of_pixels(*pair) for pair in changed}


def test_images_in_files_count_by_name_size_class_and_content(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "far" / "there"
    made.class_folders(here, ("train",), CLASSES, per_class=3)
    shutil.copytree(here, there)
    same = digest_of_files(*files(here))
    assert digest_of_files(*files(there)) == same
    paths, targets = files(there)
    seen = {same, digest_of_files(paths, 1 - targets), digest_of_files(paths[1:], targets[1:])}
    content = paths[0].read_bytes()
    paths[0].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    seen.add(digest_of_files(paths, targets))
    paths[0].write_bytes(content)
    paths[0].rename(paths[0].with_name("another.png"))
    seen.add(digest_of_files(*files(there)))
    assert len(seen) == 5


def test_of_many_files_the_names_and_sizes_of_all_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "_READ", 2)
    made.class_folders(tmp_path, ("train",), CLASSES, per_class=4)
    paths, targets = files(tmp_path)
    before = digest_of_files(paths, targets)
    paths[1].write_bytes(paths[1].read_bytes() + b"x")
    assert digest_of_files(paths, targets) != before


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    made.class_folders(tmp_path, ("train",), CLASSES, per_class=2)
    paths, targets = files(tmp_path)
    paths[2].unlink()
    with pytest.raises(DataError, match=f"{paths[2]}: cannot be read"):
        digest_of_files(paths, targets)


def test_scaling_does_not_count() -> None:
    small, large = load("digits"), load("digits", image_size=16)
    assert small.train.digest() == large.train.digest()
    assert small.train.digest() != small.validation.digest()
    assert small.train.digest() != load("digits", seed=1).train.digest()


def test_images_of_a_caller() -> None:
    images, targets = torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1])
    source = TensorImages(images, targets, Transform((0.5,), (0.5,), False, 2))
    assert source.digest() == digest_of_pixels(images, targets)
