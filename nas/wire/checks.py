"""The JSON of definitions that are being written: their check, their cost, and changes of their text. No torch, no ray.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nas.definition.checking import CheckedText
from nas.definition.faults import Fault
from nas.findings.pace import Estimate
from nas.wire.bodies import Body

LONGEST_TEXT = 64 * 1024
"""Largest number of characters of a definition."""


MOST_READ = 4 * LONGEST_TEXT
"""Largest number of characters that the changes of one request read."""


class FaultBody(Body):
    """A fault of a definition.

    Args:
        key: Place in the definition, such as ``training.epochs``; empty for the whole.
        text: Statement of what is wrong, with the value, and of what would be right.
        line: Line of the text, counted from 1; None if it has no place.
    """

    key: str
    text: str
    line: int | None


class EstimateBody(Body):
    """Cost of a study before its launch.

    Args:
        trials: Number of trials of each part: search, baselines, final.
        epochs: Number of epochs of each part, over all of its trials.
        seconds: Time of all trials one after the other; None without comparable trials.
        wall_seconds: Time until the end, if as many trials run at once as in the compared study.
        at_once: Number of trials that ran at the same time in the compared study, in the mean.
        compared: Name of the study whose trials were compared; None if no study is comparable.
        compared_trials: Number of compared trials.
        scaled: Ratio of the number of images to that of the compared study.
        differs: Keys with other values in the compared study that change the time of an epoch: the time is a guess.
    """

    trials: dict[str, int]
    epochs: dict[str, int]
    seconds: float | None
    wall_seconds: float | None
    at_once: float
    compared: str | None
    compared_trials: int
    scaled: float
    differs: tuple[str, ...] = ()


class CheckBody(Body):
    """The check of a definition's text.

    Args:
        valid: Whether the definition can be launched, as far as it was checked.
        faults: All faults.
        written: Values that the text holds.
        complete: Definition with all defaults; None if there are faults.
        data_checked: Whether the data and the targets were checked as well.
        notes: Sentences about the networks, such as the reachable targets.
        estimate: Cost of the study; None if there are faults.
    """

    valid: bool
    faults: tuple[FaultBody, ...] = ()
    written: dict[str, Any] = Field(default_factory=dict)
    complete: dict[str, Any] | None = None
    data_checked: bool = False
    notes: tuple[str, ...] = ()
    estimate: EstimateBody | None = None


class EditRequest(BaseModel):
    """Changes of a definition's text.

    Args:
        text: Definition as YAML.
        changes: New values by key, such as ``training.epochs``; null removes the key.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(max_length=LONGEST_TEXT)
    changes: dict[str, Any] = Field(min_length=1, max_length=50)

    @model_validator(mode="after")
    def _limited(self) -> Self:
        # Each change reads the text anew: its places depend on the changes before.
        if len(self.changes) * len(self.text) > MOST_READ:
            most = MOST_READ // len(self.text)
            raise ValueError(
                f"{len(self.changes)} changes of a text of {len(self.text)} characters are too many at a time; "
                f"send at most {most}, and the others for the answered text"
            )
        return self


class EditedBody(Body):
    """A changed text of a definition.

    Args:
        text: Text with the new values; all else is as it was written.
    """

    text: str


def faults_from(checked: CheckedText, faults: tuple[Fault, ...]) -> tuple[FaultBody, ...]:
    """Build the bodies of faults of a checked text, with their lines."""
    return tuple(FaultBody(key=fault.key, text=fault.text, line=checked.line_of(fault)) for fault in faults)


def estimate_from(found: Estimate) -> EstimateBody:
    """Build the body of an estimate."""
    return EstimateBody(**{**vars(found), "wall_seconds": found.wall_seconds})
