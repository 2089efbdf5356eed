"""The hypervolume of a study over time: each trial adds to the front of those before it. No torch, no ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from nas.findings.pareto import front_mask, volume
from nas.metrics import METRICS, Direction


@dataclass(frozen=True)
class Growth:
    """A growth of the hypervolume.

    Args:
        number: Number of the trial whose end made it grow.
        trials: Number of trials with a result until then, this one included.
        value: Hypervolume afterwards, in the units of the objectives.
        at: Time of the trial's end, in UTC.
    """

    number: int
    trials: int
    value: float
    at: datetime


class Growths:
    """A front that grows point by point, with its hypervolume.

    Most points of a long search are dominated, so that they cost one comparison with the front.

    Args:
        objectives: Metrics of the objectives.
        reference_point: Reference point of the hypervolume by metric, with each objective.
        rows: Points so far, with one column for each objective.
        value: Their hypervolume.
    """

    def __init__(
        self,
        objectives: Sequence[str],
        reference_point: Mapping[str, float],
        rows: Sequence[Sequence[float]] = (),
        value: float = 0.0,
    ) -> None:
        self._objectives, self._reference = objectives, reference_point
        self._signs = np.array([-1.0 if METRICS[m].direction is Direction.MAXIMIZE else 1.0 for m in objectives])
        self._front = self._kept([tuple(row) for row in rows])
        self.value = value

    def add(self, rows: Sequence[Sequence[float]]) -> bool:
        """Add points; return whether the hypervolume has grown."""
        bound = np.array([self._reference[name] for name in self._objectives]) * self._signs
        new = [tuple(row) for row in rows if bool((np.array(row) * self._signs < bound).all())]
        if self._front and new:
            front = np.array(self._front) * self._signs
            new = [row for row in new if not bool((front <= np.array(row) * self._signs).all(axis=1).any())]
        if not new:
            return False
        self._front = self._kept(self._front + new)
        after = volume(self._front, self._objectives, self._reference)
        grown, self.value = after > self.value, max(after, self.value)
        return grown

    def _kept(self, rows: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
        unique = list(dict.fromkeys(rows))
        mask = front_mask(unique, self._objectives)
        return [row for row, flag in zip(unique, mask, strict=True) if flag]
