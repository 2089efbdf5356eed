"""Bodies of events. Loads neither torch nor ray."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from nas.wire.bodies import Body


class EventBody(Body):
    """A change of a study.

    Args:
        number: Number within the study, from 1, without gaps.
        kind: Kind of the change: ``study``, ``trial``, ``epoch``, ``front``, ``measurement``, ``evaluation``, ``job``.
        at: Time of the change.
        facts: Content of the change.
    """

    number: int
    kind: str
    at: datetime
    facts: dict[str, Any]


class EventList(Body):
    """A page of the events of a study.

    Args:
        last: Number of the last event of the page, to ask for those after it.
        newest: Number of the newest event of the study.
    """

    events: tuple[EventBody, ...]
    count: int
    last: int
    newest: int = 0
