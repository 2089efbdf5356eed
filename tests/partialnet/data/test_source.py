from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image

from partialnet.data.augmentation import Augmentation
from partialnet.data.batches import Batches
from partialnet.data.pieces import Piece, Reading, Transform
from partialnet.data.source import FileImages, ImageSource, TensorImages
from partialnet.data.workers import Workers
from partialnet.errors import DataError

TRANSFORM = Transform((0.5,), (0.25,), flip=False, size=8)


@pytest.fixture
def source() -> TensorImages:
    images = torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, 0, 0, 0] = torch.arange(50)
    return TensorImages(images, torch.arange(50) % 10, TRANSFORM)


def epoch(source: ImageSource, **options: object) -> list[torch.Tensor]:
    return [inputs for inputs, _ in source.batches(16, **options)]  # type: ignore[arg-type]


def test_batches_are_normalised_and_in_order(source: TensorImages) -> None:
    inputs, targets = next(iter(source.batches(16)))
    assert inputs.dtype == torch.float32
    assert inputs.shape == (16, 1, 8, 8)
    expected = (torch.arange(16) / 255 - 0.5) / 0.25
    assert torch.allclose(inputs[:, 0, 0, 0], expected, atol=1e-6)
    assert targets.dtype == torch.int64
    assert targets.tolist() == [label % 10 for label in range(16)]


def test_an_epoch_shows_every_image_once(source: TensorImages) -> None:
    batches = source.batches(16, shuffle_seed=3)
    assert (len(batches), batches.images) == (4, 50)
    firsts = torch.cat([inputs[:, 0, 0, 0] for inputs, _ in batches])
    restored = ((firsts * 0.25 + 0.5) * 255).round().int().tolist()
    assert sorted(restored) == list(range(50))
    assert restored != list(range(50))


def test_drop_last_leaves_the_incomplete_batch_out(source: TensorImages) -> None:
    batches = source.batches(16, drop_last=True)
    assert [len(targets) for _, targets in batches] == [16, 16, 16]
    assert (len(batches), batches.images) == (3, 48)


@pytest.mark.parametrize("augment", ["none", "standard"])
def test_epochs_differ_and_can_be_seen_again(source: TensorImages, augment: str) -> None:
    batches = source.batches(16, shuffle_seed=1, augment=augment)  # type: ignore[arg-type]
    first, second = (torch.cat([inputs for inputs, _ in batches]) for _ in range(2))
    assert not torch.equal(first, second)
    batches.set_epoch(1)
    torch.manual_seed(99)  # the global generator is of no influence
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), second)
    assert torch.equal(torch.cat(epoch(source, shuffle_seed=1, augment=augment)), first)


def test_seeds_differ(source: TensorImages) -> None:
    assert not torch.equal(epoch(source, shuffle_seed=1)[0], epoch(source, shuffle_seed=2)[0])


def test_only_sets_that_may_be_are_mirrored() -> None:
    left = torch.zeros(200, 1, 8, 8, dtype=torch.uint8)
    left[:, :, 2:6, :2] = 255
    for flip in (False, True):
        images = TensorImages(left, torch.zeros(200, dtype=torch.int64), Transform((0.0,), (1.0,), flip, 8))
        right = next(iter(images.batches(200, shuffle_seed=0, augment="standard")))[0][:, 0, :, 4:].sum(dim=(1, 2)) > 0
        assert (80 < int(right.sum()) < 120) if flip else not right.any()


def test_bad_requests_name_the_value(source: TensorImages) -> None:
    with pytest.raises(DataError, match="batch_size is 0, but must be at least 1"):
        source.batches(0)
    with pytest.raises(DataError, match="augment is 'strong', but must be none or standard"):
        source.batches(4, augment="strong")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="3 images, but 2 targets"):
        TensorImages(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), TRANSFORM)


def photographs(folder: Path, count: int = 10, size: tuple[int, int] = (120, 90)) -> list[Path]:
    paths = []
    for index in range(count):
        image = Image.linear_gradient("L").resize(size).rotate(20 * index).convert("RGB")
        paths.append(folder / f"{index}.jpg")
        image.save(paths[-1])
    return paths


@pytest.mark.parametrize("size", [32, 80])
@pytest.mark.parametrize("augment", ["none", "standard"])
def test_files_give_the_same_images_with_any_number_of_threads(tmp_path: Path, size: int, augment: str) -> None:
    paths = photographs(tmp_path)
    transform = Transform((0.5,) * 3, (0.5,) * 3, True, size)
    targets = torch.arange(len(paths))
    one, four = (
        list(
            FileImages(paths, targets, 3, transform, Workers(threads)).batches(
                4, shuffle_seed=0, augment=augment  # type: ignore[arg-type]
            )
        )
        for threads in (1, 4)
    )
    assert [len(labels) for _, labels in one] == [4, 4, 2]
    assert one[0][0].shape == (4, 3, size, size)
    for (images, labels), (images_again, labels_again) in zip(one, four, strict=True):
        assert torch.equal(images, images_again)
        assert torch.equal(labels, labels_again)


def test_files_and_memory_agree(tmp_path: Path) -> None:
    paths = photographs(tmp_path, size=(32, 32))
    transform = Transform((0.5,) * 3, (0.5,) * 3, True, 32)
    targets = torch.arange(len(paths))
    files = FileImages(paths, targets, 3, transform)
    pixels = torch.cat([images for _, images in files.pixels([Piece(torch.arange(len(paths)))], Reading())])
    memory = TensorImages(pixels, targets, transform)
    for augment in ("none", "standard"):
        pair = (torch.cat(epoch(source, shuffle_seed=4, augment=augment)) for source in (files, memory))
        assert torch.equal(*pair)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    paths = photographs(tmp_path)
    paths[7].write_bytes(paths[7].read_bytes()[:400])
    broken = FileImages(paths, torch.zeros(10, dtype=torch.int64), 3, Transform((0.5,) * 3, (0.5,) * 3, True, 32))
    with pytest.raises(DataError, match=r"7\.jpg: cannot be read as an image"):
        list(broken.batches(4))


