"""Some networks in one figure: their ratios against depth, and their trainings over the epochs."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from nas.findings.side_by_side import Side, layer_rows
from nas.plots.history import HistoryInfo, history_info
from nas.plots.layers import Layer, layer_of, level, level_axis, mark_layers
from nas.plots.shades import series_style
from nas.plots.style import empty, layout, shifted

_DASHES = ("solid", "dash", "dot", "dashdot")
_MANY = 40
"""Number of layers or epochs from which lines have no marks."""


class DepthLine(NamedTuple):
    """The splits of one network."""

    name: str
    active_channels: tuple[int | None, ...]
    """Active channels of each layer; None for a layer that the network lacks."""
    channels: tuple[int | None, ...]


class DepthInfo(NamedTuple):
    """What the figure of ratios against depth shows."""

    title: str
    layers: tuple[Layer, ...]
    lines: tuple[DepthLine, ...]
    empty: str
    """Reason why there is nothing to show; "" if there is something."""


def depth_info(sides: Sequence[Side], *, title: str = "") -> DepthInfo:
    """Collect what the figure of the ratios of ``sides`` shows."""
    rows = layer_rows(sides)
    layers = tuple(layer_of(next(split for split in row.splits if split is not None)) for row in rows)
    lines = tuple(
        DepthLine(
            side.name,
            tuple(None if (split := row.splits[k]) is None else split.active_channels for row in rows),
            tuple(None if (split := row.splits[k]) is None else split.channels for row in rows),
        )
        for k, side in enumerate(sides)
    )
    return DepthInfo(title, layers, lines, "" if layers else "None of these trials has settled on a network.")


def depth_figure(info: DepthInfo) -> go.Figure:
    """Draw a line of ratios for each network; a number stands for the place of a network, as in the tables."""
    figure = go.Figure()
    layout(figure, info.title, height=460)
    if info.empty:
        return empty(figure, info.empty)
    lowest = -1.0
    for place, line in enumerate(info.lines):
        # levels often coincide: a small offset keeps each line visible
        aside = 0.0 if len(info.lines) == 1 else 0.3 * (0.5 - place / (len(info.lines) - 1))
        pairs = list(zip(line.active_channels, line.channels, strict=True))
        levels = [None if n is None or not c else level(n / c) for n, c in pairs]
        lowest = min([lowest, *(value for value in levels if value is not None)])
        color, symbol = series_style(place)
        figure.add_trace(
            go.Scatter(
                x=list(range(len(levels))),
                y=[None if value is None else value + aside for value in levels],
                mode="lines" if len(levels) > _MANY else "lines+markers",
                name=_entry(place, line.name),
                line={"color": color, "width": 1.5, "dash": _DASHES[place % len(_DASHES)]},
                marker={"symbol": symbol, "size": 8, "color": color},
                customdata=[
                    [layer.layer, n, c, "" if n is None or not c else f"{n / c:.3g}"]
                    for layer, (n, c) in zip(info.layers, pairs, strict=True)
                ],
                hovertemplate=(
                    f"{_entry(place, line.name)}<br>%{{customdata[0]}}<br>"
                    "%{customdata[1]} of %{customdata[2]} channels (%{customdata[3]})<extra></extra>"
                ),
            )
        )
    mark_layers(figure, info.layers)
    figure.update_yaxes(title=shifted("split ratio n/C", len(info.lines)), **level_axis(lowest))
    figure.update_layout(legend={"y": 1.08})
    return figure


class CurvesInfo(NamedTuple):
    """What the figure of several trainings shows."""

    title: str
    curves: tuple[tuple[str, HistoryInfo], ...]


def curves_info(sides: Sequence[Side], *, title: str = "") -> CurvesInfo:
    """Collect what the figure of the trainings of ``sides`` shows."""
    return CurvesInfo(title, tuple((side.name, history_info(side.trial.history)) for side in sides))


def curves_figure(info: CurvesInfo) -> go.Figure:
    """Draw the loss, the validation top-1 and the cost of each training, in panels one above the other."""
    panels = [
        (label, values)
        for label, values in (
            ("loss", [curve.losses.get("loss", ()) for _, curve in info.curves]),
            ("top-1 (%)", [curve.top1 for _, curve in info.curves]),
            ("cost", [curve.cost for _, curve in info.curves]),
        )
        if any(value is not None for of_one in values for value in of_one)
    ]
    if not panels:
        return empty(layout(go.Figure(), info.title), "None of these trials has reported an epoch.")
    from plotly.subplots import make_subplots  # slow to load: the service starts without it

    figure = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.06)
    for row, (label, values) in enumerate(panels, start=1):
        for place, ((name, curve), of_one) in enumerate(zip(info.curves, values, strict=True)):
            figure.add_trace(_curve(place, name, curve.epochs, of_one, named=row == 1), row=row, col=1)
        figure.update_yaxes(title=label, row=row, col=1)
    layout(figure, info.title, height=160 + 180 * len(panels))
    figure.update_xaxes(title="epoch", row=len(panels), col=1)
    if max((len(curve.epochs) for _, curve in info.curves), default=0) <= 10:  # otherwise half epochs would get ticks
        figure.update_xaxes(dtick=1)
    return figure


def _curve(
    place: int, name: str, epochs: Sequence[int], values: Sequence[float | None], *, named: bool
) -> go.Scatter:
    color, symbol = series_style(place)
    return go.Scatter(
        x=list(epochs),
        y=list(values),
        mode="lines" if len(epochs) > _MANY else "lines+markers",
        name=_entry(place, name),
        legendgroup=str(place),
        showlegend=named,
        line={"color": color, "width": 1.5, "dash": _DASHES[place % len(_DASHES)]},
        marker={"symbol": symbol, "size": 6, "color": color},
    )


def _entry(place: int, name: str) -> str:
    return f"{place + 1}: {html.escape(name)}"
