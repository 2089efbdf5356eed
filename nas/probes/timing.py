"""The statistics of a timing: ratio to a reference network, interval, stopping rule, faults. Loads no torch.

A network and a reference network take turns, pass by pass. What slows the machine slows both, so the ratio of two
neighbouring passes stays. The ratio of a probe is the median over these pairs, with its distribution-free interval,
which follows from the binomial distribution of ranks. Passes are added until the interval is narrow enough.

Rounds in which the system gave the processor to other work are left out. If these are most of them, the remaining ones
would be no fair sample; a single thread is then timed by the processor's own time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nas.probes.server import Pass

Turns = Callable[[int, float], list[list[Pass]]]
"""Runs a number of rounds, fewer if a number of seconds is over; returns the passes of the reference, then those of the
network."""

CONFIDENCE = 0.95
_GROWTH = 0.25  # further passes as a share of those so far
_MOST_HELD = 0.5  # above this share of interrupted passes, they cannot be left out: the others are no random sample
_OUTLIER_DEVIATIONS = 8.0
_DRIFT = 0.05
_SLOWDOWN = 0.15


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the quantile of sorted values, interpolated linearly between neighbours."""
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def median(values: Sequence[float]) -> float:
    """Return the median of values in any order."""
    return quantile(sorted(values), 0.5)


