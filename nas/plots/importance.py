"""The importance of each sampled parameter for each objective, beside what chance reaches."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from nas.findings.importance import Importances
from nas.metrics import METRICS
from nas.plots.shades import series_style
from nas.plots.style import INK, empty, layout


class ImportanceInfo(NamedTuple):
    """What the figure shows."""

    title: str
    parameters: tuple[str, ...]
    """Parameters, the most important one for the first objective first."""
    bars: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...]
    """Label of each objective with the shares of the parameters, and with those of chance, in percent."""
    empty: str
    """Reason why there is nothing to show; "" if there is something."""


def importance_info(found: Importances, *, title: str = "") -> ImportanceInfo:
    """Collect what the figure of ``found`` shows."""
    objectives = list(found.shares)
    parameters = tuple(found.shares[objectives[0]]) if objectives else ()
    bars = tuple(
        (
            METRICS[name].quantity,
            tuple(100 * found.shares[name][parameter].value for parameter in parameters),
            tuple(100 * found.shares[name][parameter].chance for parameter in parameters),
        )
        for name in objectives
    )
    return ImportanceInfo(title, parameters, bars, found.reason)


def importance_figure(info: ImportanceInfo) -> go.Figure:
    """Draw a bar for each parameter and objective, with a line at the share that chance reaches."""
    figure = go.Figure()
    layout(figure, info.title, height=140 + 30 * max(2, len(info.parameters)) * max(1, len(info.bars)))
    if info.empty:
        return empty(figure, info.empty)
    count = len(info.bars)
    height = 0.8 / count
    names = [html.escape(name) for name in info.parameters]
    for place, (label, shares, chance) in enumerate(info.bars):
        rows = [row + (place - (count - 1) / 2) * height for row in range(len(names))]
        figure.add_trace(_bars(label, place, rows, height, shares, chance, names))
        figure.add_trace(_chance(rows, height, chance, named=place == 0))
    figure.update_xaxes(title="share of the importance (%)", rangemode="tozero")
    figure.update_yaxes(
        title="parameter",
        tickvals=list(range(len(names))),
        ticktext=names,
        range=[len(names) - 0.5, -0.5],  # the first one on top
        showgrid=False,
        automargin=True,
    )
    figure.update_layout(barmode="overlay")
    return figure


def _bars(
    label: str,
    place: int,
    rows: Sequence[float],
    height: float,
    shares: Sequence[float],
    chance: Sequence[float],
    names: Sequence[str],
) -> go.Bar:
    return go.Bar(
        orientation="h",
        y=list(rows),
        x=list(shares),
        width=0.9 * height,
        name=label,
        marker={"color": series_style(place)[0]},
        customdata=[[name, level] for name, level in zip(names, chance, strict=True)],
        hovertemplate=(
            f"%{{customdata[0]}} for {label}: %{{x:.1f}} %<br>chance reaches %{{customdata[1]:.1f}} %<extra></extra>"
        ),
    )


def _chance(rows: Sequence[float], height: float, chance: Sequence[float], *, named: bool) -> go.Scatter:
    """Return a short upright line across each bar."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    for row, level in zip(rows, chance, strict=True):
        xs += [level, level, None]
        ys += [row - 0.45 * height, row + 0.45 * height, None]
    return go.Scatter(
        x=xs,
        y=ys,
        mode="lines",
        line={"color": INK, "width": 2},
        name="chance (1 in 10)",
        legendgroup="chance",
        showlegend=named,
        hoverinfo="skip",
    )
