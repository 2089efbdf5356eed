"""The data of a study: what it is, that it stays so, and that damage shows before anything is trained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nas.definition.study import StudyDefinition
from nas.study import DataFingerprint
from nas.training.data import check_unchanged, inspect_data, open_data
from partialnet.errors import DataError
from tests.nas import tiny
from tests.partialnet.data import made

CLASSES = ("cat", "dog", "emu")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTIALNET_CACHE", str(tmp_path / "cache"))


def study(size: int = 32, candidates: int = 1) -> StudyDefinition:
    """Return a study on the folder ``pets``; images of up to 64 pixels are decoded into memory, larger ones are not."""
    data = {"name": "image_folder", "folder": "pets", "image_size": size, "validation_fraction": 0.25}
    return tiny.tiny(data=data, final={"candidates": candidates, "seeds": 1}, baselines=["1/4"])


def folder(root: Path, splits: tuple[str, ...] = ("train", "test"), classes: tuple[str, ...] = CLASSES) -> Path:
    made.class_folders(root / "pets", splits, classes, per_class=8)
    return root


@pytest.mark.parametrize("size", [32, 96])
def test_what_it_is(tmp_path: Path, size: int) -> None:
    root = folder(tmp_path)
    splits, data = inspect_data(study(size), [root])
    assert data.classes == CLASSES == splits.info.class_names
    assert data.counts == {"train": 18, "validation": 6, "test": 24}
    assert inspect_data(study(size), [root], data)[1] == data
    assert set(inspect_data(study(size, candidates=0), [root])[1].counts) == {"train", "validation"}
    assert re.fullmatch("3 classes; images: 18 train, 6 validation, 24 test; content [0-9a-f]{8}", data.sentence())
    assert DataFingerprint.from_dict(data.to_dict()) == data


@pytest.mark.parametrize("size", [32, 96])
def test_a_damaged_test_image_is_named_when_the_study_starts(tmp_path: Path, size: int) -> None:
    root = folder(tmp_path)
    damaged = sorted((root / "pets" / "test").rglob("*.png"))[10]
    damaged.write_bytes(b"damaged")
    with pytest.raises(DataError, match=re.escape(str(damaged))):
        inspect_data(study(size), [root])
    assert inspect_data(study(size, candidates=0), [root])[1].counts["train"] == 18  # nobody needs it


def test_without_test_images_there_are_none(tmp_path: Path) -> None:
    assert "test" not in inspect_data(study(), [folder(tmp_path, ("train",))])[1].counts


def test_what_has_changed_is_said() -> None:
    counts = {"train": 1800, "validation": 20, "test": 5}
    before = DataFingerprint(("a", "b"), counts, dict.fromkeys(counts, "00"))
    assert before.changes(before) == []
    more = DataFingerprint(("a", "b", "c"), {**before.counts, "train": 2700}, before.content)
    assert before.changes(more) == ["with the new class 'c'", "2,700 instead of 1,800 train images"]
    assert more.changes(before) == ["without the class 'c'", "1,800 instead of 2,700 train images"]
    turned = DataFingerprint(("b", "a"), before.counts, before.content)
    assert before.changes(turned) == ["the classes in another order"]
    other = DataFingerprint(("a", "b"), before.counts, {**before.content, "validation": "01"})
    assert before.changes(other) == ["other content in the 20 validation images"]
    none = DataFingerprint(("a", "b"), {"train": 1800, "validation": 20}, {"train": "00", "validation": "00"})
    assert before.changes(none) == ["0 instead of 5 test images"]
    assert none.changes(before) == ["5 instead of 0 test images"]


def test_a_trial_refuses_other_images_than_its_study_s(tmp_path: Path) -> None:
    root = folder(tmp_path)
    _, data = inspect_data(study(), [root])
    check_unchanged(open_data(study(), [root]), data)
    made.class_folders(root / "pets", ("train", "test"), ("yak",), per_class=8)
    with pytest.raises(DataError, match="has changed since the study was started: with the new class 'yak'"):
        check_unchanged(open_data(study(), [root]), data)
