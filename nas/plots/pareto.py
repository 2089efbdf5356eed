"""The front: one metric against another, a mark for each candidate, a staircase for the front."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import plotly.graph_objects as go

from nas.findings.pareto import ParetoPoint, front_mask
from nas.findings.scores import check_objectives
from nas.metrics import METRICS, Direction
from nas.plots.style import COLORS, FRONT, NAMES, SYMBOLS, layout, roomy_range, shown
from nas.trial import TrialKind

_SHORT = 12
_BOTTOM_TO_TOP = (TrialKind.RANDOM, TrialKind.SEARCH, TrialKind.RETRAIN, TrialKind.BASELINE)
"""Order of drawing: the few baselines must not vanish beneath a crowd."""
_CROWD = 200
"""Number of marks of one kind from which they are drawn smaller."""


class ParetoMark(NamedTuple):
    """One candidate in the units of the axes' labels."""

    number: int
    label: str
    kind: TrialKind
    architecture_id: str
    x: float
    y: float
    on_front: bool


class ParetoInfo(NamedTuple):
    """What a front's figure shows."""

    title: str
    x_label: str
    y_label: str
    marks: tuple[ParetoMark, ...]
    front: tuple[tuple[float, float], ...]
    """Corners of the staircase, by ascending x."""


def pareto_info(points: Sequence[ParetoPoint], x: str = "macs", y: str = "top1", *, title: str = "") -> ParetoInfo:
    """Collect what the figure of ``points`` shows; the front is computed for the two axes, within the constraints.

    Args:
        points: Points of the study; those without one of the two metrics are left out.
        x: Metric of the horizontal axis.
        y: Metric of the vertical axis.
        title: Title above the figure.

    Raises:
        InputError: If a metric is unknown or both axes are the same.
    """
    check_objectives((x, y))
    kept = [point for point in points if x in point.values and y in point.values]
    within = [point for point in kept if not point.broken]
    mask = front_mask([[point.values[x], point.values[y]] for point in within], (x, y))
    front_points = {id(point) for point, flag in zip(within, mask, strict=True) if flag}
    marks = tuple(
        ParetoMark(
            point.number,
            point.label,
            point.kind,
            point.architecture_id,
            shown(x, point.values[x]),
            shown(y, point.values[y]),
            id(point) in front_points,
        )
        for point in kept
    )
    front = sorted({(mark.x, mark.y) for mark in marks if mark.on_front})
    return ParetoInfo(title, METRICS[x].label, METRICS[y].label, marks, staircase(front, x, y))


def staircase(front: Sequence[tuple[float, float]], x: str, y: str) -> tuple[tuple[float, float], ...]:
    """Return the border of the dominated region: between two neighbours it runs through their worse corner."""
    worse_x = min if METRICS[x].direction is Direction.MAXIMIZE else max
    worse_y = min if METRICS[y].direction is Direction.MAXIMIZE else max
    corners = list(front[:1])
    for before, after in pairwise(front):
        corners += [(worse_x(before[0], after[0]), worse_y(before[1], after[1])), after]
    return tuple(corners)


def pareto_figure(info: ParetoInfo) -> go.Figure:
    """Draw a front. The ``customdata`` of a mark is (trial number, label, start of the architecture's id)."""
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=[x for x, _ in info.front],
            y=[y for _, y in info.front],
            mode="lines",
            name="front",
            line={"color": FRONT, "width": 1.5},
            hoverinfo="skip",
        )
    )
    for kind in _BOTTOM_TO_TOP:
        marks = [mark for mark in info.marks if mark.kind is kind]
        if marks:
            figure.add_trace(_trace(kind, marks, info))
    layout(figure, info.title)
    figure.update_xaxes(title=info.x_label, range=roomy_range([mark.x for mark in info.marks]))
    figure.update_yaxes(title=info.y_label, range=roomy_range([mark.y for mark in info.marks]))
    if not info.marks:
        figure.add_annotation(text="no scored trials yet", showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5)
    return figure


def _trace(kind: TrialKind, marks: Sequence[ParetoMark], info: ParetoInfo) -> go.Scatter:
    return go.Scatter(
        x=[mark.x for mark in marks],
        y=[mark.y for mark in marks],
        mode="markers",
        name=NAMES[kind],
        customdata=[[mark.number, mark.label, mark.architecture_id[:_SHORT]] for mark in marks],
        marker={
            "symbol": SYMBOLS[kind],
            "size": 6 if len(marks) > _CROWD else 10,
            "color": COLORS[kind],
            "opacity": [1.0 if mark.on_front else 0.45 for mark in marks],
            "line": {"width": [2 if mark.on_front else 0 for mark in marks], "color": FRONT},
        },
        hovertemplate=(
            "trial %{customdata[0]} (%{customdata[1]})<br>"
            f"{info.x_label}: %{{x:,.6~g}}<br>{info.y_label}: %{{y:.4~g}}<extra></extra>"
        ),
    )
