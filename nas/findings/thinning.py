"""Selection of the points that a figure needs of many: those near the front, and of a crowd one for each place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nas.findings.pareto import front_ranks

_FINEST = 256


def thinned(
    values: NDArray[np.float64], metrics: Sequence[str], kept: NDArray[np.bool_], most: int
) -> NDArray[np.bool_]:
    """Return which points to show: all of ``kept``, and at most ``most`` of the others.

    Half of the others are those of the lowest Pareto ranks. The rest stand for the crowd: one for each cell of the
    finest grid that has few enough of them.

    Args:
        values: Points, with one column for each metric.
        metrics: Metrics of the columns.
        kept: Points that are shown in any case.
        most: Largest number of further points.
    """
    others = np.flatnonzero(~kept)
    if len(others) <= most:
        return np.ones(len(kept), dtype=bool)
    ranks = np.asarray(front_ranks(values[others], metrics))
    order = others[np.argsort(ranks, kind="stable")]
    shown = kept.copy()
    near, crowd = order[: most // 2], order[most // 2 :]
    shown[near] = True
    shown[_spread(values, crowd, most - len(near))] = True
    return shown


def _spread(values: NDArray[np.float64], places: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most ``most`` of ``places``, the first one of each cell of a grid."""
    points = values[places]
    width = np.ptp(points, axis=0)
    scaled = (points - points.min(axis=0)) / np.where(width > 0, width, 1.0)
    low, high = 1, _FINEST
    while low < high:  # more cells hold more points, apart from a few at their edges
        middle = (low + high + 1) // 2
        if len(np.unique(_cells(scaled, middle))) > most:
            high = middle - 1
        else:
            low = middle
    firsts = np.unique(_cells(scaled, low), return_index=True)[1]
    return places[np.sort(firsts)[:most]]


def _cells(scaled: NDArray[np.float64], number: int) -> NDArray[np.int64]:
    """Return the cell of each point of a unit cube with ``number`` cells to a side."""
    inside = np.minimum((scaled * number).astype(np.int64), number - 1)
    cells: NDArray[np.int64] = inside @ (number ** np.arange(scaled.shape[1], dtype=np.int64))
    return cells
