"""Published accuracy against the speed measured here: a line for each family of networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from nas.bench.table import Passes, Row
from nas.plots.style import BESIDE, COLORS, FRONT, empty, layout
from nas.trial import TrialKind

_STRONG: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"PartialNet": (FRONT, "circle"), "FasterNet": (COLORS[TrialKind.SEARCH], "square")}
)
"""Names of our family and of the family that it extends, with colour and symbol."""
_COLORS = ("#047857", "#b45309", "#a21caf", "#0e7490", "#6b7280", "#65a30d", "#be185d", "#4338ca", "#ca8a04", "#0f172a")
_SYMBOLS = ("diamond", "triangle-up", "x", "cross", "triangle-down", "pentagon", "star")


class Mark(NamedTuple):
    """A network: its published accuracy in percent, and its measured speed."""

    network: str
    family: str
    top1: float
    images_per_second: float
    latency_ms: float


class ComparisonInfo(NamedTuple):
    """What the figure shows."""

    title: str
    marks: tuple[Mark, ...]
    throughput_label: str
    latency_label: str


def comparison_info(rows: Sequence[Row], *, title: str = "") -> ComparisonInfo:
    """Collect what the figure shows: the networks with both a measured throughput and a measured latency."""
    measured: list[tuple[Row, Passes, Passes]] = [
        (row, row.throughput, row.latency) for row in rows if row.throughput is not None and row.latency is not None
    ]
    marks = tuple(
        Mark(
            row.published.network,
            row.published.family,
            row.published.top1_percent,
            throughput.images_per_second,
            latency.median,
        )
        for row, throughput, latency in measured
    )
    batch = f", batch {measured[0][1].batch}" if measured else ""
    return ComparisonInfo(title, marks, f"throughput{batch} (images/s)", "latency, batch 1 (ms)")


def comparison_figure(info: ComparisonInfo) -> go.Figure:
    """Draw accuracy against throughput, and against latency beside it; both speed axes are logarithmic."""
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.04)
    layout(figure, info.title, height=560)
    if not info.marks:
        return empty(figure, "no network has been measured yet")
    # Our networks are drawn last, on top of the others.
    families = sorted({mark.family for mark in info.marks}, key=lambda name: (name in _STRONG, name))
    for index, family in enumerate(families):
        marks = sorted((mark for mark in info.marks if mark.family == family), key=lambda mark: mark.top1)
        figure.add_trace(_trace(marks, [mark.images_per_second for mark in marks], index, legend=True), row=1, col=1)
        figure.add_trace(_trace(marks, [mark.latency_ms for mark in marks], index, legend=False), row=1, col=2)
    figure.update_xaxes(type="log", dtick="D2")
    figure.update_xaxes(title=info.throughput_label, col=1)
    figure.update_xaxes(title=info.latency_label, col=2)
    figure.update_yaxes(title="published top-1 on ImageNet-1k (%)", col=1)
    figure.update_layout(legend={**BESIDE, "traceorder": "reversed"})
    return figure


def _trace(marks: Sequence[Mark], xs: Sequence[float], index: int, *, legend: bool) -> go.Scatter:
    family = marks[0].family
    strong = family in _STRONG
    color, symbol = _STRONG.get(family, (_COLORS[index % len(_COLORS)], _SYMBOLS[index % len(_SYMBOLS)]))
    return go.Scatter(
        x=list(xs),
        y=[mark.top1 for mark in marks],
        mode="lines+markers",
        name=family,
        legendgroup=family,
        showlegend=legend,
        line={"color": color, "width": 2.5 if strong else 1},
        marker={"color": color, "symbol": symbol, "size": 9 if strong else 7},
        opacity=1.0 if strong else 0.65,
        customdata=[[mark.network] for mark in marks],
        hovertemplate="%{customdata[0]}<br>%{x:.4~g}, %{y:.1f} %<extra></extra>",
    )
