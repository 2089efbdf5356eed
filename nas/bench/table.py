"""Published and measured figures side by side: the rows of the comparison, as text and as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nas.bench.published import MODELS, Published
from nas.bench.results import Line, Results, What
from nas.formatting import format_number
from nas.probes.timing import median_interval, quantile

_HELD_UP = 0.9
"""Least share of a pass's time in which the processor should have worked for one thread."""


class Passes(NamedTuple):
    """Summary of the times of passes, in milliseconds."""

    n: int
    batch: int
    median: float
    p90: float
    low: float
    """Lower end of the 95 % interval of the median."""
    high: float
    busy: float
    """Median processor time of a pass over all threads; it excludes delays by other work on the machine."""

    @property
    def images_per_second(self) -> float:
        """Images per second at the median."""
        return 1e3 * self.batch / self.median

    @property
    def spread(self) -> float:
        """Half the width of the interval, divided by the median."""
        return (self.high - self.low) / (2 * self.median)


class Row(NamedTuple):
    """One network of the comparison."""

    published: Published
    model: str
    """Name in timm's registry; "" if neither we nor timm have it."""
    size: int | None
    """Height and width of its images in pixels."""
    counts: Mapping[str, float]
    latency: Passes | None
    throughput: Passes | None


def make_rows(published: Sequence[Published], results: Results, *, processor_time: bool = False) -> list[Row]:
    """Return the comparison with all figures measured so far.

    Args:
        published: Rows of the papers' table.
        results: Measured figures.
        processor_time: Whether times are the processor's own instead of the clock's.
    """
    clock = "busy_ms" if processor_time else "ms"
    size = results.circumstances["size"]
    rows = []
    for entry in published:
        lines = [line for line in results.lines if line.network == entry.network]
        model = MODELS.get(entry.network)
        counts: Mapping[str, Any] = next((line.figures for line in lines if line.what == "counts"), {})
        rows.append(
            Row(
                entry,
                "" if model is None else model.name,
                None if model is None else size or model.size,
                counts,
                _passes(lines, "latency", clock),
                _passes(lines, "throughput", clock),
            )
        )
    return rows


def _passes(lines: Sequence[Line], what: What, clock: str) -> Passes | None:
    found = [line.figures for line in lines if line.what == what]
    times = sorted(ms for figures in found for ms in figures[clock])
    if not times:
        return None
    low, high = median_interval(times)
    busy = sorted(ms for figures in found for ms in figures["busy_ms"])
    middle, p90 = quantile(times, 0.5), quantile(times, 0.9)
    return Passes(len(times), found[0]["batch"], middle, p90, low, high, quantile(busy, 0.5))


HEADS = (
    "network", "pixels", "params M", "(papers)", "FLOPs G", "as papers", "(papers)", "ms", "(CPU)", "images/s",
    "(V100)", "(MI250)", "(top-1 %)",
)  # fmt: skip
"""Heads of a text table; brackets mark the papers' figures."""


def row_texts(row: Row) -> tuple[str, ...]:
    """Return a row as text, in the order of :data:`HEADS`."""
    papers, counts = row.published, row.counts
    return (
        papers.network,
        "-" if row.size is None else str(row.size),
        f"{counts['params'] / 1e6:.2f}" if counts else "-",
        f"{papers.params_m:.1f}",
        f"{counts['macs'] / 1e9:.3f}" if counts else "-",
        f"{counts['macs_papers'] / 1e9:.3f}" if counts else "-",
        f"{papers.flops_g:.2f}",
        "-" if row.latency is None else f"{row.latency.median:.2f}",
        f"{papers.latency_cpu_ms:.1f}",
        "-" if row.throughput is None else f"{row.throughput.images_per_second:.1f}",
        f"{papers.throughput_v100_fps:,.0f}",
        f"{papers.throughput_mi250_fps:,.0f}",
        f"{papers.top1_percent:.1f}",
    )


def sentences(rows: Sequence[Row], circumstances: Mapping[str, Any]) -> list[str]:
    """Return the table's footnotes: machine, settings, sample counts, uncertainty, missing rows."""
    said = [
        f"measured on {_where(circumstances)}; {circumstances['runtime']}, {circumstances['precision']}, "
        f"throughput at batch {circumstances['batch']}, latency at batch 1; random weights, inference form "
        "(networks of timm as it builds them); in brackets the papers' figures",
    ]
    for name, passes in (
        ("latency", [row.latency for row in rows if row.latency]),
        ("throughput", [row.throughput for row in rows if row.throughput]),
    ):
        if passes:
            low, high = min(entry.n for entry in passes), max(entry.n for entry in passes)
            spreads = sorted(entry.spread for entry in passes)
            said.append(
                f"{name}: medians of n = {low if low == high else f'{low} to {high}'} passes in "
                f"{format_number(circumstances['rounds'], 'round')}; half the 95 % interval of the median is "
                f"{100 * quantile(spreads, 0.5):.1f} % of it for the middle network, {100 * spreads[-1]:.1f} % at most"
            )
    shares = sorted(row.latency.busy / row.latency.median for row in rows if row.latency)
    if shares and circumstances["device"] == "cpu" and circumstances["threads"] == 1 and shares[0] < _HELD_UP:
        said.append(
            f"other work held the processor: the middle network had it for "
            f"{100 * quantile(shares, 0.5):.0f} % of a pass, so times are too long; --processor-time excludes that"
        )
    absent = [row.published.network for row in rows if not row.model]
    if absent:
        said.append(f"published figures only, since timm lacks them: {', '.join(absent)}")
    return said


def _where(circumstances: Mapping[str, Any]) -> str:
    threads = circumstances["threads"]
    used = f", {threads} thread{'s' if threads > 1 else ''}" if circumstances["device"] == "cpu" else ""
    versions = ", ".join(f"{name} {number}" for name, number in circumstances["versions"].items())
    return f"{circumstances['device_name']}{used} ({versions})"


def csv_rows(rows: Sequence[Row], circumstances: Mapping[str, Any]) -> list[list[object]]:
    """Return the head and the rows in full: the published columns unchanged, then ours."""
    times = [
        f"{name}_{field}"
        for name in ("latency", "throughput")
        for field in ("batch", "n", "median_ms", "p90_ms", "low_ms", "high_ms", "busy_ms")
    ]
    counted = ["params", "params_inference", "macs", "macs_papers"]
    settings = ["device_name", "device", "runtime", "precision", "threads", "rounds"]
    head: list[object] = [
        *Published._fields, "model", "size", *counted, *times, "images_per_second", *settings, "versions"
    ]  # fmt: skip
    body: list[list[object]] = [head]
    versions = " ".join(f"{name}={number}" for name, number in circumstances["versions"].items())
    for row in rows:
        rate = "" if row.throughput is None else row.throughput.images_per_second
        body.append(
            [
                *row.published[:2],
                *(f"{value:g}" for value in row.published[2:]),
                row.model,
                "" if row.size is None else row.size,
                *(row.counts.get(name, "") for name in counted),
                *_fields(row.latency),
                *_fields(row.throughput),
                rate,
                *(circumstances[name] for name in settings),
                versions,
            ]
        )
    return body


def _fields(passes: Passes | None) -> list[object]:
    if passes is None:
        return [""] * 7
    return [passes.batch, passes.n, passes.median, passes.p90, passes.low, passes.high, passes.busy]
