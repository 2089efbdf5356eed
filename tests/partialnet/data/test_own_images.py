"""Images of one's own in tar shards and in CSV lists, and what is done about broken ones."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from partialnet.data import DataSplits, Workers, load
from partialnet.data.cache import readable
from partialnet.data.readers import shard_index
from partialnet.data.readers.shards import ShardImages
from partialnet.errors import DataChanged, DataError, DataMissing

SIZES = [24, 72]  # decoded at once, and when needed


def picture(grey: int, size: tuple[int, int] = (90, 80)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (grey, grey, grey)).save(file, "PNG")
    return file.getvalue()


def write_shard(path: Path, members: Mapping[str, bytes] | Sequence[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def sample(key: str, label: int | str, grey: int) -> dict[str, bytes]:
    return {f"{key}.png": picture(grey), f"{key}.cls": str(label).encode()}


def shards(base: Path, part: str = "train", count: int = 2, per_shard: int = 6) -> list[Path]:
    """Write shards whose images tell their class (two of them) by their grey: 100 of class 0, 200 of class 1."""
    paths = []
    for number in range(count):
        members: dict[str, bytes] = {}
        for index in range(per_shard):
            label = index % 2
            members |= sample(f"a/{number}-{index}", label, 100 + 100 * label + number * per_shard + index)
        paths.append(write_shard(base / f"{part}-{number:03d}.tar", members))
    return paths


def write_list(path: Path, rows: Sequence[tuple[str, str]], head: str = "path,label") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, *(f"{name},{label}" for name, label in rows)]) + "\n", encoding="utf-8")


def listed(base: Path, part: str = "train", per_class: int = 6) -> list[tuple[str, str]]:
    rows = []
    for index in range(2 * per_class):
        name = f"{part}/{index}.png"
        (base / part).mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(picture(100 + 100 * (index % 2) + index))
        rows.append((name, ("cat", "dog")[index % 2]))
    write_list(base / f"{part}.csv", rows)
    return rows


def greys(splits: DataSplits, part: str = "train") -> torch.Tensor:
    source = getattr(splits, part)
    mean, std = (torch.tensor(values)[:1] for values in (splits.info.mean, splits.info.std))
    inputs = torch.cat([images[:, 0, 4, 4] for images, _ in source.batches(4)])
    return ((inputs * std + mean) * 255).round().int()


def opened(name: str, root: Path, size: int = 72, **options: object) -> DataSplits:
    return load(name, [root], folder="pets", image_size=size, validation_fraction=0.25, **options)  # type: ignore[arg-type]


class TestShards:
    @pytest.mark.parametrize("size", SIZES)
    def test_images_have_their_labels(self, tmp_path: Path, size: int) -> None:
        for part, count in (("train", 2), ("val", 1), ("test", 1)):
            shards(tmp_path / "pets", part, count)
        splits = opened("image_shards", tmp_path, size)
        assert splits.info.class_names == ("0", "1")
        assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [12, 6, 6]
        for part in ("train", "validation", "test"):
            assert torch.equal(greys(splits, part) // 100 - 1, getattr(splits, part).targets.int())

    def test_layouts(self, tmp_path: Path) -> None:
        members = sample("x", 0, 100) | sample("y", 1, 200)
        for name in ("imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar", "strain-0.tar", ".train-1.tar"):
            write_shard(tmp_path / "pets" / name, members)
        splits = opened("image_shards", tmp_path)
        assert (len(splits.train), len(splits.validation)) == (2, 2)
        write_shard(tmp_path / "pets" / "train" / "0.tar", members | sample("z", 1, 201))
        assert len(opened("image_shards", tmp_path).train) == 3

    def test_labels_from_json_and_names(self, tmp_path: Path) -> None:
        found = {"a.png": picture(1), "a.json": json.dumps({"label": "dog", "url": "x"}).encode(), "a.txt": b"a dog"}
        found |= {"b.tiny.v2.png": picture(2)} | sample("c", "cat", 2)
        write_shard(tmp_path / "pets" / "train-0.tar", found)
        splits = opened("image_shards", tmp_path)
        assert splits.info.class_names == ("cat", "dog")
        assert splits.left_out == (f"{tmp_path / 'pets'}: samples without an image: 1 left out of the train shards",)
        (tmp_path / "pets" / "classes.txt").write_text("bird\ndog\ncat\n")
        assert opened("image_shards", tmp_path).info.class_names == ("bird", "dog", "cat")

    @pytest.mark.parametrize(
        ("members", "told"),
        [
            ({"a.png": b"", **sample("b", 1, 1)}, r"train-0\.tar: a\.png: has no label; looked for a\.cls and a\.json"),
            ([*sample("a", 0, 1).items(), *sample("a", 0, 1).items()], r"a\.png: is in the shard twice"),
            ({**sample("a", 0, 1), "a.jpg": b""}, r"a\.jpg: its sample has another image, a\.png"),
            ({**sample("a", 0, 1), "a.cls": b" "}, r"a\.cls: the label is empty"),
            ({"a.png": b"", "a.json": b'{"labels": 1}'}, r"a\.json: cannot be read as a label .must hold a number"),
            ({"a.png": b"", "a.json": b"{"}, r"a\.json: cannot be read as a label"),
            ({"a.png": b"", "a.cls": b"\xff"}, r"a\.cls: cannot be read as a label"),
            ({"a.png": b"", "a.cls": bytes(2 << 20)}, "too much for a label"),
            (sample("a", 0, 1) | sample("b", 2, 1), "no training image has the label 1, but labels go up to 2"),
            ({"notes.txt": b""}, "the 1 shards of image_shards-train hold no images"),
        ],
    )
    def test_a_sample_that_is_not_whole_is_named(
        self, tmp_path: Path, members: Mapping[str, bytes] | Sequence[tuple[str, bytes]], told: str
    ) -> None:
        write_shard(tmp_path / "pets" / "train-0.tar", members)
        with pytest.raises(DataError, match=told):
            opened("image_shards", tmp_path)

    def test_one_key_in_two_shards(self, tmp_path: Path) -> None:
        for number in range(2):
            write_shard(tmp_path / "pets" / f"train-{number}.tar", sample("same", number, 1))
        with pytest.raises(DataError, match=r"train-1\.tar: the sample 'same' is in .*train-0\.tar as well"):
            opened("image_shards", tmp_path)

    def test_an_unknown_label(self, tmp_path: Path) -> None:
        shards(tmp_path / "pets")
        write_shard(tmp_path / "pets" / "val-0.tar", sample("x", 2, 1))
        with pytest.raises(DataError, match=r"val-0\.tar: x\.png: the label '2' is not a class of the training images"):
            opened("image_shards", tmp_path)

    @pytest.mark.parametrize("keep", [0, 100, 700, 1024, 5000, -1024, -10240])
    def test_a_cut_shard_is_named_before_the_training(self, tmp_path: Path, keep: int) -> None:
        _, last = shards(tmp_path / "pets")
        with tarfile.open(last) as archive:
            ends = archive.getmembers()[-1]
        whole = last.read_bytes()[: ends.offset_data + 512]  # a member ends here, so only the end mark is missing
        last.write_bytes(whole if keep == -1024 else whole[:keep])
        with pytest.raises(DataError, match=r"train-001\.tar.*(cut off|damaged)"):
            opened("image_shards", tmp_path)

    def test_a_damaged_header_is_no_end(self, tmp_path: Path) -> None:
        _, last = shards(tmp_path / "pets")
        with tarfile.open(last) as archive:
            place = archive.getmembers()[4].offset
        content = bytearray(last.read_bytes())
        content[place + 150] ^= 0xFF
        last.write_bytes(content)
        with pytest.raises(DataError, match=rf"train-001\.tar: damaged or cut off at byte {place}"):
            opened("image_shards", tmp_path)

    def test_a_packed_shard_is_refused(self, tmp_path: Path) -> None:
        path, _ = shards(tmp_path / "pets")
        with tarfile.open(path, "w:gz"):
            pass
        with pytest.raises(DataError, match=r"train-000\.tar: damaged, cut off, or no uncompressed tar file"):
            opened("image_shards", tmp_path)

    def test_names_and_links_lead_nowhere(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret.png"
        secret.write_bytes(picture(7))
        members = sample("../../up", 0, 100) | sample("/etc/root", 1, 200)
        path = write_shard(tmp_path / "pets" / "train-0.tar", members)
        with tarfile.open(path, "a") as archive:
            for kind, name in ((tarfile.SYMTYPE, "link"), (tarfile.LNKTYPE, "hard")):
                entry = tarfile.TarInfo(f"{name}.png")
                entry.type, entry.linkname = kind, str(secret)
                archive.addfile(entry)
        splits = opened("image_shards", tmp_path)
        assert sorted(greys(splits).tolist() + greys(splits, "validation").tolist()) == [100, 200]
        (line,) = splits.left_out
        assert line.endswith("members that are neither files nor folders: 2 left out of the train shards")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["pets", "secret.png"]  # nothing was unpacked

    def test_the_index_is_built_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first, _ = shards(tmp_path / "pets")
        before = opened("image_shards", tmp_path)
        build = shard_index.build_index
        monkeypatch.setattr(shard_index, "build_index", None)
        again, skipping = (opened("image_shards", tmp_path, skip_broken=skip) for skip in (False, True))
        assert torch.equal(greys(again), greys(before))
        assert again.train.digest() == before.train.digest()
        monkeypatch.setattr(shard_index, "build_index", build)
        write_shard(first, sample("new", 0, 100) | sample("newer", 1, 200))
        for splits in (before, skipping):  # nothing in a changed shard can be trusted, so it cannot be skipped either
            with pytest.raises(DataChanged, match=r"0-\d\.png: the shard has changed since it was indexed"):
                greys(splits)
            with pytest.raises(DataError, match="the shard has changed since it was indexed"):
                splits.check()
        assert len(opened("image_shards", tmp_path).train) == 6

    def test_a_damaged_index_is_built_anew(self, tmp_path: Path, cache: Path) -> None:
        shards(tmp_path / "pets")
        before = greys(opened("image_shards", tmp_path))
        for file in cache.glob("*.index.safetensors"):
            file.write_bytes(file.read_bytes()[:50])
        assert torch.equal(greys(opened("image_shards", tmp_path)), before)


class TestLists:
    @pytest.mark.parametrize("size", SIZES)
    def test_images_have_their_labels(self, tmp_path: Path, size: int) -> None:
        for part in ("train", "val", "test"):
            listed(tmp_path / "pets", part)
        splits = opened("image_csv", tmp_path, size)
        assert splits.info.class_names == ("cat", "dog")
        for part in ("train", "validation", "test"):
            assert torch.equal(greys(splits, part) // 100 - 1, getattr(splits, part).targets.int())

    def test_columns_by_name_and_classes_by_number(self, tmp_path: Path) -> None:
        rows = listed(tmp_path / "pets")
        text = "label,size, path\r\n" + "".join(f'{int(name == "dog")},"9,0",{path}\r\n' for path, name in rows)
        (tmp_path / "pets" / "train.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
        (tmp_path / "pets" / "classes.txt").write_text("Katze\nHund\n")
        splits = opened("image_csv", tmp_path)
        assert splits.info.class_names == ("Katze", "Hund")
        assert torch.equal(greys(splits) // 100 - 1, splits.train.targets.int())

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("", r"train\.csv line 1: is '', but must name the columns path,label"),
            ("path,label,path\n", "line 1: is 'path,label,path', but must name the columns path,label once each"),
            ("path,label\n", r"train\.csv: lists no images"),
            ("path,label\ntrain/0.png\n", "line 2: has 1 columns, but line 1 has 2"),
            ("path,label\ntrain/0.png,\n", "line 2: the label is empty"),
            ("path,label\n,cat\n", "line 2: the path is empty"),
            ("path,label\n\ntrain/0.png,a\ntrain/../train/0.png,b\n", r"line 4: .* must be a path below .*pets"),
            ("path,label\ntrain/0.png,a\n./train/0.png,b\n", r"line 3: './train/0\.png' is already in line 2"),
            ("path,label\n../out.png,a\n", r"line 2: '\.\./out\.png' must be a path below .*pets, without '\.\.'"),
            ("path,label\n/etc/out.png,a\n", r"line 2: '/etc/out\.png' must be a path below"),
            ("path,label\nlink.png,a\n", r"line 2: .*link\.png: a link leads out of .*pets"),
            ("path,label\nfolder/out.png,a\n", r"line 2: .*folder/out\.png: a link leads out of .*pets"),
            ("path,label\ntrain/77.png,a\n", r"line 2: .*77\.png: there is no such file"),
            ("path,label\ntrain.csv,a\n", r"line 2: 'train\.csv' does not end as an image does"),
            ('path,label\n"train/0.png"x,a\n', r"train\.csv: cannot be read as a CSV file"),
        ],
    )
    def test_a_bad_line_is_named(self, tmp_path: Path, text: str, told: str) -> None:
        listed(tmp_path / "pets")
        (tmp_path / "out.png").write_bytes(picture(1))
        (tmp_path / "pets" / "link.png").symlink_to(tmp_path / "out.png")
        (tmp_path / "pets" / "folder").symlink_to(tmp_path)
        (tmp_path / "pets" / "train.csv").write_text(text)
        with pytest.raises(DataError, match=told):
            opened("image_csv", tmp_path)

    def test_an_unknown_label_is_named(self, tmp_path: Path) -> None:
        rows = listed(tmp_path / "pets")
        write_list(tmp_path / "pets" / "val.csv", [rows[0], (rows[1][0], "cow")])
        with pytest.raises(DataError, match=r"val\.csv line 3: the label 'cow' is not a class of the training images"):
            opened("image_csv", tmp_path)
        (tmp_path / "pets" / "classes.txt").write_text("cat\ncow\n")
        with pytest.raises(DataError, match=r"train\.csv line 3: the label 'dog' is not a class of .*classes\.txt"):
            opened("image_csv", tmp_path)

    @pytest.mark.parametrize(("text", "told"), [("a\n\nb\n", "line 2: is empty"), ("a\nb\na\n", "line 3: 'a' is")])
    def test_a_bad_list_of_classes_is_named(self, tmp_path: Path, text: str, told: str) -> None:
        listed(tmp_path / "pets")
        (tmp_path / "pets" / "classes.txt").write_text(text)
        with pytest.raises(DataError, match=rf"classes\.txt {told}"):
            opened("image_csv", tmp_path)


@pytest.mark.parametrize("name", ["image_shards", "image_csv"])
def test_no_test_images_are_missing_ones(tmp_path: Path, name: str) -> None:
    shards(tmp_path / "pets")
    listed(tmp_path / "pets")
    splits = opened(name, tmp_path)
    assert not splits.has_test
    with pytest.raises(DataMissing, match=f"{name} has no test images"):
        _ = splits.test


def broken_pets(root: Path, name: str) -> str:
    """Write a data set with one broken training image, and return the end of its place."""
    base = root / "pets"
    if name == "image_shards":
        write_shard(base / "train-9.tar", sample("late", 0, 100) | {"broken.png": picture(1)[:60], "broken.cls": b"1"})
        shards(base)
        return "train-9.tar: broken.png"
    rows = listed(base)
    (base / rows[5][0]).write_bytes(b"")
    return "train.csv line 7"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["image_shards", "image_csv"])
def test_a_broken_image_is_named_and_skipped_only_on_request(
    tmp_path: Path, name: str, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    place = broken_pets(tmp_path, name)
    shards(tmp_path / "pets", "val")
    write_list(tmp_path / "pets" / "val.csv", [("train/0.png", "cat")])
    with pytest.raises(DataError, match=f"{place}.*cannot be read as an image"):
        greys(opened(name, tmp_path, size))
    splits = opened(name, tmp_path, size, skip_broken=True)
    with caplog.at_level(logging.WARNING):
        seen = [len(greys(splits)) for _ in range(2)]
    total = 14 if name == "image_shards" else 12
    assert seen == [total - 1] * 2
    told = [*splits.left_out, *splits.skipped]
    assert len([line for line in told if place in line]) == 1
    assert size == 24 or sum("skipped (1 so far)" in text for text in caplog.messages) == 1  # once, not in each epoch


def test_what_is_augmented_stays_with_its_image(tmp_path: Path) -> None:
    place = broken_pets(tmp_path, "image_csv")
    write_list(tmp_path / "pets" / "val.csv", [("train/0.png", "cat")])
    splits = opened("image_csv", tmp_path, skip_broken=True)
    for images, targets in splits.train.batches(4, shuffle_seed=0, augment="standard", classes=2):
        values = (images[:, 0, 30, 30] * splits.info.std[0] + splits.info.mean[0]) * 255
        assert torch.equal((values.round() // 100 - 1).long(), targets)
    assert place in splits.skipped[0]


def test_threads_or_processes_are_a_choice_of_whoever_loads(tmp_path: Path) -> None:
    listed(tmp_path / "pets")
    ways: list[dict[str, object]] = [{}, {"threads": 2}, {"workers": Workers(2, processes=True)}]
    first, *others = (greys(opened("image_csv", tmp_path, **way)) for way in ways)
    assert all(torch.equal(first, other) for other in others)
    with pytest.raises(DataError, match="threads is 2, but workers say how many there are already"):
        opened("image_csv", tmp_path, threads=2, workers=Workers())
    for none in (0, -1):
        with pytest.raises(DataError, match=f"the number of threads that decode images is {none}, but must be at"):
            opened("image_csv", tmp_path, threads=none)


def test_a_changed_shard_is_never_skipped(tmp_path: Path) -> None:
    paths = shards(tmp_path / "pets")
    index = shard_index.build_index("pets", paths)
    write_shard(paths[0], {"b/other.txt": b"x" * 3000, **sample("b/late", 0, 100)})
    with pytest.raises(DataChanged, match="changed since it was indexed"):
        readable(ShardImages(paths, index), 3)


def test_a_batch_of_broken_images_only_is_an_error(tmp_path: Path) -> None:
    rows = listed(tmp_path / "pets")
    for name, _ in rows:
        (tmp_path / "pets" / name).write_bytes(b"")
    splits = opened("image_csv", tmp_path, skip_broken=True)
    with pytest.raises(DataError, match=r"all 4 images of a batch are broken; the first skipped: .*train\.csv line"):
        greys(splits)
    with pytest.raises(DataError, match=r"all \d+ images are broken"):
        opened("image_csv", tmp_path, 24, skip_broken=True)
    with pytest.raises(DataError, match="images cannot be used"):
        splits.train.check()
