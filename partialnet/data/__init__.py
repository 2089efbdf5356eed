"""Data sets by name, in memory or as folders of images.

Names are loaded on first use (PEP 562), so that ``partialnet.data.catalog`` can be imported without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_LOCATIONS = {
    "DATASETS": "partialnet.data.catalog",
    "Batches": "partialnet.data.source",
    "DataSplits": "partialnet.data.datasets",
    "DatasetFacts": "partialnet.data.catalog",
    "DatasetInfo": "partialnet.data.datasets",
    "ImageSource": "partialnet.data.source",
    "Preprocessing": "partialnet.data.images",
    "load": "partialnet.data.datasets",
    "preprocess_image": "partialnet.data.images",
}

__all__ = [
    "DATASETS",
    "Batches",
    "DataSplits",
    "DatasetFacts",
    "DatasetInfo",
    "ImageSource",
    "Preprocessing",
    "load",
    "preprocess_image",
]

if TYPE_CHECKING:
    from partialnet.data.catalog import DATASETS, DatasetFacts
    from partialnet.data.datasets import DatasetInfo, DataSplits, load
    from partialnet.data.images import Preprocessing, preprocess_image
    from partialnet.data.source import Batches, ImageSource


def __getattr__(name: str) -> Any:
    try:
        location = _LOCATIONS[name]
    except KeyError:
        raise AttributeError(f"module 'partialnet.data' has no attribute {name!r}") from None
    return getattr(importlib.import_module(location), name)


def __dir__() -> list[str]:
    return __all__
