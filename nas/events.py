"""Events of a study, numbered without gaps. Loads neither torch nor ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Event:
    """A change of a study.

    Args:
        study_id: Id of the study.
        number: Number within the study, from 1, without gaps.
        kind: Kind of the change: ``study``, ``trial``, ``epoch``, ``measurement``, ``evaluation`` or ``job``.
        payload: Data of the change as JSON values.
        created_at: Time of the change in UTC.
    """

    study_id: str
    number: int
    kind: str
    payload: Mapping[str, Any]
    created_at: datetime