@pytest.mark.parametrize("seek", [0, 2])
def test_processes_give_the_images_of_threads_and_leave_the_generators_alone(tmp_path: Path, seek: int) -> None:
    paths = photographs(tmp_path, count=14, size=(200, 170))
    transform = Transform((0.5,) * 3, (0.5,) * 3, True, 80)
    strong = Augmentation(rand_augment="m5", erasing=0.5, mixup=0.2)

    def run(workers: Workers) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
        source = FileImages(paths, torch.arange(14) % 2, 3, transform, workers)
        batches = source.batches(4, shuffle_seed=3, augment="standard", augmentation=strong, classes=2)
        batches.seek(1, seek)
        torch.manual_seed(7)
        return list(batches), torch.rand(3)

    (threaded, drawn), (forked, drawn_again) = run(Workers(1)), run(Workers(2, processes=True))
    assert [len(labels) for _, labels in forked] == [4, 4, 4, 2][seek:]
    assert torch.equal(drawn, drawn_again)
    for (images, labels), (images_again, labels_again) in zip(threaded, forked, strict=True):
        assert torch.equal(images, images_again)
        assert torch.equal(labels, labels_again)


def test_a_broken_image_is_named_or_skipped_by_processes(tmp_path: Path) -> None:
    paths = photographs(tmp_path)
    paths[7].write_bytes(paths[7].read_bytes()[:400])
    transform = Transform((0.5,) * 3, (0.5,) * 3, True, 32)
    workers = Workers(2, processes=True)
    with pytest.raises(DataError, match=r"7\.jpg: cannot be read as an image"):
        list(FileImages(paths, torch.zeros(10, dtype=torch.int64), 3, transform, workers).batches(4))
    source = FileImages(paths, torch.zeros(10, dtype=torch.int64), 3, transform, workers, skip_broken=True)
    assert [len(labels) for _, labels in source.batches(4)] == [4, 3, 2]
    assert len(source.skipped) == 1


class Deadly:
    """An image whose decoding kills its process."""

    def read_bytes(self) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""


class Obedient:
    """An image whose process has received a request to stop before it is decoded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read_bytes(self) -> bytes:
        if multiprocessing.parent_process() is not None:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(os.getpid(), number)
        return self._path.read_bytes()


def test_processes_outlive_requests_to_stop(tmp_path: Path) -> None:
    images = [Obedient(path) for path in photographs(tmp_path, count=4)]
    transform, targets = Transform((0.5,) * 3, (0.5,) * 3, True, 32), torch.zeros(4, dtype=torch.int64)
    before = signal.getsignal(signal.SIGCHLD)
    assert len(list(FileImages(images, targets, 3, transform, Workers(2, processes=True)).batches(2))) == 2
    assert signal.getsignal(signal.SIGCHLD) == before


@pytest.mark.long  # torch looks after its processes every five seconds
def test_a_process_that_dies_is_told(tmp_path: Path) -> None:
    images = [*photographs(tmp_path, count=3), Deadly()]
    transform, targets = Transform((0.5,) * 3, (0.5,) * 3, True, 32), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(DataError, match="a process that decodes images has died"):
        list(FileImages(images, targets, 3, transform, Workers(2, processes=True)).batches(2))
    assert multiprocessing.active_children() == []


def test_processes_end_with_an_epoch_that_is_left(tmp_path: Path) -> None:
    paths = photographs(tmp_path, count=8)
    source = FileImages(
        paths, torch.zeros(8, dtype=torch.int64), 3, Transform((0.5,) * 3, (0.5,) * 3, True, 32), Workers(2, True)
    )
    before = len(multiprocessing.active_children())
    running = iter(source.batches(2))
    next(running)
    assert len(multiprocessing.active_children()) == before + 2
    del running
    assert len(multiprocessing.active_children()) == before


class Counted:
    """An encoded image that counts how often it is read."""

    def __init__(self, path: Path, reads: list[Path]) -> None:
        self._path, self._reads = path, reads

    def read_bytes(self) -> bytes:
        self._reads.append(self._path)
        return self._path.read_bytes()


def test_an_epoch_continues_with_any_number_of_threads_and_reads_two_batches_at_most(tmp_path: Path) -> None:
    paths, reads = photographs(tmp_path, count=16, size=(200, 170)), []
    images = [Counted(path, reads) for path in paths]
    transform = Transform((0.5,) * 3, (0.5,) * 3, True, 80)
    strong = Augmentation(rand_augment="m5", erasing=0.5, mixup=0.2)

    def batches(threads: int) -> Batches:
        source = FileImages(images, torch.arange(16) % 2, 3, transform, Workers(threads))
        return source.batches(4, shuffle_seed=3, augment="standard", augmentation=strong, classes=2)

    whole = batches(3)
    whole.set_epoch(2)
    first = next(running := iter(whole))
    assert len(reads) <= 8  # the batch in use and the one that comes
    rest = [first, *running][2:]
    reads.clear()
    later = batches(1)
    later.seek(2, 2)
    continued = list(later)
    assert len(reads) == 8  # skipped batches are not read
    for (inputs, targets), (again, targets_again) in zip(rest, continued, strict=True):
        assert torch.equal(inputs, again)
        assert torch.equal(targets, targets_again)
