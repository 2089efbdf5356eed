"""Figures as text for people: the one place for digits, prefixes and units of time. Loads neither torch nor ray."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo

from nas.metrics import METRICS, Measurement

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def format_count(value: float, digits: int = 3) -> str:
    """Return a count with ``digits`` significant digits and a prefix, such as ``4.29 M``."""
    for size, prefix in _PREFIXES:
        if abs(value) >= (1 - 0.5 * 10**-digits) * size:
            text = f"{value / size:#.{digits}g}"
            return f"{text.removesuffix('.')} {prefix}"
    return f"{value:.4g}"


def format_bytes(count: float) -> str:
    """Write a number of bytes with a binary prefix: ``512 B``, ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def format_number(count: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 trial``, ``3 trials``, ``2 searches``."""
    return f"{count} {singular if count == 1 else plural or singular + 's'}"


def format_duration(seconds: float) -> str:
    """Return a duration such as ``45 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_clock(moment: datetime) -> str:
    """Return the time of a day to the second, in UTC: ``14:05:09 UTC``."""
    return moment.astimezone(UTC).strftime("%H:%M:%S UTC")


def format_moment(moment: datetime, zone: tzinfo | None = None) -> str:
    """Return a point in time to the minute, with its zone: ``2026-03-01 14:05 CET``.

    Args:
        moment: Point in time that has a zone.
        zone: Zone of the text; None for that of this machine.
    """
    return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M %Z")


def format_value(metric: str, value: float) -> str:
    """Return a stored value in full: percent for fractions, whole numbers with separators."""
    facts = METRICS[metric]
    return f"{value:,.0f}" if facts.is_count else f"{100 * value if facts.percent else value:.{facts.digits}f}"


def format_short(metric: str, value: float) -> str:
    """Return a stored value for a narrow column: as :func:`format_value`, but counts get a prefix."""
    return format_count(value, digits=4) if METRICS[metric].is_count else format_value(metric, value)


def format_metric(metric: str, value: float) -> str:
    """Return a value with its name and unit for a sentence, such as ``top-1 93.89 %``, ``1.280 M macs`` or
    ``4.512 ms``.
    """
    if METRICS[metric].percent:
        return f"{METRICS[metric].short.removesuffix(' %')} {format_value(metric, value)} %"
    if metric.endswith("_ms"):
        return f"{format_value(metric, value)} ms{' by the table' if metric == 'predicted_ms' else ''}"
    return f"{format_count(value, digits=4)} {metric}"


def format_parameter(value: object) -> str:
    """Return a sampled parameter as text."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def circumstances(item: Measurement) -> str:
    """Return the circumstances that a measurement depends on, and the operations that it leaves out."""
    if "interval" in item.figures:
        low, high = item.figures["interval"]
        spread = f"95 % interval {low:.3f} to {high:.3f}, p90 {item.figures['p90']:.3f}"
        uncertain = "".join(f"; uncertain: {fault}" for fault in item.figures.get("faults", ()))
        return f"median of {item.figures.get('n')}, {spread}; {item.fingerprint}{uncertain}"
    if item.figures.get("uncounted"):
        names = (f"{name.removeprefix('aten::')} x{count}" for name, count in item.figures["uncounted"].items())
        return f"{item.fingerprint}; not counted: {', '.join(names)}"
    return item.fingerprint
