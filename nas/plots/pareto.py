"""The front: one metric against another, a mark for each candidate, a staircase for the front."""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import plotly.graph_objects as go

from nas.definition.space import Parameters
from nas.findings.pareto import ParetoPoint, front_mask
from nas.findings.scores import check_objectives
from nas.formatting import format_parameter, format_short
from nas.metrics import METRICS, Direction, listed_metrics
from nas.plots.shades import Palette, Shades, draw_legend, palette
from nas.plots.style import BESIDE, COLORS, FRONT, INK, NAMES, SYMBOLS, layout, roomy_range, shown
from nas.trial import TrialKind

_MOST_PARAMETERS = 6
_BOTTOM_TO_TOP = (TrialKind.RANDOM, TrialKind.SEARCH, TrialKind.CHEAPER, TrialKind.RETRAIN, TrialKind.BASELINE)
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
    position: int | None = None
    """Index of the network if its trial has several."""
    facts: tuple[str, ...] = ()
    """Further values for the hover text, in the order of :attr:`ParetoInfo.facts`."""

    @property
    def name(self) -> str:
        """``3``, or ``3.1`` for the second network of trial 3."""
        return str(self.number) if self.position is None else f"{self.number}.{self.position}"


@dataclass(frozen=True)
class Look:
    """Colours, scales and hover texts of a front.

    Args:
        parameters: Sampled parameters by the number of the trial, for the hover text.
        several: Numbers of the trials with several networks.
        shades: Meaning of the colours, by trial and position of the network; None for the kind of the trial.
        log_x: Whether the horizontal axis is logarithmic.
        log_y: Whether the vertical axis is logarithmic.
    """

    parameters: Mapping[int, Parameters] = field(default_factory=dict)
    several: Collection[int] = ()
    shades: Shades | None = None
    log_x: bool = False
    log_y: bool = False


class ParetoInfo(NamedTuple):
    """What a front's figure shows."""

    title: str
    x_label: str
    y_label: str
    marks: tuple[ParetoMark, ...]
    front: tuple[tuple[float, float], ...]
    """Corners of the staircase, by ascending x."""
    facts: tuple[str, ...] = ()
    """Names of the further values in the hover text."""
    shades: Shades | None = None
    colors: Palette | None = None
    """Colours of the marks, in their order, if they do not follow the kinds."""
    log: tuple[bool, bool] = (False, False)


def pareto_info(
    points: Sequence[ParetoPoint], x: str = "macs", y: str = "top1", *, title: str = "", look: Look | None = None
) -> ParetoInfo:
    """Collect what the figure of ``points`` shows; the front is computed for the two axes, within the constraints.

    Args:
        points: Points of the study; those without one of the two metrics are left out.
        x: Metric of the horizontal axis.
        y: Metric of the vertical axis.
        title: Title above the figure.
        look: Colours, scales and hover texts; None for the usual ones.

    Raises:
        InputError: If a metric is unknown or both axes are the same.
    """
    check_objectives((x, y))
    look = look or Look()
    kept = [point for point in points if x in point.values and y in point.values]
    within = [point for point in kept if not point.broken]
    mask = front_mask([[point.values[x], point.values[y]] for point in within], (x, y))
    front_points = {id(point) for point, flag in zip(within, mask, strict=True) if flag}
    metrics, parameters = _facts(kept, look.parameters, (x, y))
    marks = tuple(
        _mark(point, (x, y), id(point) in front_points, look, (metrics, parameters)) for point in kept
    )
    front = sorted({(mark.x, mark.y) for mark in marks if mark.on_front})
    colors = look.shades and palette(look.shades, [(point.number, point.position) for point in kept])
    return ParetoInfo(
        title,
        _axis_label(x, look.log_x, [mark.x for mark in marks]),
        _axis_label(y, look.log_y, [mark.y for mark in marks]),
        marks,
        staircase(front, x, y),
        (*(METRICS[metric].short for metric in metrics), *parameters),
        look.shades,
        colors,
        (look.log_x, look.log_y),
    )


def _mark(
    point: ParetoPoint, axes: tuple[str, str], on_front: bool, look: Look, facts: tuple[Sequence[str], Sequence[str]]
) -> ParetoMark:
    x, y = axes
    metrics, parameters = facts
    sampled = look.parameters.get(point.number, {})
    return ParetoMark(
        point.number,
        point.label,
        point.kind,
        point.architecture_id,
        shown(x, point.values[x]),
        shown(y, point.values[y]),
        on_front,
        point.position if point.number in look.several else None,
        tuple(_written(name, point.values.get(name)) for name in metrics)
        + tuple(_plain(sampled.get(name)) for name in parameters),
    )


