"""Samples of products of parameters: ``make test`` runs a sample, ``make bench`` the whole product."""

from __future__ import annotations

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
