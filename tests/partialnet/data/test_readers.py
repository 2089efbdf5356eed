from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from partialnet.data import DATASETS, DataSplits, load
from partialnet.data.images import SUFFIXES
from partialnet.data.pieces import Piece, Reading
from partialnet.data.readers import digits
from partialnet.data.readers.base import Request
from partialnet.data.readers.digits import read_digits
from partialnet.errors import DataError, DataMissing

from . import made


def all_pixels(splits: DataSplits, part: str = "train") -> torch.Tensor:
    """Return the bytes of a part, in its order."""
    source = getattr(splits, part)
    whole = torch.arange(len(source))
    return torch.cat([images for _, images in source.pixels([Piece(whole)], Reading())])


def rows(images: torch.Tensor | np.ndarray) -> set[bytes]:
    return {np.asarray(image).tobytes() for image in images}


class TestDigits:
    def test_they_are_those_of_scikit_learn(self) -> None:
        """We read its file without importing it."""
        from sklearn.datasets import load_digits  # its import takes seconds

        theirs = load_digits()
        wanted = {(image.tobytes(), int(target)) for image, target in zip(theirs.images, theirs.target, strict=True)}
        raw = read_digits(Request("digits", (), 1, None))
        assert raw.test is not None
        found = {
            ((image[0].double() * 16 / 255).round().numpy().tobytes(), int(target))
            for part in (raw.train, raw.test())
            for image, target in zip(part.images, part.targets, strict=True)
        }
        assert found == wanted

    @pytest.mark.parametrize("package", [None, "json"])
    def test_a_scikit_learn_that_is_missing_or_incomplete(
        self, monkeypatch: pytest.MonkeyPatch, package: str | None
    ) -> None:
        there = None if package is None else digits.find_spec(package)
        monkeypatch.setattr(digits, "find_spec", lambda _name: there)
        with pytest.raises(DataMissing, match=r"there is no datasets/data/digits\.csv\.gz in the package scikit-learn"):
            load("digits")

    def test_division_is_stratified_and_fixed(self) -> None:
        splits = load("digits", seed=5)
        assert (len(splits.train), len(splits.validation), len(splits.test)) == (1293, 144, 360)
        parts = [rows(all_pixels(splits, part)) for part in ("train", "validation", "test")]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 1797  # no image is in two parts
        assert torch.bincount(splits.test.targets).tolist() == pytest.approx([36] * 10, abs=2)
        assert torch.bincount(splits.validation.targets).tolist() == pytest.approx([14.4] * 10, abs=1)
        assert rows(all_pixels(load("digits", seed=6), "test")) == parts[2]

    def test_the_seed_chooses_the_validation_split(self) -> None:
        one, again, other = (rows(all_pixels(load("digits", seed=seed), "validation")) for seed in (1, 1, 2))
        assert one == again != other

    def test_normalisation_is_that_of_the_training_images(self) -> None:
        splits = load("digits")
        images = torch.cat([all_pixels(splits), all_pixels(splits, "validation")]).double() / 255
        assert DATASETS["digits"].mean == pytest.approx([float(images.mean())], abs=5e-5)
        assert DATASETS["digits"].std == pytest.approx([float(images.std(correction=0))], abs=5e-5)

    def test_all_sixteen_grey_levels_and_black(self) -> None:
        levels = all_pixels(load("digits")).unique()
        assert levels.tolist() == [round(255 * level / 16) for level in range(17)]

    def test_another_size(self) -> None:
        splits = load("digits", image_size=16)
        assert splits.info.input_shape == (1, 16, 16)
        assert next(iter(splits.train.batches(2)))[0].shape == (2, 1, 16, 16)

    def test_train_limit_counts_what_is_held_out_too(self) -> None:
        splits = load("digits", train_limit=200)
        assert (len(splits.train), len(splits.validation)) == (180, 20)
        assert torch.bincount(splits.train.targets).tolist() == pytest.approx([18] * 10, abs=1)
        assert len(load("digits", train_limit=10**6).train) == 1293


