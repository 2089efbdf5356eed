"""The interval that a score on a number of images has by chance. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nas.metrics import METRICS, Evaluation, Measurement

_Z = 1.959963984540054
"""Quantile of the normal distribution for a two-sided interval of 95 %."""
Interval = tuple[float, float]


def share_interval(share: float, images: int) -> Interval:
    """Return Wilson's 95 % interval of a share of right answers.

    Args:
        share: Share of the images that were right, from 0 to 1.
        images: Number of images, at least 1.
    """
    square = _Z**2 / images
    middle = (share + square / 2) / (1 + square)
    half = _Z / (1 + square) * math.sqrt(share * (1 - share) / images + square / (4 * images))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def evaluation_interval(item: Evaluation, images: Mapping[str, int]) -> Interval | None:
    """Return the 95 % interval of an accuracy by the number of its images; None for another score, or if unknown.

    It is about the choice of the images. The spread over seeds is another one, and usually larger.

    Args:
        item: Score of one training.
        images: Numbers of images by data split.
    """
    count = images.get(item.data_split, 0)
    return share_interval(item.value, count) if METRICS[item.metric].percent and count > 0 else None


def measurement_interval(item: Measurement) -> Interval | None:
    """Return the recorded 95 % interval of a measured median; None if there is none."""
    ends = item.figures.get("interval")
    return (float(ends[0]), float(ends[1])) if isinstance(ends, (list, tuple)) and len(ends) == 2 else None
