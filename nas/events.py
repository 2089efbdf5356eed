"""What happened to a study, numbered without gaps within it. No torch, no ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Event:
    """A change of a study.

    Args:
        study_id: Whose.
        number: From 1, without gaps.
        kind: ``study``, ``trial``, ``epoch``, ``measurement``, ``evaluation`` or ``job``.
        payload: What changed: JSON values.
        created_at: UTC.
    """

    study_id: str
    number: int
    kind: str
    payload: Mapping[str, Any]
    created_at: datetime
