"""The events of a sweep, for displays and other listeners. Loads neither torch nor ray."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from nas.candidate import Candidate
from nas.definition.study import StudyDefinition
from nas.trial import EpochRecord, TrialSpec, TrialState

if TYPE_CHECKING:
    from nas.placement import Placement


class SweepEventKind(StrEnum):
    """Kinds of events."""

    SEARCH_STARTED = "search_started"
    TRIAL_STARTED = "trial_started"
    TRIAL_PLACED = "trial_placed"
    EPOCH = "epoch"
    TRIAL_ENDED = "trial_ended"
    FINAL_STARTED = "final_started"
    STOPPING = "stopping"
    PROBE = "probe"
    WARNING = "warning"
    TICK = "tick"
    SEARCH_ENDED = "search_ended"


@dataclass(frozen=True)
class SweepEvent:
    """A change of a sweep.

    Args:
        kind: Kind of the event, which decides the other fields that are set.
        spec: Trial of the event.
        record: Record of an epoch.
        state: State in which a trial ended.
        candidates: Networks that a trial settled on.
        placement: Place where Ray runs a trial.
        definition: Definition of the study, at the start.
        message: Text of a reason, a warning, a comparison or a probe.
        ended: Number of the study's trials that have ended.
        total: Number of the study's trials.
    """

    kind: SweepEventKind
    spec: TrialSpec | None = None
    record: EpochRecord | None = None
    state: TrialState | None = None
    candidates: tuple[Candidate, ...] = ()
    placement: Placement | None = None
    definition: StudyDefinition | None = None
    message: str | None = None
    ended: int = 0
    total: int = 0

    @property
    def number(self) -> int | None:
        """Number of the trial."""
        return self.spec.number if self.spec else None
