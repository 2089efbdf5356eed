"""Bodies of parts of a trial: the splits of its layers, its epochs, its log. Loads neither torch nor ray."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from nas.wire.bodies import Body, EpochBody, SplitBody


class SplitsBody(Body):
    """The splits of a trial's network by layer.

    Args:
        position: Index of the network within the trial.
        splits: Splits in forward order.
    """

    number: int
    position: int
    architecture_id: str
    splits: tuple[SplitBody, ...]


class HistoryBody(Body):
    """The reports of a trial after its epochs."""

    number: int
    epochs: tuple[EpochBody, ...]
    count: int


class LogLineBody(Body):
    """A line of a trial's log: a recorded change.

    Args:
        event: Number of the event within the study.
        at: Time of the change.
        kind: Kind of the change: ``trial``, ``place``, ``epoch`` or ``evaluation``.
        facts: Content of the change.
    """

    event: int
    at: datetime
    kind: str
    facts: dict[str, Any]


class LogBody(Body):
    """The recorded changes of a trial, the first one first."""

    number: int
    lines: tuple[LogLineBody, ...]
    count: int
