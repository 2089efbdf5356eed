"""How figures, times and states are written on the pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from nas.trial import METRICS

NOTHING = "\u2013"
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def count(value: float | None) -> str:
    """Write a large count with three digits and a prefix: ``4.29 M``."""
    if value is None:
        return NOTHING
    for size, prefix in _PREFIXES:
        if abs(value) >= 0.9995 * size:
            return f"{value / size:#.3g} {prefix}".replace(". ", " ")
    return f"{value:.4g}"


def percent(value: float | None) -> str:
    """Write a fraction as percent: ``93.42``."""
    return NOTHING if value is None else f"{100 * value:.2f}"


def score(value: float | None, metric: str) -> str:
    """Write a figure of ``metric`` in the unit of its label."""
    if value is None:
        return NOTHING
    if METRICS[metric].percent:
        return percent(value)
    if METRICS[metric].evaluated or metric == "latency_ms":
        return f"{value:#.4g}"
    return count(value)


def plain(value: Any) -> str:
    """Write a JSON value: a number with five digits, a list with commas, anything else compactly."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items()) or "none"
    return str(value)


def moment(value: datetime | None) -> str:
    """Write a time to the minute, in UTC."""
    return NOTHING if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def duration(start: datetime | None, end: datetime | None) -> str:
    """Write the time between two moments: ``1 h 05 min``, ``3 min 12 s``, ``8 s``."""
    if start is None or end is None:
        return NOTHING
    seconds = max(0, round((end - start).total_seconds()))
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds % 60:02d} s" if minutes else f"{seconds} s"


def pretty_json(value: Any) -> str:
    """Write JSON over several lines."""
    return json.dumps(value, indent=2)


FILTERS: Mapping[str, Callable[..., str]] = MappingProxyType(
    {
        "count": count,
        "percent": percent,
        "score": score,
        "plain": plain,
        "moment": moment,
        "duration": duration,
        "pretty_json": pretty_json,
    }
)
