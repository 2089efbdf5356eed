"""Fronts of several studies in one plane: a staircase and marks for each study, or for each search method."""

from __future__ import annotations

import html
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import NamedTuple

import plotly.graph_objects as go

from nas.findings.pareto import ParetoPoint, front_mask
from nas.findings.scores import check_objectives
from nas.metrics import METRICS
from nas.plots.pareto import staircase
from nas.plots.shades import series_style
from nas.plots.style import COLORS, NAMES, SYMBOLS, layout, roomy_range, shown
from nas.study import Study
from nas.trial import LEARNED_KINDS, TrialKind


class FrontsBy(StrEnum):
    """Groups of networks with a front of their own in a figure of several studies."""

    STUDY = "study"
    METHOD = "method"


class FrontMark(NamedTuple):
    """A network in the units of the axes' labels."""

    study_id: str
    study: str
    number: int
    name: str
    """``3``, or ``3.1`` for the second network of trial 3."""
    label: str
    x: float
    y: float
    on_front: bool


class Series(NamedTuple):
    """Networks with a front of their own."""

    name: str
    marks: tuple[FrontMark, ...]
    front: tuple[tuple[float, float], ...]
    """Corners of the staircase, by ascending x."""


class FrontsInfo(NamedTuple):
    """What the figure of several fronts shows."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    baselines: tuple[tuple[TrialKind, tuple[FrontMark, ...]], ...]
    """Uniform and random networks of all studies, by their kind."""
    log: tuple[bool, bool] = (False, False)


class Found(NamedTuple):
    """A study with its networks that have both values."""

    study: Study
    points: Sequence[ParetoPoint]
    several: Collection[int] = ()
    """Numbers of the trials with several networks."""


def fronts_info(
    found: Sequence[Found],
    x: str = "macs",
    y: str = "top1",
    *,
    by: FrontsBy = FrontsBy.STUDY,
    log: tuple[bool, bool] = (False, False),
    title: str = "",
) -> FrontsInfo:
    """Collect what the figure shows. The fronts are those of learned networks, within the constraints.

    Args:
        found: Studies with their points.
        x: Metric of the horizontal axis.
        y: Metric of the vertical axis.
        by: Group of networks with a front of its own.
        log: Whether the horizontal and the vertical axis are logarithmic.
        title: Title above the figure.

    Raises:
        InputError: If a metric is unknown or both axes are the same.
    """
    check_objectives((x, y))
    groups: dict[str, list[tuple[Found, ParetoPoint]]] = {}
    rest: dict[TrialKind, list[FrontMark]] = {}
    for one in found:
        for point in one.points:
            if point.kind in LEARNED_KINDS or point.kind is TrialKind.RETRAIN:
                name = one.study.name if by is FrontsBy.STUDY else one.study.definition.method
                groups.setdefault(name, []).append((one, point))
            else:
                rest.setdefault(point.kind, []).append(_mark(one, point, x, y, on_front=False))
    series = tuple(_series(name, members, x, y) for name, members in groups.items())
    baselines = tuple((kind, tuple(marks)) for kind, marks in rest.items())
    return FrontsInfo(title, METRICS[x].label, METRICS[y].label, series, baselines, log)


def _series(name: str, members: Sequence[tuple[Found, ParetoPoint]], x: str, y: str) -> Series:
    within = [member for member in members if not member[1].broken]
    mask = front_mask([[point.values[x], point.values[y]] for _, point in within], (x, y))
    marks = tuple(_mark(*member, x, y, on_front=flag) for member, flag in zip(within, mask, strict=True))
    front = sorted({(mark.x, mark.y) for mark in marks if mark.on_front})
    return Series(name, marks, staircase(front, x, y))


def _mark(found: Found, point: ParetoPoint, x: str, y: str, *, on_front: bool) -> FrontMark:
    study = found.study
    name = f"{point.number}.{point.position}" if point.number in found.several else str(point.number)
    values = (shown(x, point.values[x]), shown(y, point.values[y]))
    return FrontMark(study.id, study.name, point.number, name, point.label, *values, on_front)


def fronts_figure(info: FrontsInfo) -> go.Figure:
    """Draw the fronts. The ``customdata`` of a mark is (number, label, name of the network, study's id, its name)."""
    figure = go.Figure()
    for place, series in enumerate(info.series):
        color, symbol = series_style(place)
        figure.add_trace(
            go.Scatter(
                x=[x for x, _ in series.front],
                y=[y for _, y in series.front],
                mode="lines",
                line={"color": color, "width": 1.5},
                legendgroup=series.name,
                showlegend=False,
                hoverinfo="skip",
            )
        )
        figure.add_trace(_trace(info, series.marks, series.name, color, symbol))
    for kind, marks in info.baselines:
        figure.add_trace(_trace(info, marks, NAMES[kind], COLORS[kind], SYMBOLS[kind]))
    layout(figure, info.title)
    every = [mark for series in info.series for mark in series.marks]
    every += [mark for _, marks in info.baselines for mark in marks]
    for update, label, log, values in (
        (figure.update_xaxes, info.x_label, info.log[0], [mark.x for mark in every]),
        (figure.update_yaxes, info.y_label, info.log[1], [mark.y for mark in every]),
    ):
        update(title=label, type="log" if log else "linear", range=None if log else roomy_range(values))
    if not every:
        figure.add_annotation(text="no scored trials yet", showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5)
    return figure


def _trace(info: FrontsInfo, marks: Sequence[FrontMark], name: str, color: str, symbol: str) -> go.Scatter:
    return go.Scatter(
        x=[mark.x for mark in marks],
        y=[mark.y for mark in marks],
        mode="markers",
        name=html.escape(name),
        legendgroup=name,
        customdata=[[mark.number, mark.label, mark.name, mark.study_id, mark.study] for mark in marks],
        marker={"symbol": symbol, "size": 9, "color": color},
        hovertemplate=(
            "%{customdata[4]}, trial %{customdata[2]} (%{customdata[1]})<br>"
            f"{info.x_label}: %{{x:,.6~g}}<br>{info.y_label}: %{{y:.4~g}}<extra></extra>"
        ),
    )
