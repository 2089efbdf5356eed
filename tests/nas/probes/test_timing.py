"""The statistics of a timing: closed forms of intervals, what interruptions and drifts do, when a timing ends."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas.probes.server import Pass, take_turns, timed
from nas.probes.timing import Precision, Timing, median, median_interval, quantile, summarise, time_in_turn


def covered(count: int, low: int, high: int) -> float:
    """Probability that the median lies between the order statistics ``low`` and ``high`` (zero-based)."""
    return sum(math.comb(count, k) for k in range(low + 1, high + 1)) / 2**count


@given(st.integers(6, 400))
def test_the_interval_is_the_narrowest_that_covers(count):
    low, high = median_interval([float(k) for k in range(count)])
    rank, other = int(low), int(high)
    assert other == count - 1 - rank
    assert covered(count, rank, other) >= 0.95 - 1e-9
    assert covered(count, rank + 1, other - 1) < 0.95


@pytest.mark.parametrize(("count", "ranks"), [(1, (0, 0)), (5, (0, 4)), (6, (0, 5)), (50, (17, 32)), (100, (39, 60))])
def test_the_interval_of_known_sizes(count, ranks):
    assert median_interval([float(k) for k in range(count)]) == ranks


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40), st.floats(0, 1))
def test_quantiles(values, share):
    ordered = sorted(values)
    expected = torch.quantile(torch.tensor(ordered, dtype=torch.float64), share).item()
    assert quantile(ordered, share) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def passes(times, *, held=(), busy=None) -> list[Pass]:
    """Passes with these times, of which those at the places ``held`` were interrupted."""
    return [(ms, ms if busy is None else busy, place in held) for place, ms in enumerate(times)]


@given(st.floats(0.1, 100), st.lists(st.floats(0.5, 3), min_size=6, max_size=40))
def test_a_drift_that_meets_both_cancels(factor, speeds):
    found = summarise(passes(speeds), passes([factor * speed for speed in speeds]), 0.02)
    assert found.ratio == pytest.approx(factor)
    assert found.ratio_interval == pytest.approx((factor, factor))
    assert found.precise
    assert found.outliers == 0


def test_interrupted_rounds_are_left_out():
    reference, network = [1.0] * 20, [2.0] * 20
    network[3], reference[7] = 50.0, 40.0
    found = summarise(passes(reference, held={7}), passes(network, held={3}), 0.02)
    assert (found.n, found.held, found.clock, found.interrupted) == (18, 2, "wall", pytest.approx(0.1))
    assert (found.median_ms, found.p90_ms, found.ratio) == (2.0, 2.0, 2.0)


def test_of_one_thread_that_is_always_interrupted_the_processors_time_counts():
    reference, network = passes([9.0] * 10, held=range(8), busy=1.0), passes([90.0] * 10, held=range(8), busy=3.0)
    found = summarise(reference, network, 0.02, one_thread=True)
    assert (found.n, found.held, found.clock, found.ratio, found.median_ms) == (10, 0, "processor", 3.0, 3.0)
    assert found.faults(Precision()) == [
        "other work interrupted 80% of the rounds, so the processor's time stands for the clock's"
    ]
    several = summarise(reference, network, 0.02)
    assert (several.clock, several.ratio, several.median_ms) == ("wall", 10.0, 90.0)
    assert several.faults(Precision()) == ["other work interrupted 80% of the rounds"]


def test_faults():
    precision = Precision(0.02, 10, 5.0)
    quiet = summarise(passes([1.0] * 30), passes([2.0] * 30), 0.02)
    assert quiet.faults(precision, 1.0) == []
    assert quiet.faults(precision, 0.5) == [
        "the reference network takes 2.00 times as long as usual: the device is throttled or shared"
    ]
    slower = summarise(passes([1.0] * 15 + [1.2] * 15), passes([2.0] * 15 + [2.4] * 15), 0.02)
    assert slower.ratio == pytest.approx(2.0)
    [drift] = slower.faults(precision)
    assert drift.startswith("the reference network changed its speed by")
    assert replace(quiet, precise=False, ratio_interval=(1.9, 2.1)).faults(precision) == [
        "the interval is 10.0% wide after 5 s, not 2.0%"
    ]
    jumpy = summarise(passes([1.0] * 20), passes([2.0, 2.01] * 8 + [9.0] * 4), 1.0)
    assert (jumpy.outliers, jumpy.faults(precision)) == (4, ["4 of 20 rounds are outliers"])


class Noisy:
    """A device whose network takes 2 ms, give or take a share, and which counts its rounds."""

    def __init__(self, noise: float) -> None:
        self.noise, self.rounds, self.generator = noise, [], random.Random(0)

    def __call__(self, count: int, seconds: float) -> list[list[Pass]]:
        self.rounds.append(count)
        return [passes([1.0] * count), passes([2.0 + self.generator.gauss(0, self.noise) for _ in range(count)])]


@pytest.mark.parametrize(("noise", "least", "most"), [(0.0, 10, 10), (0.05, 11, 2000), (0.2, 500, 20_000)])
def test_passes_are_added_until_the_interval_is_narrow(noise, least, most):
    device = Noisy(noise)
    found = time_in_turn(device, Precision(0.02, 10, 60.0), 5)
    assert device.rounds[0] == 5
    assert least <= found.n == sum(device.rounds[1:]) <= most
    assert found.precise
    assert found.width <= 0.02
    assert found.ratio == pytest.approx(2.0, rel=0.03)


def test_a_timing_ends_when_its_time_is_up():
    found = time_in_turn(Noisy(50.0), Precision(1e-9, 10, 0.05), 0)
    assert not found.precise
    assert isinstance(found, Timing)


def test_turns():
    order: list[str] = []
    found = take_turns([lambda: order.append("a"), lambda: order.append("b")], 3)
    assert order == ["a", "b"] * 3
    assert [len(passes) for passes in found] == [3, 3]
    assert len(take_turns([order.clear], 9, seconds=0.0)[0]) == 1


def test_the_clocks():
    ms, busy, held = timed(lambda: sum(range(300_000)))
    assert ms > 0.5
    assert busy > 0
    assert isinstance(held, bool)
    assert median([3.0, 1.0, 2.0]) == 2.0
