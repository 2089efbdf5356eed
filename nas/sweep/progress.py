"""The events of a sweep, for displays and other listeners: one small type for each. Loads neither torch nor ray."""

from __future__ import annotations

from dataclasses import dataclass

from nas.candidate import Candidate
from nas.definition.study import StudyDefinition
from nas.trial import EpochRecord, Placement, TrialSpec, TrialState


@dataclass(frozen=True, kw_only=True)
class Event:
    """Fields of all events.

    Args:
        ended: Number of the study's trials that have ended.
        total: Number of the study's trials; 0 if the event does not say.
    """

    ended: int = 0
    total: int = 0


@dataclass(frozen=True)
class SearchStarted(Event):
    """The search of a study begins or resumes."""

    definition: StudyDefinition


@dataclass(frozen=True)
class TrialEvent(Event):
    """A change of a trial."""

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
    """A trial has reported its placement."""

    placement: Placement


@dataclass(frozen=True)
class EpochDone(TrialEvent):
    """A trial has reported an epoch."""

    record: EpochRecord


@dataclass(frozen=True)
class TrialEnded(TrialEvent):
    """A trial has ended.

    Args:
        state: State at the end: ``complete``, ``pruned``, ``failed`` or ``cancelled``.
        candidates: Networks that it settled on.
        reason: Reason why it failed, was cancelled or stopped early.
    """

    state: TrialState
    candidates: tuple[Candidate, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class FinalStarted(Event):
    """The search is over, and its final comparison begins; the message describes it."""

    message: str


@dataclass(frozen=True)
class Foreseen(Event):
    """The spread of the final comparison is known; the message says which difference it can show."""

    message: str


@dataclass(frozen=True)
class Probing(Event):
    """A network is measured; the message names it, or says why it could not be measured."""

    message: str


@dataclass(frozen=True)
class Stopping(Event):
    """A stop was requested."""

    message: str


@dataclass(frozen=True)
class Warned(Event):
    """A problem occurred besides the trials."""

    message: str


@dataclass(frozen=True)
class Tick(Event):
    """Time has passed; this event comes several times a second."""


@dataclass(frozen=True)
class SearchEnded(Event):
    """The search has ended, stopped or paused.

    Args:
        reason: Reason why it did not finish.
        passing: Whether it paused by a fault that may pass by itself, such as a full disk.
    """

    reason: str | None = None
    passing: bool = False


SweepEvent = (
    SearchStarted
    | TrialStarted
    | TrialPlaced
    | EpochDone
    | TrialEnded
    | FinalStarted
    | Foreseen
    | Probing
    | Stopping
    | Warned
    | Tick
    | SearchEnded
)
