"""A study, as the store keeps it: its definition, its state and its findings. Loads neither torch nor ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from nas.definition.space import Parameters
from nas.definition.study import StudyDefinition


class StudyState(StrEnum):
    """The states of a study.

    ``interrupted`` is never stored: a running study reads so when the lease of its search has expired.
    """

    QUEUED = "queued"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    PAUSED = "paused"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


PAUSED_ON_REQUEST = "paused on request"
"""Reason of a study that a request or a signal paused, and no fault."""

STOPPED_ON_REQUEST = "stopped on request"
"""Reason of a study that was ended for good, and of its trials that did not end by themselves."""


@dataclass(frozen=True)
class DataFingerprint:
    """Fingerprint of a study's data, so that a study that continues later or elsewhere uses the same data.

    Args:
        classes: Names of the classes in the order of the targets.
        counts: Number of images by split (``train``, ``validation``, and ``test`` if the study needs it).
        content: SHA-256 of the images and classes by split, and of the file of the starting weights (``weights``) if
            there is one, hexadecimal.
    """

    classes: tuple[str, ...]
    counts: Mapping[str, int]
    content: Mapping[str, str]

    def changes(self, now: DataFingerprint) -> list[str]:
        """Return the differences from ``now``, one clause each; empty if the data are the same."""
        found = []
        gone = [repr(name) for name in self.classes if name not in now.classes]
        new = [repr(name) for name in now.classes if name not in self.classes]
        if gone:
            found.append(f"without the {'class' if len(gone) == 1 else 'classes'} {', '.join(gone)}")
        if new:
            found.append(f"with the new {'class' if len(new) == 1 else 'classes'} {', '.join(new)}")
        if not found and self.classes != now.classes:
            found.append("the classes in another order")
        for split in dict.fromkeys([*self.counts, *now.counts]):
            before, after = self.counts.get(split, 0), now.counts.get(split, 0)
            if before != after:
                found.append(f"{after:,} instead of {before:,} {split} images")
            elif self.content.get(split) != now.content.get(split):
                found.append(f"other content in the {before:,} {split} images")
        if self.content.get("weights") != now.content.get("weights"):
            found.append("other starting weights")
        return found

    def sentence(self) -> str:
        """Return the fingerprint in one line: classes, images of each split, the beginning of the digests."""
        images = ", ".join(f"{count:,} {split}" for split, count in self.counts.items())
        return f"{len(self.classes)} classes; images: {images}; content {self.content['train'][:8]}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fingerprint in types of JSON."""
        return {"classes": list(self.classes), "counts": dict(self.counts), "content": dict(self.content)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DataFingerprint:
        """Build a fingerprint from :meth:`to_dict`."""
        return cls(tuple(values["classes"]), dict(values["counts"]), dict(values["content"]))


@dataclass(frozen=True)
class PriorTrial:
    """A result of an earlier study that a searcher receives before the first trial; no trial of the new study.

    Args:
        study: Name of the earlier study.
        number: Number of the trial there.
        parameters: Values of the parameters that the new study sweeps.
        values: Values by metric, of the evaluation kind that the searcher receives.
    """

    study: str
    number: int
    parameters: Parameters
    values: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the result in types of JSON."""
        place = {"study": self.study, "number": self.number}
        return {**place, "parameters": dict(self.parameters), "values": dict(self.values)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PriorTrial:
        """Build a result from :meth:`to_dict`."""
        return cls(values["study"], values["number"], dict(values["parameters"]), dict(values["values"]))


@dataclass(frozen=True)
class ComparisonPlan:
    """The statements on a final comparison before its trainings.

    Args:
        left_out: Sentences on networks that were requested, but do not exist.
        spread: Standard deviation of the difference between two networks trained with one seed, in the unit of the
            metric; None while it is unknown.
        trainings: Number of trainings that the spread rests on.
        source: Origin of the spread, in words.
    """

    left_out: tuple[str, ...] = ()
    spread: float | None = None
    trainings: int = 0
    source: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the plan in types of JSON."""
        spread = {"spread": self.spread, "trainings": self.trainings, "source": self.source}
        return {"left_out": list(self.left_out), **spread}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ComparisonPlan:
        """Build a plan from :meth:`to_dict`."""
        return cls(tuple(values["left_out"]), values["spread"], values["trainings"], values["source"])


@dataclass(frozen=True)
class Study:
    """A study, as the store keeps it.

    Args:
        id: UUID, hexadecimal with dashes.
        name: Unique name.
        state: Present state.
        definition: Definition of the study.
        reference_point: Reference point of the hypervolume by metric, fixed at creation (top1 0, costs at n = C).
        created_at: Time of creation in UTC.
        updated_at: Time of the last change in UTC.
        reason: Reason why it failed, paused or stopped; for a finished study, that most of its trials failed.
        report: Findings of the search in sentences; empty until it has ended.
        data: Fingerprint of its data at the first run; None before that, and if an older version ran it.
        extended: Number of search trials that were added to the definition's.
        tags: Tags that people gave it.
        note: Text that people put on it.
        archived: Whether it is left out of the usual list.
        comparison_plan: Statements on its final comparison before the trainings; None until there are some.
        created_by: Name of the token that created it; None for a command.
    """

    id: str
    name: str
    state: StudyState
    definition: StudyDefinition
    reference_point: Mapping[str, float]
    created_at: datetime
    updated_at: datetime
    reason: str | None = None
    report: tuple[str, ...] = ()
    data: DataFingerprint | None = None
    extended: int = 0
    tags: tuple[str, ...] = ()
    note: str = ""
    archived: bool = False
    comparison_plan: ComparisonPlan | None = None
    created_by: str | None = None

    @property
    def search_trials(self) -> int:
        """Number of search trials in its plan."""
        return self.definition.sweep.trials + self.extended

    @property
    def planned(self) -> int:
        """Number of trials in its plan, with baselines and the final comparison."""
        return self.definition.planned + self.extended
