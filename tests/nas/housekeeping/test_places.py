"""Where data sets are found under the data roots."""

from __future__ import annotations

from pathlib import Path

from nas.housekeeping.places import own_folders
from partialnet.data.catalog import DATASETS
from tests.partialnet.data import made


def test_folders_of_ones_own_are_known_by_their_layout(tmp_path: Path) -> None:
    made.class_folders(tmp_path / "one" / "folders", ("train",), ("cat", "dog"), per_class=1)
    for name in ("two/shards/train-0.tar", "one/listed/train.csv", "one/cifar-100-python/train", "two/other/x.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    roots = [tmp_path / "one", tmp_path / "two", tmp_path / "none"]
    found = {
        name: [str(path.relative_to(tmp_path)) for path in own_folders(name, roots)]
        for name, facts in DATASETS.items()
        if facts.in_folder
    }
    assert found == {"image_folder": ["one/folders"], "image_shards": ["two/shards"], "image_csv": ["one/listed"]}
