from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image

from partialnet.data import cache as module
from partialnet.data.cache import cache_directory, decode, decode_cached
from partialnet.errors import DataError

from . import made


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    made.class_folders(tmp_path, ("train",), ("a", "b"), per_class=6)
    return sorted((tmp_path / "train").glob("*/*.png"))


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def test_images_are_decoded_once(
    tmp_path: Path, paths: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = decode_cached("set", paths, 3, None)
    assert first.shape == (12, 3, 32, 32)
    assert first[:, 0, 0, 0].tolist() == [10 + 20 * label + index for label in range(2) for index in range(6)]
    [file] = files(cache)
    monkeypatch.setattr(module, "open_image", None)  # a second decoding would fail
    assert torch.equal(decode_cached("set", paths, 3, None), first)
    assert files(cache) == [file]


def test_a_changed_file_is_seen(tmp_path: Path, paths: list[Path]) -> None:
    first = decode_cached("set", paths, 3, None)
    paths[0].write_bytes(paths[11].read_bytes())
    assert torch.equal(decode_cached("set", paths, 3, None)[0], first[11])


def test_files_that_differ_in_content_alone_are_told_apart(tmp_path: Path) -> None:
    """Equal names, sizes and times, as in archives that are packed reproducibly; in two places, and in one."""
    copies = []
    for index, grey in enumerate((10, 200)):
        path = tmp_path / f"copy{index}" / "pets" / "train" / "cat" / "0.bmp"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), (grey,) * 3).save(path)
        os.utime(path, ns=(0, 0))
        copies.append(path)
    assert copies[0].stat().st_size == copies[1].stat().st_size
    assert [int(decode_cached("set", [path], 1, None).max()) for path in copies] == [10, 200]
    copies[0].write_bytes(copies[1].read_bytes())
    os.utime(copies[0], ns=(0, 0))
    assert int(decode_cached("set", copies[:1], 1, None).max()) == 200


def test_a_copy_in_another_place_is_not_decoded_again(tmp_path: Path, paths: list[Path], cache: Path) -> None:
    decode_cached("set", paths, 3, None)
    moved = (tmp_path / "train").rename(tmp_path / "elsewhere")
    decode_cached("set", sorted(moved.glob("*/*.png")), 3, None)
    assert len(files(cache)) == 1


def test_the_order_of_the_files_counts(paths: list[Path]) -> None:
    first = decode_cached("set", paths, 3, None)
    assert torch.equal(decode_cached("set", paths[::-1], 3, None), first.flip(0))


def test_another_decoder_decodes_anew(paths: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode_cached("set", paths, 3, None)
    monkeypatch.setattr("PIL.__version__", "1")
    decode_cached("set", paths, 3, None)
    assert len(files(cache)) == 2


def test_each_size_and_colour_has_its_own(tmp_path: Path, paths: list[Path], cache: Path) -> None:
    shapes = [decode_cached("set", paths, c, size).shape[1:] for c in (1, 3) for size in (None, 8)]
    assert shapes == [(1, 32, 32), (1, 8, 8), (3, 32, 32), (3, 8, 8)]
    assert len(files(cache)) == 4


@pytest.mark.parametrize("keep", [0, 5, 200])
def test_a_damaged_file_is_made_again(
    tmp_path: Path, paths: list[Path], cache: Path, keep: int, caplog: pytest.LogCaptureFixture
) -> None:
    first = decode_cached("set", paths, 3, None)
    [file] = files(cache)
    whole = file.read_bytes()
    file.write_bytes(whole[:keep])
    assert torch.equal(decode_cached("set", paths, 3, None), first)
    assert "damaged" in caplog.text
    assert file.read_bytes() == whole


def test_a_place_that_cannot_be_written_costs_time_only(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("PARTIALNET_CACHE", str(tmp_path / "file" / "below"))
    assert decode_cached("set", paths, 3, None).shape == (12, 3, 32, 32)
    assert "cannot be kept" in caplog.text
    assert "set PARTIALNET_CACHE" in caplog.text


def test_nothing_is_written_into_the_data_root(tmp_path: Path, paths: list[Path]) -> None:
    before = sorted(tmp_path.rglob("*"))
    decode_cached("set", paths, 3, None)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_first_of_many_decodes(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(module, "decode", lambda *arguments: calls.append(1) or decode(*arguments))
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: decode_cached("set", paths, 3, None), range(4)))
    assert len(calls) == 1
    assert all(torch.equal(result, results[0]) for result in results)


def test_progress_is_told(paths: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    decode("set", paths, 3, None)
    assert "set: decoding 12 images" in caplog.text


def test_a_broken_image_is_named_and_nothing_kept(tmp_path: Path, paths: list[Path], cache: Path) -> None:
    paths[5].write_bytes(b"")
    with pytest.raises(DataError, match=r"a.0005\.png: cannot be read as an image"):
        decode_cached("set", paths, 3, None)
    assert files(cache) == []
    assert [path.name for path in cache.iterdir() if "partial" in path.name] == []


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PARTIALNET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_directory() == tmp_path / "partialnet"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "partialnet"
    assert os.environ["HOME"] == str(tmp_path)
