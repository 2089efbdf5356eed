"""The known data sets and their facts. Loads no torch: definitions are checked against this table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from partialnet.data.augmentation import Interpolation


@dataclass(frozen=True)
class DatasetFacts:
    """Facts of a data set before it is opened.

    Args:
        title: Description in one line for people.
        channels: Number of colour channels.
        size: Native height and width in pixels; None if images differ in size.
        classes: Number of classes; None if the folder decides.
        mean: Mean of the training images in [0, 1] for each channel: the one normalisation of this data set.
        std: Standard deviation of the training images in [0, 1] for each channel.
        flip: Whether a mirrored image still has its class.
        reader: Place of the function that reads it, as ``module:name``; see :mod:`partialnet.data.readers`.
        recognizer: Place of the function that tells whether a folder holds such data; "" for known data sets.
    """

    title: str
    channels: int
    size: int | None
    classes: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    reader: str
    recognizer: str = ""

    @property
    def in_folder(self) -> bool:
        """Whether a definition names the folder of the images as well: they are of its writer's own."""
        return bool(self.recognizer)


LARGEST_IN_MEMORY = 64
"""Largest size in pixels at which image folders are held in memory and images are shifted; larger ones are cut out."""

_READERS = "partialnet.data.readers"
# Channels, size, classes, mean and deviation (ImageNet's), mirrors of folders of images of your own.
_OWN = (3, None, None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), True)
DATASETS: Mapping[str, DatasetFacts] = MappingProxyType(
    {
        "digits": DatasetFacts(
            "8x8 grey digits, inside scikit-learn",
            1, 8, 10, (0.3060,), (0.3763,), False, f"{_READERS}.digits:read_digits",
        ),
        "cifar10": DatasetFacts(
            "CIFAR-10, 32x32 colour",
            3, 32, 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), True, f"{_READERS}.cifar:read_cifar10",
        ),
        "cifar100": DatasetFacts(
            "CIFAR-100, 32x32 colour",
            3, 32, 100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), True, f"{_READERS}.cifar:read_cifar100",
        ),
        "fashion_mnist": DatasetFacts(
            "Fashion-MNIST, 28x28 grey",
            1, 28, 10, (0.2860,), (0.3530,), True, f"{_READERS}.fashion_mnist:read_fashion_mnist",
        ),
        "image_folder": DatasetFacts(
            "class folders, as ImageNet is laid out",
            *_OWN, f"{_READERS}.folders:read_image_folder", f"{_READERS}.folders:has_class_folders",
        ),
        "image_shards": DatasetFacts(
            "tar shards, as WebDataset lays them out",
            *_OWN, f"{_READERS}.shards:read_image_shards", f"{_READERS}.shards:has_shards",
        ),
        "image_csv": DatasetFacts(
            "CSV files of paths and labels",
            *_OWN, f"{_READERS}.listed:read_image_csv", f"{_READERS}.listed:has_list",
        ),
    }
)  # fmt: skip


def sight(name: str, size: int, crop: float, interpolation: Interpolation) -> tuple[float, Interpolation]:
    """Return the crop and the filter with which evaluations see images of the data set ``name`` at ``size`` pixels.

    Small images, and those of data sets in memory, are seen whole and scaled bilinearly.
    """
    files = DATASETS[name].size is None and size > LARGEST_IN_MEMORY
    return (crop, interpolation) if files else (1.0, "bilinear")
