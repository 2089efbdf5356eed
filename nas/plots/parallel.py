"""Parallel coordinates: a line for each network through its sampled parameters and its metrics.

Plotly's own trace for this needs WebGL, whose code generation the pages' policy forbids. So the lines are drawn as SVG,
a few traces with gaps in them.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import plotly.graph_objects as go

from nas.definition.space import LogUniform, Parameters
from nas.definition.study import StudyDefinition
from nas.errors import InputError
from nas.findings.pareto import ParetoPoint
from nas.formatting import format_parameter, format_short
from nas.metrics import METRICS
from nas.plots.shades import Shades, draw_legend, palette
from nas.plots.style import BESIDE, EDGE, INK, VEIL, empty, layout
from nas.trial import TrialKind

MOST_LINES = 2000
"""Most lines of a figure; of more networks, those near the front and a selection are shown."""
_TICKS = 5
_CROWD = 200
"""Number of lines from which they are drawn half transparent."""
_WIDTHS: Mapping[bool, float] = MappingProxyType({True: 2.5, False: 1.0})


class Axis(NamedTuple):
    """An upright axis.

    Args:
        name: Name of the parameter or metric.
        label: Label without HTML.
        ticks: Places from 0 to 1 with their texts.
    """

    name: str
    label: str
    ticks: tuple[tuple[float, str], ...]


class Line(NamedTuple):
    """The line of a network."""

    number: int
    name: str
    """``3``, or ``3.1`` for the second network of trial 3."""
    places: tuple[float | None, ...]
    """Place from 0 to 1 on each axis; None without a value."""
    texts: tuple[str, ...]
    on_front: bool


class ParallelInfo(NamedTuple):
    """What the figure shows."""

    title: str
    axes: tuple[Axis, ...]
    lines: tuple[Line, ...]
    shades: Shades
    """Values of the metric of the colours, by the name of the network."""
    empty: str
    """Reason why there is nothing to show; "" if there is something."""


def parallel_info(
    definition: StudyDefinition,
    points: Sequence[ParetoPoint],
    parameters: Mapping[int, Parameters],
    color: str | None = None,
    *,
    several: Collection[int] = (),
    title: str = "",
) -> ParallelInfo:
    """Collect what the figure shows: the networks of search trials.

    Args:
        definition: Definition of the study; its sampled parameters and its objectives are the axes.
        points: Networks of the study.
        parameters: Sampled parameters by the number of the trial.
        color: Objective of the colours; None for the first one.
        several: Numbers of the trials with several networks.
        title: Title above the figure.

    Raises:
        InputError: If ``color`` is no objective of the study.
    """
    color = color or definition.objectives[0]
    if color not in definition.objectives:
        raise InputError(f"color: {color!r} is no objective of this study; known: {', '.join(definition.objectives)}")
    kept = [point for point in points if point.kind is TrialKind.SEARCH]
    names = [f"{point.number}.{point.position}" if point.number in several else str(point.number) for point in kept]
    columns = [
        _axis(
            name,
            name,
            [parameters.get(point.number, {}).get(name) for point in kept],
            isinstance(entry, LogUniform),
            format_parameter,
        )
        for name, entry in definition.sampled.items()
    ]
    columns += [_metric_axis(name, [point.values.get(name) for point in kept]) for name in definition.objectives]
    lines = tuple(
        Line(
            point.number,
            name,
            tuple(column[k][0] for _, column in columns),
            tuple(column[k][1] for _, column in columns),
            point.on_front,
        )
        for k, (point, name) in enumerate(zip(kept, names, strict=True))
    )
    scale = 100 if METRICS[color].percent else 1
    colored = {
        name: scale * point.values[color] for point, name in zip(kept, names, strict=True) if color in point.values
    }
    shades = Shades(METRICS[color].label, colored)
    reason = "" if lines else "No search trial has all objectives yet."
    return ParallelInfo(title, tuple(axis for axis, _ in columns), lines, shades, reason)


_Column = list[tuple[float | None, str]]
_Place = Callable[[Any], float]
_Ticks = tuple[tuple[float, str], ...]


def _metric_axis(metric: str, values: Sequence[float | None]) -> tuple[Axis, _Column]:
    return _axis(metric, METRICS[metric].short, values, False, lambda value: format_short(metric, value))


def _axis(
    name: str, label: str, values: Sequence[Any], log: bool, write: Callable[[Any], str]
) -> tuple[Axis, _Column]:
    """Return an axis with the place and the text of each value; texts and truth values are at even distances."""
    present = [value for value in values if value is not None]
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in present):
        place, ticks = _numbers(present, log, write)
    else:
        place, ticks = _texts(present)
    column: _Column = [(None, "\u2013") if value is None else (place(value), write(value)) for value in values]
    return Axis(name, label, ticks), column


def _numbers(values: Sequence[float], log: bool, write: Callable[[Any], str]) -> tuple[_Place, _Ticks]:
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    if low == high:
        return lambda _: 0.5, ((0.5, write(low)),) if values else ()
    if log and low > 0:
        width = math.log(high / low)
        ticks = tuple((k / (_TICKS - 1), write(low * (high / low) ** (k / (_TICKS - 1)))) for k in range(_TICKS))
        return lambda value: math.log(value / low) / width, ticks
    ticks = tuple((k / (_TICKS - 1), write(low + (high - low) * k / (_TICKS - 1))) for k in range(_TICKS))
    return lambda value: (value - low) / (high - low), ticks


def _texts(values: Sequence[object]) -> tuple[_Place, _Ticks]:
    names = sorted({str(value) for value in values})
    places = {name: (k + 0.5) / len(names) for k, name in enumerate(names)}
    return lambda value: places[str(value)], tuple((place, name) for name, place in places.items())


def parallel_figure(info: ParallelInfo) -> go.Figure:
    """Draw the lines, those of the front on top. ``customdata`` of a point is (number, label, name, text)."""
    figure = go.Figure()
    layout(figure, info.title, height=460)
    if info.empty:
        return empty(figure, info.empty)
    colors = palette(info.shades, [line.name for line in info.lines])
    bins: dict[tuple[bool, str, str], list[Line]] = {}
    for line, light, dark in zip(info.lines, colors.light, colors.dark, strict=True):
        bins.setdefault((line.on_front, light, dark), []).append(line)
    for (on_front, light, dark), lines in sorted(bins.items(), key=lambda entry: entry[0][0]):
        figure.add_trace(_trace(info, lines, light, dark, on_front))
    for on_front, name in ((True, "on the front"), (False, "dominated")):
        style = {"color": INK, "width": _WIDTHS[on_front]}
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="lines", line=style, name=name))
    draw_legend(figure, info.shades, colors)
    _draw_axes(figure, info)
    figure.update_layout(legend=dict(BESIDE), hovermode="closest")
    return figure


def _trace(info: ParallelInfo, lines: Sequence[Line], light: str, dark: str, on_front: bool) -> go.Scatter:
    """Return lines of one colour as one trace, with a gap behind each."""
    labels = [html.escape(axis.label) for axis in info.axes]
    gap = [None, None, None, None]
    return go.Scatter(
        x=[x for _ in lines for x in (*range(len(labels)), None)],
        y=[y for line in lines for y in (*(None if p is None else round(p, 4) for p in line.places), None)],
        mode="lines",
        line={"color": light, "width": _WIDTHS[on_front]},
        opacity=1.0 if on_front or len(info.lines) <= _CROWD else 0.5,
        meta={"dark": dark},
        customdata=[
            entry
            for line in lines
            for entry in (
                *([line.number, label, line.name, html.escape(t)] for label, t in zip(labels, line.texts, strict=True)),
                gap,
            )
        ],
        hovertemplate="trial %{customdata[2]}<br>%{customdata[1]}: %{customdata[3]}<extra></extra>",
        showlegend=False,
    )


def _draw_axes(figure: go.Figure, info: ParallelInfo) -> None:
    line = {"color": EDGE, "width": 1}
    axes = [
        {"type": "line", "x0": place, "x1": place, "y0": 0, "y1": 1, "line": line, "layer": "below"}
        for place in range(len(info.axes))
    ]
    note = {"showarrow": False, "font": {"size": 11}, "xanchor": "left", "xshift": 3, "borderpad": 1, "bgcolor": VEIL}
    ticks = [
        {**note, "x": place, "y": height, "text": html.escape(text)}
        for place, axis in enumerate(info.axes)
        for height, text in axis.ticks
    ]
    figure.update_layout(shapes=axes, annotations=ticks)
    figure.update_xaxes(
        side="top",
        tickvals=list(range(len(info.axes))),
        ticktext=[html.escape(axis.label) for axis in info.axes],
        range=[-0.1, len(info.axes) - 0.6],
        showgrid=False,
    )
    figure.update_yaxes(visible=False, range=[-0.04, 1.04])  # each axis has ticks of its own