def median_interval(ordered: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return a confidence interval of the median of independent draws, from order statistics.

    With n draws, the median lies below the k-th smallest with the probability of at most k - 1 heads in n throws of a
    fair coin, whatever the distribution. The interval has the narrowest ranks that leave at most half of ``1 -
    confidence`` on each side. With fewer than 6 draws no pair of ranks reaches 95 %, and the extremes are returned.

    Args:
        ordered: Sorted draws, at least one.
        confidence: Probability between 0 and 1.
    """
    count = len(ordered)
    tail = (1.0 - confidence) / 2
    cumulative, rank = 0.0, 0
    for heads in range(count // 2):
        cumulative += math.exp(
            math.lgamma(count + 1) - math.lgamma(heads + 1) - math.lgamma(count - heads + 1) - count * math.log(2)
        )
        if cumulative > tail:
            break
        rank = heads
    return ordered[rank], ordered[count - 1 - rank]


@dataclass(frozen=True)
class Precision:
    """When a timing may end.

    Args:
        width: Width of the ratio's interval, as a share of the ratio, from which on a timing may end.
        least: Number of rounds before that.
        seconds: Time in seconds after which it ends in any case.
    """

    width: float = 0.02
    least: int = 50
    seconds: float = 10.0


@dataclass(frozen=True)
class Timing:
    """The summary of passes of a network in turn with those of a reference network.

    Args:
        n: Number of rounds that count.
        held: Number of rounds left out because other work interrupted one of their passes; 0 if none could be spared.
        clock: Clock of the times: ``"wall"``, or ``"processor"`` if other work interrupted most rounds.
        interrupted: Share of all rounds in which other work interrupted a pass.
        median_ms: Median time of the network in milliseconds.
        p90_ms: 90th percentile of its times.
        spread_ms: Interquartile range of its times.
        reference_ms: Median time of the reference.
        ratio: Median ratio of neighbouring passes.
        ratio_interval: 95 % interval of that median.
        outliers: Number of rounds whose ratio is far from the median.
        drift: Largest change of the reference's time between thirds of the run, as a share of its median.
        precise: Whether the interval is as narrow as requested.
    """

    n: int
    held: int
    clock: str
    interrupted: float
    median_ms: float
    p90_ms: float
    spread_ms: float
    reference_ms: float
    ratio: float
    ratio_interval: tuple[float, float]
    outliers: int
    drift: float
    precise: bool

    @property
    def width(self) -> float:
        """Width of the ratio's interval as a share of the ratio."""
        return (self.ratio_interval[1] - self.ratio_interval[0]) / self.ratio

    def faults(self, precision: Precision, usual_ms: float | None = None) -> list[str]:
        """Return what makes the timing uncertain, one clause each.

        Args:
            precision: Requested precision.
            usual_ms: Usual time of the reference on this device, if it is known.
        """
        found = []
        if not self.precise:
            found.append(
                f"the interval is {self.width:.1%} wide after {precision.seconds:g} s, not {precision.width:.1%}"
            )
        if self.interrupted > _MOST_HELD:
            instead = ", so the processor's time stands for the clock's" if self.clock == "processor" else ""
            found.append(f"other work interrupted {self.interrupted:.0%} of the rounds{instead}")
        if self.outliers > 0.1 * self.n:
            found.append(f"{self.outliers} of {self.n} rounds are outliers")
        if self.drift > _DRIFT:
            found.append(
                f"the reference network changed its speed by {self.drift:.0%} during the run: the device is throttled "
                "or shared"
            )
        if usual_ms is not None and self.reference_ms > (1 + _SLOWDOWN) * usual_ms:
            found.append(
                f"the reference network takes {self.reference_ms / usual_ms:.2f} times as long as usual: the device is "
                "throttled or shared"
            )
        return found


def summarise(
    reference: Sequence[Pass], network: Sequence[Pass], width: float, *, one_thread: bool = False
) -> Timing:
    """Return the summary of passes in turn.

    Args:
        reference: Times of the reference, one pass for each round.
        network: Times of the network, one pass for each round.
        width: Requested width of the ratio's interval, as a share of the ratio.
        one_thread: Whether one thread of the processor does the work, whose own time then equals that by the clock.
    """
    rounds = list(zip(reference, network, strict=True))
    quiet = [pair for pair in rounds if not (pair[0][2] or pair[1][2])]
    share = 1 - len(quiet) / len(rounds)
    kept = quiet if share <= _MOST_HELD else rounds
    by_processor = one_thread and share > _MOST_HELD and all(r[1] > 0 and n[1] > 0 for r, n in rounds)
    clock = 1 if by_processor else 0
    ratios = sorted(n[clock] / r[clock] for r, n in kept)
    times = sorted(n[clock] for _, n in kept)
    against = [r[clock] for r, _ in kept]
    middle = quantile(ratios, 0.5)
    deviation = median([abs(ratio - middle) for ratio in ratios])
    low, high = median_interval(ratios)
    return Timing(
        n=len(kept),
        held=len(rounds) - len(kept),
        clock="processor" if by_processor else "wall",
        interrupted=share,
        median_ms=quantile(times, 0.5),
        p90_ms=quantile(times, 0.9),
        spread_ms=quantile(times, 0.75) - quantile(times, 0.25),
        reference_ms=median(against),
        ratio=middle,
        ratio_interval=(low, high),
        outliers=sum(abs(ratio - middle) > _OUTLIER_DEVIATIONS * deviation for ratio in ratios) if deviation else 0,
        drift=_drift(against),
        precise=(high - low) <= width * middle and len(ratios) >= 6,
    )


def _drift(times: Sequence[float]) -> float:
    """Return the largest difference between the medians of thirds of a run, as a share of the whole median."""
    third = len(times) // 3
    if third < 5:
        return 0.0
    parts = [median(times[:third]), median(times[third : 2 * third]), median(times[2 * third :])]
    return (max(parts) - min(parts)) / median(times)


def time_in_turn(turns: Turns, precision: Precision, warmup: int, *, one_thread: bool = False) -> Timing:
    """Time a network in turn with a reference, until the interval of the ratio is narrow enough or time is up.

    Args:
        turns: Function that runs rounds.
        precision: When to end.
        warmup: Number of rounds that do not count.
        one_thread: Whether one thread of the processor does the work.
    """
    if warmup:
        turns(warmup, precision.seconds / 4)
    end = time.monotonic() + precision.seconds  # the first passes may compile for minutes
    reference: list[Pass] = []
    network: list[Pass] = []
    wanted = precision.least
    while True:
        for known, new in zip((reference, network), turns(wanted, end - time.monotonic()), strict=True):
            known.extend(new)
        found = summarise(reference, network, precision.width, one_thread=one_thread)
        if time.monotonic() >= end or (found.precise and found.n >= precision.least):
            return found
        wanted = max(10, math.ceil(_GROWTH * len(reference)))
