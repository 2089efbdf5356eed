"""Samples: ``make test`` runs a part of a product of parameters or of random examples, ``make bench`` the whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest


def sampled(*axes: Sequence[Any]) -> list[Any]:
    """Return all combinations for ``parametrize``; those beyond a sample are marked ``long``.

    The sample has as many combinations as the longest axis has values, and each value of each axis occurs in it.

    Args:
        axes: The values of each parameter.
    """
    longest = max(map(len, axes))
    sample = {tuple(place % len(axis) for axis in axes) for place in range(longest)}
    combinations = product(*(range(len(axis)) for axis in axes))
    return [
        pytest.param(
            *(axis[place] for axis, place in zip(axes, places, strict=True)),
            marks=() if places in sample else pytest.mark.long,
        )
        for places in combinations
    ]


def examples(number: int) -> int:
    """Return how many random examples of a property are tried: a third of ``number``, or four times as many.

    The environment variable ``HYPOTHESIS_PROFILE`` decides: ``thorough`` means many, as in ``make bench``.
    """
    return 4 * number if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else number // 3
