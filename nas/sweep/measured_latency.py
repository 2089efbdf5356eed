"""Networks of equal measured latency beside a learned one. Loads torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import median

from torch import nn

from nas.finalist import Finalist
from nas.findings.milliseconds import MEASURED_TOLERANCE
from nas.sweep.learned_network import LearnedNetwork
from partialnet.networks import create

Build = Callable[[Finalist], nn.Module]
"""A function that builds a network of a final comparison."""

_AIMS = 3  # costs by the table that are aimed at before the closest network so far is taken


class MeasuredLatency:
    """Measured latencies relative to those of learned networks, each of which is measured once.

    A table errs by some percent, and not alike for learned networks and others. So a network whose measured latency is
    off is replaced by another one, at a cost by the table that is corrected by the error.

    Args:
        measure: Function that returns the latency of a network in milliseconds.
    """

    def __init__(self, measure: Callable[[nn.Module], float]) -> None:
        self._measure = measure
        self._learned: dict[str, float] = {}

    def relative(self, network: nn.Module, choice: LearnedNetwork) -> float:
        """Return the latency of a network as a multiple of that of a learned one."""
        architecture = choice.candidate.architecture
        if architecture.id not in self._learned:
            self._learned[architecture.id] = self._measure(create(architecture))
        return self._measure(network) / self._learned[architecture.id]

    def closest(self, find: Callable[[float], Finalist], choice: LearnedNetwork, build: Build) -> Finalist:
        """Return a network whose measured latency is that of a learned one, or the closest that was measured.

        Args:
            find: Function that returns the network of a cost by the table.
            choice: Learned network.
            build: Function that builds a network.
        """
        aim, tried = choice.cost, dict[Finalist, float]()
        for _ in range(_AIMS):
            finalist = find(aim)
            if finalist in tried:
                break
            ratio = tried[finalist] = self.relative(build(finalist), choice)
            if abs(ratio - 1) <= MEASURED_TOLERANCE:
                break
            aim /= ratio
        best = min(tried, key=lambda finalist: abs(tried[finalist] - 1))
        return replace(best, cost=tried[best] * choice.cost)

    def equal(
        self, draw: Callable[[float], Sequence[Finalist]], choice: LearnedNetwork, build: Build, count: int
    ) -> Iterator[Finalist]:
        """Yield up to ``count`` networks whose measured latency is within 5 % of that of a learned one.

        Args:
            draw: Function that returns networks of a cost by the table.
            choice: Learned network.
            build: Function that builds a network.
            count: Largest number of networks.
        """
        aim, tried, found = choice.cost, dict[Finalist, float](), 0
        for _ in range(_AIMS):
            for finalist in draw(aim):
                if found == count:
                    return
                if finalist in tried:
                    continue
                ratio = tried[finalist] = self.relative(build(finalist), choice)
                if abs(ratio - 1) <= MEASURED_TOLERANCE:
                    found += 1
                    yield replace(finalist, cost=ratio * choice.cost)
            if not tried or found == count:
                return
            aim = choice.cost / median(tried.values())