class TestCifar10:
    @pytest.mark.parametrize("protocol", [None, 2, 4, 5])
    @pytest.mark.parametrize("where", [".", "cifar10"])
    def test_pickles(self, tmp_path: Path, protocol: int | None, where: str) -> None:
        images = made.cifar10_pickles(tmp_path / where, protocol=protocol)
        splits = load("cifar10", [tmp_path / "nowhere", tmp_path])
        assert splits.info.class_names == made.CIFAR10_CLASSES
        assert (len(splits.train), len(splits.validation), len(splits.test)) == (90, 10, 20)
        assert rows(all_pixels(splits)) | rows(all_pixels(splits, "validation")) == rows(images)
        index = [row.tobytes() for row in images].index(all_pixels(splits)[0].numpy().tobytes())
        assert int(splits.train.targets[0]) == index % 20 % 10

    @pytest.mark.parametrize("where", [".", "cifar10", "some-archive", "cifar10/some-archive"])
    def test_class_folders(self, tmp_path: Path, where: str) -> None:
        made.class_folders(tmp_path / where, ("train", "test"), made.CIFAR10_CLASSES)
        splits = load("cifar10", [tmp_path], validation_fraction=0.25)
        assert splits.info.class_names == made.CIFAR10_CLASSES
        assert (len(splits.train), len(splits.validation), len(splits.test)) == (30, 10, 40)
        greys = all_pixels(splits)[:, 0, 0, 0].int()
        assert torch.equal((greys - 10) // 20, splits.train.targets.int())

    def test_other_class_folders_are_not_taken(self, tmp_path: Path) -> None:
        made.class_folders(tmp_path / "imagenette", ("train",), [f"n{i}" for i in range(10)])
        with pytest.raises(DataError, match="cifar10 was not found"):
            load("cifar10", [tmp_path])

    def test_images_of_another_size_are_named(self, tmp_path: Path) -> None:
        made.class_folders(tmp_path, ("train",), made.CIFAR10_CLASSES, size=(40, 32))
        with pytest.raises(DataError, match="train: the images are 40x32 pixels, but those of cifar10 are 32x32"):
            load("cifar10", [tmp_path])
        image = tmp_path / "train" / "dog" / "0002.png"
        Image.new("RGB", (32, 32)).save(image)
        with pytest.raises(DataError, match=r"dog.0002\.png: is 32x32 pixels, but .*0000\.png is 40x32"):
            load("cifar10", [tmp_path])

    def test_missing_test_images_matter_when_they_are_asked_for(self, tmp_path: Path) -> None:
        made.class_folders(tmp_path, ("train",), made.CIFAR10_CLASSES)
        splits = load("cifar10", [tmp_path])
        with pytest.raises(DataError, match=r"cifar10 has no test images: there is no folder .*test"):
            _ = splits.test

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError) as caught:
            load("cifar10", [tmp_path, tmp_path / "gone"])
        message = str(caught.value)
        assert f"{tmp_path}, {tmp_path / 'gone'} (no such folder)" in message
        assert "cifar-10-batches-py/data_batch_1" in message
        assert "--data-root or NAS_DATA_ROOTS" in message

    def test_no_roots(self) -> None:
        with pytest.raises(DataError, match="there is no data root to look in"):
            load("cifar10")

    def test_a_packed_archive_is_pointed_out(self, tmp_path: Path) -> None:
        (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
        with pytest.raises(DataError, match="is packed; unpack it there"):
            load("cifar10", [tmp_path])

    def test_a_missing_batch_is_named(self, tmp_path: Path) -> None:
        made.cifar10_pickles(tmp_path)
        (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
        with pytest.raises(DataError, match=r"cifar-10-batches-py: data_batch_3 missing"):
            load("cifar10", [tmp_path])

    @pytest.mark.parametrize("keep", [0, 1, 100, 5000])
    def test_a_cut_batch_is_named(self, tmp_path: Path, keep: int) -> None:
        made.cifar10_pickles(tmp_path)
        path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(DataError, match="data_batch_2: damaged, or no batch of CIFAR"):
            load("cifar10", [tmp_path])

    @pytest.mark.parametrize(
        ("batch", "told"),
        [
            ({b"data": made.pixels(4, 3072)}, "'labels' must be a list of 4 numbers"),
            ({b"data": made.pixels(4, 3072), b"labels": [0, 1, 2]}, "'labels' must be a list of 4 numbers"),
            ({b"data": made.pixels(4, 3072), b"labels": [0, 1, 2, 10]}, r"numbers in 0\.\.9"),
            ({b"data": made.pixels(4, 3000), b"labels": [0, 1, 2, 3]}, "must be an array of N x 3072 bytes"),
            ({b"labels": []}, "'data' is NoneType"),
            ([1, 2], "holds a list, but a batch of CIFAR is a dictionary"),
            ({b"data": made.pixels(4, 3072).astype(np.float32), b"labels": [0] * 4}, "images are bytes"),
        ],
    )
    def test_a_wrong_batch_is_named(self, tmp_path: Path, batch: object, told: str) -> None:
        made.cifar10_pickles(tmp_path)
        (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=2))
        with pytest.raises(DataError, match=rf"data_batch_1: .*{told}"):
            load("cifar10", [tmp_path])


class TestCifar100:
    @pytest.mark.parametrize("where", [".", "cifar100"])
    def test_pickles(self, tmp_path: Path, where: str) -> None:
        made.cifar100_pickles(tmp_path / where)
        splits = load("cifar100", [tmp_path])
        assert splits.info.class_names[99] == "class99"
        assert (len(splits.train), len(splits.validation), len(splits.test)) == (180, 20, 200)

    def test_class_folders_under_its_name(self, tmp_path: Path) -> None:
        names = [f"c{label:02d}" for label in range(100)]
        made.class_folders(tmp_path / "cifar100", ("train", "test"), names, per_class=2)
        splits = load("cifar100", [tmp_path])
        assert splits.info.class_names == tuple(names)
        made.class_folders(tmp_path / "other" / "birds", ("train",), names, per_class=1)
        with pytest.raises(DataError, match="not found"):
            load("cifar100", [tmp_path / "other"])


class TestFashionMnist:
    @pytest.mark.parametrize("folder", ["fashion-mnist", "fashion_mnist", "FashionMNIST/raw"])
    @pytest.mark.parametrize("suffix", [".gz", ""])
    def test_four_files(self, tmp_path: Path, folder: str, suffix: str) -> None:
        images = made.fashion_mnist(tmp_path / folder, suffix=suffix)
        for root in (tmp_path, tmp_path / folder):
            splits = load("fashion_mnist", [root])
            assert (len(splits.train), len(splits.validation), len(splits.test)) == (90, 10, 100)
            assert splits.info.class_names[9] == "Ankle boot"
            assert rows(all_pixels(splits)) < rows(images)

    def test_digits_of_the_same_names_are_not_taken(self, tmp_path: Path) -> None:
        made.fashion_mnist(tmp_path / "MNIST" / "raw")
        with pytest.raises(DataError, match="fashion_mnist was not found"):
            load("fashion_mnist", [tmp_path, tmp_path / "MNIST" / "raw"])

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        made.fashion_mnist(tmp_path / "fashion-mnist")
        (tmp_path / "fashion-mnist" / "train-labels-idx1-ubyte.gz").unlink()
        with pytest.raises(DataError, match=r"fashion-mnist: train-labels-idx1-ubyte\.gz missing"):
            load("fashion_mnist", [tmp_path])

    @pytest.mark.parametrize("suffix", [".gz", ""])
    @pytest.mark.parametrize("keep", [0, 3, 20, 3000])
    def test_a_cut_file_is_named(self, tmp_path: Path, suffix: str, keep: int) -> None:
        made.fashion_mnist(tmp_path / "fashion-mnist", suffix=suffix)
        path = tmp_path / "fashion-mnist" / f"train-images-idx3-ubyte{suffix}"
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(DataError, match=r"train-images-idx3-ubyte.*damaged, or no IDX file"):
            load("fashion_mnist", [tmp_path])

    def test_labels_for_other_images_are_refused(self, tmp_path: Path) -> None:
        made.fashion_mnist(tmp_path / "fashion-mnist")
        made.write_idx(tmp_path / "fashion-mnist" / "train-labels-idx1-ubyte.gz", np.zeros(99, dtype=np.uint8))
        with pytest.raises(DataError, match="99 labels for the 100 images"):
            load("fashion_mnist", [tmp_path])


class TestImageFolder:
    @pytest.mark.parametrize("size", [24, 72])  # decoded at once, and when needed
    def test_its_own_validation_folder(self, tmp_path: Path, size: int) -> None:
        made.class_folders(tmp_path / "pets", ("train", "val"), ("cat", "dog"), per_class=5, size=(90, 80))
        splits = load("image_folder", [tmp_path], folder="pets", image_size=size, train_limit=6)
        assert splits.info.class_names == ("cat", "dog")
        assert splits.info.input_shape == (3, size, size)
        assert (len(splits.train), len(splits.validation)) == (6, 10)
        assert torch.equal(all_pixels(splits)[:, 0, 0, 0].int() // 30, splits.train.targets.int())
        with pytest.raises(DataError, match="image_folder has no test images"):
            _ = splits.test

    @pytest.mark.parametrize("size", [24, 72])
    def test_a_validation_split_of_the_training_images(self, tmp_path: Path, size: int) -> None:
        made.class_folders(tmp_path / "pets", ("train", "test"), ("cat", "dog"), per_class=10, suffix=".jpeg")
        splits = load("image_folder", [tmp_path], folder="pets", image_size=size)
        assert (len(splits.train), len(splits.validation), len(splits.test)) == (18, 2, 20)
        assert sorted(splits.validation.targets.tolist()) == [0, 1]

    def test_what_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"image_folder was not found in .*pets/train/<class>/<image>"):
            load("image_folder", [tmp_path], folder="pets", image_size=32)
        (tmp_path / "pets").mkdir()
        with pytest.raises(DataError, match="pets: there is no folder 'train' in it"):
            load("image_folder", [tmp_path], folder="pets", image_size=32)
        (tmp_path / "pets" / "train").mkdir()
        with pytest.raises(DataError, match="train: there are no class folders in it"):
            load("image_folder", [tmp_path], folder="pets", image_size=32)
        made.class_folders(tmp_path / "pets", ("train",), ("cat", "dog"))
        (tmp_path / "pets" / "train" / "bird").mkdir()
        with pytest.raises(DataError, match=r"bird: holds no images; looked for files that end in \.avif, \.bmp"):
            load("image_folder", [tmp_path], folder="pets", image_size=32)

    def test_an_unknown_class_is_named(self, tmp_path: Path) -> None:
        made.class_folders(tmp_path / "pets", ("train", "val"), ("cat", "dog"))
        (tmp_path / "pets" / "val" / "cow").mkdir()
        with pytest.raises(DataError, match="cow: 'cow' is not a class of the training images"):
            load("image_folder", [tmp_path], folder="pets", image_size=72)

    def test_one_class_is_not_enough(self, tmp_path: Path) -> None:
        made.class_folders(tmp_path / "pets", ("train",), ("cat",))
        with pytest.raises(DataError, match="at least 2 classes"):
            load("image_folder", [tmp_path], folder="pets", image_size=32)

    def test_other_files_are_left_alone(self, tmp_path: Path) -> None:
        made.class_folders(tmp_path / "pets", ("train",), ("cat", "dog"))
        (tmp_path / "pets" / "train" / "cat" / "notes.txt").write_text("x")
        (tmp_path / "pets" / "train" / "cat" / "._0000.png").write_text("x")
        (tmp_path / "pets" / "train" / ".cache").mkdir()
        splits = load("image_folder", [tmp_path], folder="pets", image_size=32, validation_fraction=0.25)
        assert len(splits.train) + len(splits.validation) == 8


class TestNamesThatAreNoText:
    """Names of files are bytes: those that are not UTF-8 are refused early, in words that can be printed."""

    LATIN1 = os.fsdecode("bébé".encode("latin1"))

    @pytest.mark.parametrize("part", ["train", "val"])
    def test_a_class_is_refused_and_its_folder_named(self, tmp_path: Path, part: str) -> None:
        made.class_folders(tmp_path / "pets", ("train", "val"), ("cat", "dog"))
        made.class_folders(tmp_path / "pets", (part,), (self.LATIN1,))
        with pytest.raises(DataError) as caught:
            load("image_folder", [tmp_path], folder="pets", image_size=72)
        message = str(caught.value).encode().decode()  # can be written
        assert f"pets/{part}/b\\xe9b\\xe9: the folder's name is not UTF-8" in message

    def test_names_in_utf_8_are_as_good_as_any(self, tmp_path: Path) -> None:
        made.class_folders(tmp_path / "pets", ("train",), ("bébé", "猫"))
        names = load("image_folder", [tmp_path], folder="pets", image_size=72).info.class_names
        assert names == ("bébé", "猫")

    @pytest.mark.parametrize("size", [24, 72])
    def test_an_image_may_be_called_anything(self, tmp_path: Path, size: int) -> None:
        made.class_folders(tmp_path / "pets", ("train",), ("cat", "dog"))
        path = tmp_path / "pets" / "train" / "cat" / "0000.png"
        odd = path.rename(path.with_name(f"{self.LATIN1}.png"))
        load("image_folder", [tmp_path], folder="pets", image_size=size).check()
        odd.write_bytes(b"")
        with pytest.raises(DataError) as caught:
            load("image_folder", [tmp_path], folder="pets", image_size=size).check()
        assert "b\\xe9b\\xe9.png: cannot be read as an image" in str(caught.value).encode().decode()
        odd.rename(odd.with_suffix(".txt"))
        (left_out,) = load("image_folder", [tmp_path], folder="pets", image_size=size).left_out
        assert left_out.encode().endswith(b"such as cat/b\\xe9b\\xe9.txt")


class TestNothingIsLeftOutInSilence:
    def open(self, root: Path) -> DataSplits:
        return load("image_folder", [root], folder="pets", image_size=24, validation_fraction=0.25)

    @pytest.fixture
    def pets(self, tmp_path: Path) -> Path:
        made.class_folders(tmp_path / "pets", ("train", "test"), ("cat", "dog"))
        return tmp_path / "pets"

    @pytest.mark.parametrize("suffix", sorted(SUFFIXES | {".GIF", ".Jpg"}))
    def test_every_format_that_is_listed_is_read(self, tmp_path: Path, pets: Path, suffix: str) -> None:
        path = pets / "train" / "dog" / f"more{suffix}"
        image = Image.new("RGB", (16, 16), (200, 10, 10))
        image.convert("1" if suffix == ".pbm" else "RGB").save(path)
        splits = self.open(tmp_path)
        assert len(splits.train) + len(splits.validation) == 9
        assert splits.left_out == ()

    def test_images_in_folders_within_a_class_are_read(self, tmp_path: Path, pets: Path) -> None:
        (pets / "train" / "dog" / "first" / "second").mkdir(parents=True)
        (pets / "train" / "dog" / "0000.png").rename(pets / "train" / "dog" / "first" / "second" / "0000.png")
        (pets / "elsewhere").mkdir()
        (pets / "train" / "cat" / "0000.png").rename(pets / "elsewhere" / "x.png")
        (pets / "train" / "cat" / "link").symlink_to(pets / "elsewhere")
        splits = self.open(tmp_path)
        assert len(splits.train) + len(splits.validation) == 8
        assert torch.bincount(torch.cat([splits.train.targets, splits.validation.targets])).tolist() == [4, 4]

    def test_what_is_left_out_is_counted_and_told(
        self, tmp_path: Path, pets: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        train = pets / "train"
        for name in ("b.txt", "a.txt", "raw.heic"):
            (train / "cat" / name).write_text("x")
        (train / "dog" / "0009.png").symlink_to("gone.png")
        (train / "bird").symlink_to("gone")
        (train / "dog" / "back").symlink_to(train / "dog")
        (train / "cat" / ".DS_Store").write_text("x")  # hidden files are nobody's images
        Image.new("L", (8, 8)).save(train / "stray.png")
        os.mkfifo(train / "dog" / "pipe.png")
        expected = {
            f"{train}: files that end in .txt: 2 left out, such as cat/a.txt",
            f"{train}: files that end in .heic: 1 left out, such as cat/raw.heic",
            f"{train}: links that lead nowhere: 2 left out, such as bird",
            f"{train}: links that lead back to a folder above: 1 left out, such as dog/back",
            f"{train}: images outside of the class folders: 1 left out, such as stray.png",
            f"{train}: pipes, sockets or devices with the name of an image: 1 left out, such as dog/pipe.png",
        }
        splits = self.open(tmp_path)
        assert set(splits.left_out) == expected == set(caplog.messages)
        assert len(splits.train) + len(splits.validation) == 8

    def test_test_images_are_told_of_when_they_are_opened(
        self, tmp_path: Path, pets: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (pets / "test" / "cat" / "notes.txt").write_text("x")
        splits = self.open(tmp_path)
        assert caplog.messages == []
        assert len(splits.test) == 8
        assert caplog.messages == [f"{pets / 'test'}: files that end in .txt: 1 left out, such as cat/notes.txt"]


class TestDamagedIsNotAbsent:
    """What is there and cannot be read is named; only what is nowhere counts as missing."""

    @pytest.mark.parametrize("size", [24, 72])  # decoded at once, and when needed
    def test_one_damaged_test_image_is_named_before_any_training(self, tmp_path: Path, size: int) -> None:
        made.class_folders(tmp_path / "pets", ("train", "test"), ("cat", "dog"), size=(80, 80))
        damaged = tmp_path / "pets" / "test" / "dog" / "0001.png"
        damaged.write_bytes(damaged.read_bytes()[:60])
        splits = load("image_folder", [tmp_path], folder="pets", image_size=size, validation_fraction=0.25)
        with pytest.raises(DataError, match=r"test/dog/0001\.png: cannot be read as an image") as caught:
            splits.check()
        assert not isinstance(caught.value, DataMissing)

    def test_all_damaged_images_are_counted(self, tmp_path: Path) -> None:
        made.class_folders(tmp_path / "pets", ("train",), ("cat", "dog"), per_class=10)
        for path in sorted((tmp_path / "pets" / "train" / "cat").iterdir())[:5]:
            path.write_bytes(b"")
        splits = load("image_folder", [tmp_path], folder="pets", image_size=72, validation_fraction=0.1)
        with pytest.raises(DataError, match=r"^\d of 18 images cannot be used: .*cat.0\d+\.png: cannot be read"):
            splits.check()

    def test_no_test_images_are_missing_ones(self, tmp_path: Path) -> None:
        made.class_folders(tmp_path / "pets", ("train",), ("cat", "dog"))
        splits = load("image_folder", [tmp_path], folder="pets", image_size=24, validation_fraction=0.25)
        splits.check()
        assert not splits.has_test
        with pytest.raises(DataMissing, match="has no test images"):
            _ = splits.test
        assert load("digits").has_test

    def test_a_data_set_that_is_nowhere_is_missing(self, tmp_path: Path) -> None:
        for name in TestAnswersOfTheFileSystem.NAMES:
            with pytest.raises(DataMissing, match="was not found"):
                load(name, [tmp_path], folder="pets", image_size=32)

    @pytest.mark.parametrize("part", ["train", "val", "test"])
    @pytest.mark.parametrize("size", [24, 72])
    def test_a_file_or_a_dead_link_for_a_folder_is_named(self, tmp_path: Path, part: str, size: int) -> None:
        made.class_folders(tmp_path / "pets", {"train", "val", "test"} - {part}, ("cat", "dog"))
        path = tmp_path / "pets" / part
        for make, told in ((path.touch, "a file"), (lambda: path.symlink_to("gone"), "a link that leads nowhere")):
            make()
            with pytest.raises(DataError, match=rf"pets.{part}: is {told}, but must be a folder") as caught:
                load("image_folder", [tmp_path], folder="pets", image_size=size).check()
            assert not isinstance(caught.value, DataMissing)
            path.unlink()

    def test_three_of_four_files(self, tmp_path: Path) -> None:
        made.fashion_mnist(tmp_path / "fashion-mnist")
        (tmp_path / "fashion-mnist" / "train-images-idx3-ubyte.gz").unlink()
        with pytest.raises(DataError, match=r"fashion-mnist: train-images-idx3-ubyte\.gz missing"):
            load("fashion_mnist", [tmp_path])


class TestAnswersOfTheFileSystem:
    """No answer of the file system ends in anything but an error that names the place."""

    NAMES = ("cifar10", "cifar100", "fashion_mnist", "image_folder", "image_shards", "image_csv")

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("where", ["cifar-10-batches-py", "cifar-100-python/train", "cifar100", "pets/train"])
    def test_a_file_where_a_folder_is_expected(self, tmp_path: Path, name: str, where: str) -> None:
        (tmp_path / where).parent.mkdir(exist_ok=True)
        (tmp_path / where).touch()
        (tmp_path / "fashion-mnist").touch()
        with pytest.raises(DataError, match=str(tmp_path)):
            load(name, [tmp_path], folder="pets", image_size=32)

    @pytest.mark.parametrize("name", NAMES)
    def test_a_root_that_is_a_file_or_a_circle_of_links(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "circle").symlink_to("circle")
        with pytest.raises(DataError, match=r"file \(no such folder\), .*circle \(cannot be listed: Too many levels"):
            load(name, [tmp_path / "file", tmp_path / "circle"], folder="pets", image_size=32)

    def test_a_name_that_is_too_long(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="was not found"):
            load("image_folder", [tmp_path], folder="x" * 300, image_size=32)

    @pytest.mark.parametrize("hidden", ["pets/train", "pets/train/cat", "pets/train/cat/0001.png", "pets/test", "pets"])
    def test_no_permission(self, tmp_path: Path, hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
        made.class_folders(tmp_path / "pets", ("train", "test"), ("cat", "dog"))
        monkeypatch.setenv("PARTIALNET_CACHE", str(tmp_path))
        for folder in (tmp_path, *tmp_path.parents):  # pytest's own folders are closed to others
            folder.chmod(0o755)
            if folder.name.startswith("pytest-of-"):
                break
        (tmp_path / hidden).chmod(0)
        for size in (24, 72):
            with without_privileges(), pytest.raises(DataError, match=rf"{hidden}.*Permission denied"):
                load("image_folder", [tmp_path], folder="pets", image_size=size).check()

    @pytest.mark.parametrize("name", NAMES)
    def test_no_permission_for_a_root(self, tmp_path: Path, name: str) -> None:
        closed = tmp_path / "closed"
        closed.mkdir(0)
        with without_privileges(), pytest.raises(DataError, match=f"{closed}.*Permission denied"):
            load(name, [closed], folder="pets", image_size=24)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Give up the rights of root, who may do anything, inside the block."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(DataError, match="unknown data set 'mnist'; known: digits, cifar10"):
        load("mnist")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tolerance"), [("cifar10", 3e-3), ("fashion_mnist", 1e-4)])
def test_normalisation_of_real_data(name: str, tolerance: float) -> None:
    roots = [Path(root) for root in os.environ.get("NAS_DATA_ROOTS", "").split(os.pathsep) if root]
    try:
        splits = load(name, roots)
    except DataError as error:
        pytest.skip(f"needs the real {name}: {error}")
    images = torch.cat([all_pixels(splits), all_pixels(splits, "validation")])
    facts = DATASETS[name]
    for channel in range(facts.channels):
        values = images[:, channel].double() / 255
        assert float(values.mean()) == pytest.approx(facts.mean[channel], abs=tolerance)
        assert float(values.std(correction=0)) == pytest.approx(facts.std[channel], abs=tolerance)
