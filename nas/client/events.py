"""Events of a study as the service streams them: server-sent events, read line by line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from nas.errors import NasError


@dataclass(frozen=True)
class ClientEvent:
    """A change of a study.

    Args:
        number: Number of the event within its study; a later stream resumes after it.
        kind: Kind of the change, such as ``epoch``, ``trial`` or ``study``.
        payload: Values that changed.
    """

    number: int
    kind: str
    payload: dict[str, Any] = field(default_factory=dict)


class EventReader:
    """Builds events from the lines of a stream."""

    def __init__(self) -> None:
        self._id, self._kind = "", ""
        self._data: list[str] = []

    def feed(self, line: str) -> ClientEvent | None:
        """Take the next line, without its end; return the event that it completes.

        Raises:
            NasError: If the stream holds something else than numbered events of JSON.
        """
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "id":
                self._id = value
            elif name == "event":
                self._kind = value
            elif name == "data":
                self._data.append(value)
            return None
        data, number, kind = "\n".join(self._data), self._id, self._kind
        self._id, self._kind, self._data = "", "", []
        if not data or not number:
            return None
        try:
            read = json.loads(data)
            return ClientEvent(int(number), kind or "message", read if isinstance(read, dict) else {"value": read})
        except ValueError as error:
            raise NasError(f"the service streamed an event that this version cannot read ({error})") from None
