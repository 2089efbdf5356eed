"""The events of a sweep, for whoever watches. No torch, no ray."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from nas.candidate import Candidate
from nas.definition.study import StudyDefinition
from nas.trial import EpochRecord, TrialSpec, TrialState

if TYPE_CHECKING:
    from nas.sweep.ray_words import Placement


class SweepEventKind(StrEnum):
    """What happened."""

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
        kind: What happened; decides which of the others are set.
        spec: The trial it happened to.
        record: Of an epoch.
        state: In which a trial ended.
        candidates: What a trial settled on.
        placement: Where Ray put a trial.
        definition: Of the study, at the start.
        message: A reason, a warning, what is compared, what is probed.
        ended: Trials of the study that have ended.
        total: Trials of the study.
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
        """Of the trial."""
        return self.spec.number if self.spec else None
