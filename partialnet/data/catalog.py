"""The known data sets and their facts. Loads no torch: definitions are checked against this table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


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
    """

    title: str
    channels: int
    size: int | None
    classes: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool


DATASETS: Mapping[str, DatasetFacts] = MappingProxyType(
    {
        "digits": DatasetFacts("8x8 grey digits, inside scikit-learn", 1, 8, 10, (0.3060,), (0.3763,), False),
        "cifar10": DatasetFacts(
            "CIFAR-10, 32x32 colour", 3, 32, 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), True
        ),
        "cifar100": DatasetFacts(
            "CIFAR-100, 32x32 colour", 3, 32, 100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), True
        ),
        "fashion_mnist": DatasetFacts("Fashion-MNIST, 28x28 grey", 1, 28, 10, (0.2860,), (0.3530,), True),
        "image_folder": DatasetFacts(
            "class folders, as ImageNet is laid out", 3, None, None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), True
        ),
    }
)