def _facts(
    points: Sequence[ParetoPoint], parameters: Mapping[int, Parameters], axes: tuple[str, str]
) -> tuple[list[str], list[str]]:
    """Return the metrics and the parameters that the hover text names besides the axes."""
    metrics = [m for m in listed_metrics() if m not in axes and any(m in point.values for point in points)]
    searched = [parameters.get(point.number, {}) for point in points if point.kind is TrialKind.SEARCH]
    names = list(dict.fromkeys(name for values in searched for name in values))
    return metrics, names[:_MOST_PARAMETERS]


def _written(metric: str, value: float | None) -> str:
    return "\u2013" if value is None else format_short(metric, value)


def _plain(value: object) -> str:
    return "\u2013" if value is None else html.escape(format_parameter(value))


def _axis_label(metric: str, log: bool, values: Sequence[float]) -> str:
    """Return the label of an axis; a logarithmic one says how many marks it cannot show."""
    lost = sum(value <= 0 for value in values) if log else 0
    return METRICS[metric].label + (f" \u2013 {lost} at 0 or below are not shown" if lost else "")


def staircase(front: Sequence[tuple[float, float]], x: str, y: str) -> tuple[tuple[float, float], ...]:
    """Return the border of the dominated region: between two neighbours it runs through their worse corner."""
    worse_x = min if METRICS[x].direction is Direction.MAXIMIZE else max
    worse_y = min if METRICS[y].direction is Direction.MAXIMIZE else max
    corners = list(front[:1])
    for before, after in pairwise(front):
        corners += [(worse_x(before[0], after[0]), worse_y(before[1], after[1])), after]
    return tuple(corners)


def pareto_figure(info: ParetoInfo) -> go.Figure:
    """Draw a front. The ``customdata`` of a mark is (trial number, label, name of the network, facts ...)."""
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
        places = [place for place, mark in enumerate(info.marks) if mark.kind is kind]
        if places:
            figure.add_trace(_trace(kind, places, info))
    layout(figure, info.title)
    if info.shades is not None and info.colors is not None:
        _draw_shades(figure, info, info.shades, info.colors)
    _draw_axes(figure, info)
    if not info.marks:
        figure.add_annotation(text="no scored trials yet", showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5)
    return figure


def _draw_axes(figure: go.Figure, info: ParetoInfo) -> None:
    xs, ys = [mark.x for mark in info.marks], [mark.y for mark in info.marks]
    for update, title, log, values in (
        (figure.update_xaxes, info.x_label, info.log[0], xs),
        (figure.update_yaxes, info.y_label, info.log[1], ys),
    ):
        ends = roomy_range([value for value in values if value > 0 or not log])
        if ends is not None and log:
            ends = [math.log10(end) for end in ends]
        update(title=title, range=ends, type="log" if log else "linear", **({"minor_ticks": "outside"} if log else {}))


def _draw_shades(figure: go.Figure, info: ParetoInfo, shades: Shades, colors: Palette) -> None:
    """Replace the legend's entries of kinds, whose marks have several colours, and add one of the values."""
    for kind in _BOTTOM_TO_TOP:
        if any(mark.kind is kind for mark in info.marks):
            marker = {"symbol": SYMBOLS[kind], "size": 10, "color": INK}
            figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=NAMES[kind]))
    draw_legend(figure, shades, colors)
    figure.update_layout(legend=dict(BESIDE))


def _trace(kind: TrialKind, places: Sequence[int], info: ParetoInfo) -> go.Scatter:
    marks = [info.marks[place] for place in places]
    colors = info.colors
    facts = "".join(f"<br>{html.escape(name)}: %{{customdata[{k}]}}" for k, name in enumerate(info.facts, start=3))
    return go.Scatter(
        x=[mark.x for mark in marks],
        y=[mark.y for mark in marks],
        mode="markers",
        name=NAMES[kind],
        showlegend=None if colors is None else False,
        customdata=[[mark.number, mark.label, mark.name, *mark.facts] for mark in marks],
        meta=None if colors is None else {"dark": [colors.dark[place] for place in places]},
        marker={
            "symbol": SYMBOLS[kind],
            "size": 6 if len(marks) > _CROWD else 10,
            "color": COLORS[kind] if colors is None else [colors.light[place] for place in places],
            "opacity": 1.0 if colors is not None else [1.0 if mark.on_front else 0.45 for mark in marks],
            "line": {"width": [2 if mark.on_front else 0 for mark in marks], "color": FRONT},
        },
        hovertemplate=(
            "trial %{customdata[2]} (%{customdata[1]})<br>"
            f"{info.x_label}: %{{x:,.6~g}}<br>{info.y_label}: %{{y:.4~g}}{facts}<extra></extra>"
        ),
    )
