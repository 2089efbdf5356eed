"""The selection of points for a figure keeps what must be seen, and stands for the rest."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nas.findings.pareto import front_mask, front_ranks
from nas.findings.thinning import thinned

METRICS = ("macs", "top1")


@given(st.integers(0, 400), st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_the_front_stays_and_no_more_than_most_are_added(count: int, most: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    values = np.round(draw.random((count, 2)), 2)  # some are equal
    kept = np.array(front_mask(values, METRICS), dtype=bool)
    shown = thinned(values, METRICS, kept, most)
    assert shown[kept].all()
    assert (shown & ~kept).sum() <= most
    if (~kept).sum() <= most:
        assert shown.all()


def test_half_are_near_the_front_and_the_others_are_spread() -> None:
    values = np.random.default_rng(0).random((5000, 2))
    kept = np.zeros(5000, dtype=bool)
    shown = thinned(values, METRICS, kept, 400)
    ranks = np.array(front_ranks(values, METRICS))
    near = np.sort(ranks)[199]
    assert shown[ranks < near].all()
    assert 300 <= shown.sum() <= 400
    # Each of 16 parts of the plane has a point, and none holds most of them.
    far = values[shown & (ranks > near)]
    parts = np.histogram2d(far[:, 0], far[:, 1], bins=4, range=[[0, 1], [0, 1]])[0]
    assert (parts[:, 0] > 0).all()
    assert parts.max() < 0.25 * parts.sum()
