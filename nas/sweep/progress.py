"""The events of a sweep, for whoever watches: one small type for each thing that happens. No torch, no ray."""

from __future__ import annotations

from dataclasses import dataclass

from nas.candidate import Candidate
from nas.definition.study import StudyDefinition
from nas.placement import Placement
from nas.trial import EpochRecord, TrialSpec, TrialState


@dataclass(frozen=True, kw_only=True)
class Event:
    """What every event says.

    Args:
        ended: Trials of the study that have ended.
        total: Trials of the study; 0 if the event does not say.
    """

    ended: int = 0
    total: int = 0


@dataclass(frozen=True)
class SearchStarted(Event):
    """The search of a study begins, or goes on."""

    definition: StudyDefinition


@dataclass(frozen=True)
class TrialEvent(Event):
    """Something happened to a trial."""

    spec: TrialSpec

    @property
    def number(self) -> int:
        """Number of the trial."""
        return self.spec.number


@dataclass(frozen=True)
class TrialStarted(TrialEvent):
    """Ray has started a trial."""


@dataclass(frozen=True)
class TrialPlaced(TrialEvent):
    """A trial has said where it runs."""

    placement: Placement


@dataclass(frozen=True)
class EpochDone(TrialEvent):
    """A trial has reported an epoch."""

    record: EpochRecord


@dataclass(frozen=True)
class TrialEnded(TrialEvent):
    """A trial has ended.

    Args:
        state: ``complete``, ``failed`` or ``cancelled``.
        candidates: Networks that it settled on.
        reason: Why it failed or was cancelled.
    """

    state: TrialState
    candidates: tuple[Candidate, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class FinalStarted(Event):
    """The search is over, and its final comparison begins; the message says what is compared."""

    message: str


@dataclass(frozen=True)
class Probing(Event):
    """A network is measured; the message says which, or why it could not be."""

    message: str


@dataclass(frozen=True)
class Stopping(Event):
    """Somebody asked for a stop."""

    message: str


@dataclass(frozen=True)
class Warned(Event):
    """Something went wrong beside the trials."""

    message: str


@dataclass(frozen=True)
class Tick(Event):
    """Time has passed; comes several times a second."""


@dataclass(frozen=True)
class SearchEnded(Event):
    """The search has ended or stopped; the reason says why it did not finish."""

    reason: str | None = None


SweepEvent = (
    SearchStarted
    | TrialStarted
    | TrialPlaced
    | EpochDone
    | TrialEnded
    | FinalStarted
    | Probing
    | Stopping
    | Warned
    | Tick
    | SearchEnded
)
