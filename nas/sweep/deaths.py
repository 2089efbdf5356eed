"""Trials that broke off: what was done to them, what they did themselves, and how often they are run again. No Ray."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

MAX_DEATHS = 3


class DeathCause(StrEnum):
    """Why a trial broke off."""

    OWN = "own"
    MEMORY = "memory"
    NODE = "node"
    PROCESS = "process"


@dataclass(frozen=True)
class Death:
    """The end of a trial that reported neither an outcome nor a reason.

    Args:
        cause: ``own`` for an error that the trial raised; running it again would meet the same error.
        reason: The cause in words.
    """

    cause: DeathCause
    reason: str


class Retries:
    """Decides whether a trial that broke off is run again.

    What counts are deaths without an epoch of progress between them, so that a long trial on a machine that fails now
    and then comes to its end, and one that always kills its process does not run for ever.

    Args:
        limit: Deaths without progress after which a trial has failed.
        memory_limit: The same for deaths by lack of memory.
    """

    def __init__(self, limit: int = MAX_DEATHS, memory_limit: int = 2) -> None:
        self._limit = limit
        self._memory_limit = memory_limit
        self._furthest: dict[int, int] = {}
        self._deaths: dict[int, Counter[DeathCause]] = {}

    def progressed(self, number: int, epoch: int) -> None:
        """Note that a trial has reported an epoch; one that is reported again is no progress."""
        if epoch > self._furthest.get(number, 0):
            self._furthest[number] = epoch
            self._deaths.pop(number, None)

    def allows(self, number: int, death: Death) -> bool:
        """Count a death, and return whether the trial is to be run again."""
        if death.cause is DeathCause.OWN:
            return False
        deaths = self._deaths.setdefault(number, Counter())
        deaths[death.cause] += 1
        return deaths.total() < self._limit and deaths[DeathCause.MEMORY] < self._memory_limit

    def count(self, number: int) -> int:
        """Return how often a trial has died since its last progress."""
        deaths = self._deaths.get(number)
        return deaths.total() if deaths else 0
