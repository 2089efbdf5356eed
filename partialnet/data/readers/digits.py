"""The 8x8 digits inside scikit-learn: real images that are always available."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from partialnet.data.readers.base import Pixels, RawDataset, Request
from partialnet.data.sampling import stratified_split

_TEST_IMAGES = 360  # a fifth
_LEVELS = 16  # grey levels above black


def read_digits(_: Request) -> RawDataset:
    """Read the digits; our division in 1437 training and 360 test images is stratified and fixed."""
    bunch = load_digits()
    levels = torch.from_numpy(bunch.images)[:, None]
    images = (levels * (255 / _LEVELS)).round().to(torch.uint8)
    targets = torch.from_numpy(bunch.target).to(torch.int64)
    train, test = stratified_split(targets, _TEST_IMAGES, seed=0)
    return RawDataset(
        class_names=tuple(str(digit) for digit in range(10)),
        train=Pixels(images[train], targets[train]),
        validation=None,
        test=lambda: Pixels(images[test], targets[test]),
    )
