"""Correction of layers' times by whole networks. Numbers only; loads no torch.

A layer that is timed alone is slower or faster than within a network: caches, layouts and fusions differ. Whole
networks say by how much. The time of a network is a constant, plus the times of its layers; each shape of layer has a
factor, and each row a deviation of its own. Both are held back (ridge regression), to the degree at which the networks
predict each other best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from partialnet.search.latency_parts import RowKey

_FACTORS = (0.0, 0.1, 0.3, 1.0)  # expected deviations of the factors of shapes
_ROWS = (0.0, 0.03, 0.1, 0.3)  # and of single rows
NOISE = 0.01
"""Standard error of the time of a network that is timed precisely, as a share of it."""

_Floats = NDArray[np.float64]


class Corrected(NamedTuple):
    """Times of rows within a network."""

    rows: Mapping[RowKey, float]
    """Milliseconds by row."""
    constant: float
    """Milliseconds that no row explains."""
    left: tuple[float, ...]
    """Time of each measured network that its prediction lacks, in milliseconds."""
    errors: tuple[float, ...]
    """Measured time minus the time that the other networks predict, in milliseconds, for each measured network."""


def correct(
    alone: Mapping[RowKey, float], networks: Sequence[tuple[Sequence[RowKey], float]], noise: float = NOISE
) -> Corrected:
    """Return the times of layers within networks.

    Args:
        alone: Milliseconds of each row, timed alone.
        networks: Layer calls and milliseconds of whole networks, at least 3.
        noise: Standard error of these milliseconds, as a share of them.
    """
    rows = list(alone)
    place = {key: index for index, key in enumerate(rows)}
    times = np.array([alone[key] for key in rows])
    counts = np.zeros((len(networks), len(rows)))
    for line, (calls, _) in zip(counts, networks, strict=True):
        for key in calls:
            line[place[key]] += 1
    measured = np.array([ms for _, ms in networks])
    families = sorted({key.family for key in rows})
    groups = np.array([[key.family == family for key in rows] for family in families], dtype=float)
    # columns: the constant, a factor for each family, a deviation for each row; all relative to the times alone
    features = np.hstack([np.ones((len(networks), 1)), (counts * times) @ groups.T, counts * times])
    best: tuple[float, _Floats, _Floats] | None = None
    for factor, row in product(_FACTORS, _ROWS):
        deviations = np.array([np.inf, *[factor] * len(families), *[row] * len(rows)])
        weights, errors = _ridge(features, measured - counts @ times, deviations, noise * float(measured.mean()))
        score = float(np.mean(np.square(errors / measured)))
        if best is None or score < best[0]:
            best = score, weights, errors
    assert best is not None
    _, weights, errors = best
    fitted = np.maximum(0.0, times * (1 + groups.T @ weights[1 : 1 + len(families)] + weights[1 + len(families) :]))
    left = measured - float(weights[0]) - counts @ fitted
    return Corrected(
        dict(zip(rows, map(float, fitted), strict=True)),
        float(weights[0]),
        tuple(map(float, left)),
        tuple(map(float, errors)),
    )


def _ridge(features: _Floats, wanted: _Floats, deviations: _Floats, noise: float) -> tuple[_Floats, _Floats]:
    """Return weights, and for each line its error if it is predicted from the others.

    Args:
        features: Lines of features.
        wanted: Value of each line.
        deviations: Expected size of each weight: 0 fixes it to 0, and an infinite one leaves it free.
        noise: Expected size of errors.
    """
    free = deviations > 0
    used = features[:, free]
    penalty = np.diag(np.square(noise / deviations[free]))
    inverse = np.linalg.pinv(used.T @ used + penalty)
    weights = np.zeros(features.shape[1])
    weights[free] = inverse @ (used.T @ wanted)
    leverage = np.einsum("ij,jk,ik->i", used, inverse, used)
    return weights, (wanted - features @ weights) / np.maximum(1 - leverage, 1e-9)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rank correlation; 0 if one of the sequences is constant."""
    a, b = (_ranks(np.asarray(values, float)) for values in (first, second))
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: _Floats) -> _Floats:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    middles: _Floats = (ends - (count - 1) / 2)[place]
    return middles
