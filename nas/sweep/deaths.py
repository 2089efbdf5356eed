"""Trials that broke off: their causes, and the number of their repetitions. Loads no Ray."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

MAX_DEATHS = 3


class DeathCause(StrEnum):
    """Causes for which a trial breaks off."""

    OWN = "own"
    MEMORY = "memory"
    NODE = "node"
    PROCESS = "process"


@dataclass(frozen=True)
class Death:
    """The end of a trial that reported neither an outcome nor a reason.

    Args:
        cause: Cause of the end; ``own`` for an error that the trial raised and would raise again.
        reason: Text of the cause.
    """

    cause: DeathCause
    reason: str


class Retries:
    """Decides whether a trial that broke off is repeated.

    Only deaths without an epoch of progress between them count. A long trial on an unreliable machine therefore
    completes, and a trial that always kills its process does not run forever.

    Args:
        limit: Number of deaths without progress after which a trial has failed.
        memory_limit: Number of such deaths by lack of memory.
        node_limit: Number of lost nodes, which count apart: until Ray notices a loss, it starts trials there again.
    """

    def __init__(self, limit: int = MAX_DEATHS, memory_limit: int = 2, node_limit: int = 10) -> None:
        self._limit = limit
        self._memory_limit = memory_limit
        self._node_limit = node_limit
        self._furthest: dict[int, int] = {}
        self._deaths: dict[int, Counter[DeathCause]] = {}

    def progressed(self, number: int, epoch: int) -> None:
        """Record that a trial has reported an epoch; a repeated epoch is no progress."""
        if epoch > self._furthest.get(number, 0):
            self._furthest[number] = epoch
            self._deaths.pop(number, None)

    def allows(self, number: int, death: Death) -> bool:
        """Count a death, and return whether to repeat the trial."""
        if death.cause is DeathCause.OWN:
            return False
        deaths = self._deaths.setdefault(number, Counter())
        deaths[death.cause] += 1
        if deaths[DeathCause.MEMORY] >= self._memory_limit or deaths[DeathCause.NODE] >= self._node_limit:
            return False
        return deaths.total() - deaths[DeathCause.NODE] < self._limit

    def count(self, number: int) -> int:
        """Return the number of a trial's deaths since its last progress."""
        deaths = self._deaths.get(number)
        return deaths.total() if deaths else 0
