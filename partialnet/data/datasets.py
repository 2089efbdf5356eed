"""Data sets by name: one entry point for all readers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from pkgutil import resolve_name

import torch
from torch import Tensor

from partialnet.data.augmentation import Interpolation
from partialnet.data.catalog import DATASETS, DatasetFacts, sight
from partialnet.data.digest import digest_of_pixels
from partialnet.data.images import resize_pixels
from partialnet.data.pieces import Transform
from partialnet.data.readers.base import Files, Pixels, RawDataset, Request
from partialnet.data.sampling import stratified_split
from partialnet.data.source import FileImages, ImageSource, TensorImages
from partialnet.data.stored import Chosen
from partialnet.data.workers import Workers
from partialnet.errors import DataError, DataMissing, is_text

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetInfo:
    """Facts of an open data set.

    Args:
        name: Name in the catalogue.
        class_names: Names of the classes in the order of the targets.
        input_shape: Channels, height, width of the inputs.
        mean: Mean of the pixels in [0, 1] for each channel.
        std: Standard deviation of the pixels in [0, 1] for each channel.
        crop: Share of the shorter side that the central square of an image has.
        interpolation: Filter that scales it.
    """

    name: str
    class_names: tuple[str, ...]
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 1.0
    interpolation: Interpolation = "bilinear"


@dataclass(frozen=True)
class DataSplits:
    """Training, validation and test images of a data set.

    Args:
        info: Facts of the data set.
        train: Images for training.
        validation: Images for selection, never for training.
        open_test: Function that reads the test images.
        left_out: Lines for the kinds of unused files among the training and validation images.
    """

    info: DatasetInfo
    train: ImageSource
    validation: ImageSource
    open_test: Callable[[], ImageSource] = field(repr=False)
    left_out: tuple[str, ...] = ()

    @cached_property
    def test(self) -> ImageSource:
        """Test images, read at the first access: only the last evaluation of a network does that.

        Raises:
            DataMissing: If the data set has none.
            DataError: If they are damaged; names the file.
        """
        return self.open_test()

    @property
    def has_test(self) -> bool:
        """Whether there are test images; opens them.

        Raises:
            DataError: If there are some, but damaged ones; names the file.
        """
        try:
            return len(self.test) > 0
        except DataMissing:
            return False

    @property
    def skipped(self) -> tuple[str, ...]:
        """Reasons why images were skipped so far in this process, of all splits that are open."""
        opened = [self.train, self.validation, *([self.test] if "test" in self.__dict__ else [])]
        return tuple(reason for part in opened for reason in part.skipped)

    def check(self) -> None:
        """Read every image of every split once, so that damage shows before a training and not after it.

        Images in memory have been read when they were opened; a large folder takes as long as an epoch of loading.

        Raises:
            DataError: If images are damaged; says how many, and names the first three.
        """
        for part in [self.train, self.validation, *([self.test] if self.has_test else [])]:
            part.check()


def load(
    name: str,
    roots: Sequence[Path] = (),
    *,
    seed: int = 0,
    validation_fraction: float = 0.1,
    train_limit: int | None = None,
    image_size: int | None = None,
    folder: str | None = None,
    crop: float = 1.0,
    interpolation: Interpolation = "bilinear",
    skip_broken: bool = False,
    workers: Workers | None = None,
) -> DataSplits:
    """Open a data set.

    Args:
        name: Name in :data:`partialnet.data.catalog.DATASETS`.
        roots: Folders to search, in this order.
        seed: Seed that selects the validation split, and the training images under ``train_limit``.
        validation_fraction: Share of the training images, stratified; unused if the data set has its own validation
            images (``val``).
        train_limit: Largest number of training images, stratified; the validation split is part of these.
        image_size: Height and width of the inputs in pixels; None for those of the data set.
        folder: Name of the folder under a root, for data sets of your own.
        crop: Share of the shorter side that evaluations see of an image file above 64 pixels.
        interpolation: Filter that scales these files.
        skip_broken: Whether images that cannot be read are left out, with a warning, and counted.
        workers: Threads or processes that decode and augment image files; None for threads, as many as CPUs, at most 8.

    Raises:
        DataMissing: If the data set is missing; the message gives the searched folders, the wanted files and a remedy.
        DataError: If it is unknown or damaged; the message names the file and a remedy.
    """
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    if not 0 < validation_fraction < 1:
        raise DataError(f"validation_fraction is {validation_fraction}, but must be between 0 and 1")
    facts = DATASETS[name]
    size = image_size or facts.size
    if size is None:
        raise DataError(f"{name} needs an image size in pixels: its images differ in size")
    paths = tuple(Path(root).expanduser() for root in roots)
    with _named(name):
        read: Callable[[Request], RawDataset] = resolve_name(facts.reader)
        raw = read(Request(name, paths, facts.channels, image_size, folder, skip_broken))
    if len(raw.class_names) < 2:
        raise DataError(f"{name}: there must be at least 2 classes, but there is only {list(raw.class_names)}")
    for class_name in raw.class_names:
        if not is_text(class_name):
            raise DataError(f"{name}: the class name {class_name!r} is not valid text")
    seen = sight(name, size, crop, interpolation)
    reading = _Reading(skip_broken, workers)
    transform = Transform(facts.mean, facts.std, facts.flip, size, *seen)

    def open_test() -> ImageSource:
        with _named(name):
            found = raw.test()
        _tell(found.left_out)
        return _source(found, None, facts, transform, reading)

    left_out = raw.train.left_out + (raw.validation.left_out if raw.validation else ())
    _tell(left_out)
    train, validation = _divide(raw, seed, validation_fraction, train_limit)
    return DataSplits(
        info=DatasetInfo(name, raw.class_names, (facts.channels, size, size), facts.mean, facts.std, *seen),
        train=_source(raw.train, train, facts, transform, reading),
        validation=_source(raw.validation or raw.train, validation, facts, transform, reading),
        open_test=open_test,
        left_out=left_out,
    )


@dataclass(frozen=True)
class _Reading:
    """How image files are read: see :func:`load`."""

    skip_broken: bool
    workers: Workers | None


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Turn what the file system answers (no permission, a mount that is gone) into an error that names the file."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or name}: cannot be read ({error.strerror or error})") from error


def _tell(left_out: Iterable[str]) -> None:
    for sentence in left_out:
        _log.warning("%s", sentence)


def _divide(raw: RawDataset, seed: int, fraction: float, limit: int | None) -> tuple[Tensor, Tensor | None]:
    """Return the indices of training and validation images; None for all of the data set's own validation images."""
    targets = raw.train.targets
    used = torch.arange(len(targets))
    if limit is not None and limit < len(used):
        _, used = stratified_split(targets, limit, seed)
    if raw.validation is not None:
        return used, None
    held_out = max(1, round(len(used) * fraction))
    train, validation = stratified_split(targets[used], held_out, seed)
    if len(train) == 0:
        raise DataError(f"no image is left to train on: {len(used)} are used, {held_out} of them held out")
    return used[train], used[validation]


def _source(
    raw: Pixels | Files, indices: Tensor | None, facts: DatasetFacts, transform: Transform, reading: _Reading
) -> ImageSource:
    targets = raw.targets if indices is None else raw.targets[indices]
    if isinstance(raw, Files):
        images = raw.images if indices is None else Chosen(raw.images, indices)
        return FileImages(images, targets, facts.channels, transform, reading.workers, skip_broken=reading.skip_broken)
    pixels = raw.images if indices is None else raw.images[indices]
    # Scaling rounds differently on different processors, so the original pixels count.
    digest = partial(digest_of_pixels, pixels, targets)
    return TensorImages(resize_pixels(pixels, transform.size), targets, transform, digest)
