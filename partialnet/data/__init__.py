"""Data sets by name, in memory or as folders of images.

Names are loaded on first use (PEP 562), so that ``partialnet.data.catalog`` can be imported without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from partialnet.lazy import lazy_names

_LOCATIONS = {
    "DATASETS": "partialnet.data.catalog",
    "Batches": "partialnet.data.batches",
    "DataSplits": "partialnet.data.datasets",
    "DatasetFacts": "partialnet.data.catalog",
    "DatasetInfo": "partialnet.data.datasets",
    "ImageSource": "partialnet.data.source",
    "Preprocessing": "partialnet.data.images",
    "Workers": "partialnet.data.workers",
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
    "Workers",
    "load",
    "preprocess_image",
]

if TYPE_CHECKING:
    from partialnet.data.batches import Batches
    from partialnet.data.catalog import DATASETS, DatasetFacts
    from partialnet.data.datasets import DatasetInfo, DataSplits, load
    from partialnet.data.images import Preprocessing, preprocess_image
    from partialnet.data.source import ImageSource
    from partialnet.data.workers import Workers

__getattr__, __dir__ = lazy_names(__name__, _LOCATIONS)
