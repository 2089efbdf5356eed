"""The 8x8 digits inside scikit-learn: real images that are always available."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from partialnet.data.readers.base import Pixels, RawDataset, Request
from partialnet.data.sampling import stratified_split
from partialnet.errors import DataMissing

_FILE = "datasets/data/digits.csv.gz"  # a row: 64 grey levels, class
_TEST_IMAGES = 360  # a fifth
_LEVELS = 16  # grey levels above black


def read_digits(_: Request) -> RawDataset:
    """Read the digits; our division in 1437 training and 360 test images is stratified and fixed.

    Raises:
        DataMissing: If scikit-learn is not installed, or without its data.
    """
    table = torch.from_numpy(np.loadtxt(_digits_file(), delimiter=",", dtype=np.uint8))  # floats take 6 times as long
    levels = table[:, :-1].reshape(-1, 1, 8, 8)
    images = (levels * (255 / _LEVELS)).round().to(torch.uint8)
    targets = table[:, -1].to(torch.int64)
    train, test = stratified_split(targets, _TEST_IMAGES, seed=0)
    return RawDataset(
        class_names=tuple(str(digit) for digit in range(10)),
        train=Pixels(images[train], targets[train]),
        validation=None,
        test=lambda: Pixels(images[test], targets[test]),
    )


def _digits_file() -> Path:
    # The import of scikit-learn would take longer than the first epochs of a small search, in each process anew.
    package = find_spec("sklearn")
    for folder in (package.submodule_search_locations or ()) if package else ():
        if (path := Path(folder, _FILE)).is_file():
            return path
    raise DataMissing(f"digits was not found: there is no {_FILE} in the package scikit-learn; install it again")
