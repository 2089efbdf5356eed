"""A study as the store keeps it: its definition, its state, and what came of it. No torch, no ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from nas.definition.study import StudyDefinition


class StudyState(StrEnum):
    """Where a study stands.

    ``interrupted`` is never stored: a study that runs reads so when the lease of its search has expired.
    """

    QUEUED = "queued"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    PAUSED = "paused"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class DataFingerprint:
    """What the data of a study is, so that a study that goes on elsewhere or later sees the same.

    Args:
        classes: Names, in the order of the targets.
        counts: Split (``train``, ``validation``, and ``test`` where the study needs it) to number of images.
        content: Split to the SHA-256 of its images and classes, hexadecimal.
    """

    classes: tuple[str, ...]
    counts: Mapping[str, int]
    content: Mapping[str, str]

    def changes(self, now: DataFingerprint) -> list[str]:
        """Return what is different ``now``, one clause each; nothing if the data is the same."""
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
        return found

    def sentence(self) -> str:
        """Return it in one line: classes, images of each split, the beginning of what the content is."""
        images = ", ".join(f"{count:,} {split}" for split, count in self.counts.items())
        return f"{len(self.classes)} classes; images: {images}; content {self.content['train'][:8]}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON's types."""
        return {"classes": list(self.classes), "counts": dict(self.counts), "content": dict(self.content)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DataFingerprint:
        """Build what :meth:`to_dict` wrote."""
        return cls(tuple(values["classes"]), dict(values["counts"]), dict(values["content"]))


@dataclass(frozen=True)
class Study:
    """A study as the store keeps it.

    Args:
        id: UUID, hexadecimal with dashes.
        name: Unique.
        state: Where it stands.
        definition: What it runs.
        reference_point: Metric to value, for the hypervolume: fixed at creation (top1 0, costs at n = C).
        created_at: UTC.
        updated_at: UTC.
        reason: Why it failed or stopped.
        report: What the search found, in sentences; empty until it ended.
        data: What its data was when it first ran; None before that, and where an older version ran it.
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
