"""Text forms of figures, times and states on the pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from nas.candidate import Split
from nas.formatting import format_bytes, format_clock, format_count, format_duration, format_moment
from nas.metrics import METRICS

NOTHING = "\u2013"


def count(value: float | None) -> str:
    """Write a large count with three digits and a prefix: ``4.29 M``."""
    return NOTHING if value is None else format_count(value)


def size(value: float | None) -> str:
    """Show a number of bytes with its unit."""
    return NOTHING if value is None else format_bytes(value)


def percent(value: float | None) -> str:
    """Write a fraction as percent: ``93.42``."""
    return NOTHING if value is None else f"{100 * value:.2f}"


def score(value: float | None, metric: str) -> str:
    """Write a value of ``metric`` in the unit of its label."""
    if value is None:
        return NOTHING
    if METRICS[metric].percent:
        return percent(value)
    return count(value) if METRICS[metric].is_count else f"{value:#.4g}"


def split_text(split: Split | None) -> str:
    """Write a split as active channels, all channels and ratio: ``8/32 = 0.25``."""
    return NOTHING if split is None else f"{split.active_channels}/{split.channels} = {split.ratio:.3g}"


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
    return NOTHING if value is None else format_moment(value, UTC)


def clock(value: datetime | None) -> str:
    """Write a time to the second, in UTC, without its day."""
    return NOTHING if value is None else format_clock(value)


def duration(start: datetime | None, end: datetime | None) -> str:
    """Write the time between two moments: ``1 h 05 min``, ``3 min 12 s``, ``8 s``."""
    if start is None or end is None:
        return NOTHING
    return format_duration((end - start).total_seconds())


def seconds(value: float | None) -> str:
    """Write a time in seconds as :func:`duration` does."""
    return NOTHING if value is None else format_duration(value)


def pretty_json(value: Any) -> str:
    """Write JSON over several lines."""
    return json.dumps(value, indent=2)


FILTERS: Mapping[str, Callable[..., str]] = MappingProxyType(
    {
        "bytes": size,
        "count": count,
        "percent": percent,
        "score": score,
        "plain": plain,
        "split_text": split_text,
        "moment": moment,
        "clock": clock,
        "duration": duration,
        "seconds": seconds,
        "pretty_json": pretty_json,
    }
)
