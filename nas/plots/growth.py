"""How the hypervolume of a study grew with its trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from nas.findings.growth import Growth
from nas.metrics import METRICS
from nas.plots.style import COLORS, empty, layout
from nas.trial import TrialKind

_TIMES = " \N{MULTIPLICATION SIGN} "


class GrowthInfo(NamedTuple):
    """What the figure shows."""

    title: str
    unit: str
    """Product of the objectives, in which the hypervolume is measured."""
    steps: tuple[tuple[int, float, int], ...]
    """Trials with a result until each growth, hypervolume afterwards, and number of the trial that made it grow."""
    results: int
    """Trials with a result until now."""


def growth_info(
    growths: Sequence[Growth], objectives: Sequence[str], results: int, *, title: str = ""
) -> GrowthInfo:
    """Collect what the figure of ``growths`` shows.

    Args:
        growths: Growths of the hypervolume, the first one first.
        objectives: Metrics of the hypervolume's objectives.
        results: Number of trials with a result, whether or not it grew with them.
        title: Title of the figure.
    """
    steps = tuple((growth.trials, growth.value, growth.number) for growth in growths)
    return GrowthInfo(title, _TIMES.join(METRICS[name].quantity for name in objectives), steps, results)


def growth_figure(info: GrowthInfo) -> go.Figure:
    """Draw the hypervolume as steps over the trials; the ``customdata`` of a mark begins with its trial's number."""
    figure = go.Figure()
    layout(figure, info.title, height=320)
    if not info.steps:
        return empty(figure, "No trial has ended yet with a network that is better than the reference point.")
    trials, values, numbers = (list(column) for column in zip(*info.steps, strict=True))
    line = {"color": COLORS[TrialKind.SEARCH], "width": 2, "shape": "hv"}
    figure.add_trace(
        go.Scatter(
            x=[*trials, max(info.results, trials[-1])],
            y=[*values, values[-1]],
            mode="lines",
            line=line,
            hoverinfo="skip",
            showlegend=False,
        )
    )
    figure.add_trace(
        go.Scatter(
            x=trials,
            y=values,
            mode="markers",
            marker={"color": line["color"], "size": 8},
            customdata=[[number] for number in numbers],
            hovertemplate="trial %{customdata[0]}<br>hypervolume %{y:.4s} after %{x} trials<extra></extra>",
            showlegend=False,
        )
    )
    figure.update_xaxes(title="trials with a result", rangemode="tozero")
    figure.update_yaxes(title=f"hypervolume<br>({info.unit})", rangemode="tozero", tickformat="~s")
    return figure
