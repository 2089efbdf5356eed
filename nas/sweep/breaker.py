"""The circuit breaker of a search: a fault that concerns all trials pauses the study once. Loads no Ray."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from nas.errors import ClusterFault, CommonFault, DefinitionError, NasError, StoreError, failure_reason
from nas.host.room import check_room, is_disk_fault
from partialnet.errors import ArchitectureError, BudgetError, DataError, PartialNetError, TrainingDiverged

EQUAL_FAILURES = 3
_OWN = (TrainingDiverged, DefinitionError, BudgetError, ArchitectureError)
_CHANGING = re.compile(r"0x[0-9a-f]+|(?<=nas-)[a-z]+-\w{8}|[0-9]+")


class Scope(StrEnum):
    """Whom a failure concerns."""

    OWN = "own"
    """The trial itself: it would fail again, and says nothing about others (a diverged training)."""
    COMMON = "common"
    """All trials: each would meet the fault (a full disk, a damaged image)."""
    UNKNOWN = "unknown"
    """Unknown: equal failures in a row show that it concerns all."""


@dataclass(frozen=True)
class Failure:
    """The failure of a trial.

    Args:
        reason: Reason in one line.
        scope: Whom it concerns.
    """

    reason: str
    scope: Scope = Scope.UNKNOWN


def failure_of(error: Exception, storage: str) -> Failure:
    """Return the failure that an error of a trial means, on the machine that ran it.

    Args:
        error: Error that ended the trial.
        storage: Folder or URL of the weights, which may be the reason.
    """
    own_words = isinstance(error, (NasError, PartialNetError)) and str(error)
    reason = str(error) if own_words else failure_reason(error)
    if isinstance(error, _OWN):
        return Failure(reason, Scope.OWN)
    if isinstance(error, DataError):
        return Failure(reason, Scope.COMMON)
    try:
        check_room(storage)
    except CommonFault as fault:  # it names the full disk, which the error may not
        return Failure(str(fault), Scope.COMMON)
    common = isinstance(error, CommonFault) or is_disk_fault(error)
    return Failure(reason, Scope.COMMON if common else Scope.UNKNOWN)


@dataclass(frozen=True)
class Fault:
    """A fault that ended a search and concerns all trials.

    Args:
        reason: Fault in words.
        passing: Whether it may pass by itself, such as a full disk or a database that is away.
    """

    reason: str
    passing: bool


def fault_of(error: Exception, storage: str) -> Fault | None:
    """Return the fault that an error of a search means, on the driver's machine; None if it is the search's own.

    Args:
        error: Error that ended the search.
        storage: Folder or URL of the weights, which may be the reason.
    """
    if isinstance(error, (StoreError, ClusterFault)):
        return Fault(str(error), passing=True)
    known = isinstance(error, CommonFault)
    try:
        check_room(storage)
    except CommonFault as fault:
        return Fault(str(error if known else fault), passing=True)
    if is_disk_fault(error):
        return Fault(str(error) if known else failure_reason(error), passing=True)
    return Fault(str(error), passing=False) if known else None


class Breaker:
    """Decides when failures concern all trials: at once for a common fault, otherwise after equal failures in a row.

    Failures of a trial's own neither count nor interrupt the row. A trial that completes does.

    Args:
        limit: Number of equal failures in a row.

    Attributes:
        fault: Fault that concerns all trials, in words; None while there is none.
    """

    def __init__(self, limit: int = EQUAL_FAILURES) -> None:
        self._limit = limit
        self._row: list[int] = []
        self._pattern = ""
        self.fault: str | None = None

    def succeeded(self) -> None:
        """Count a trial that completed."""
        self._row.clear()

    def failed(self, number: int, failure: Failure) -> list[int]:
        """Count a failure.

        Args:
            number: Number of the trial.
            failure: Failure of the trial.

        Returns:
            Numbers of the trials that failed by a fault that was not theirs, which must run again.
        """
        if failure.scope is Scope.OWN:
            return []
        pattern = _CHANGING.sub("#", failure.reason)
        if pattern != self._pattern:
            self._row.clear()
        self._pattern = pattern
        self._row.append(number)
        if failure.scope is Scope.UNKNOWN and len(self._row) < self._limit:
            return []
        numbers, self._row = self._row, []
        repeated = f" ({len(numbers)} trials in a row)" if len(numbers) > 1 else ""
        self.fault = self.fault or f"{failure.reason}{repeated}"
        return numbers
