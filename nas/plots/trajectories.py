"""How the active channels of each layer changed during the training of one trial."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from nas.plots.history import Phase, mark_phases, phases_of
from nas.plots.layers import Cell, Layer, draw_map, level, level_axis, shown_places, stage_starts
from nas.plots.style import BESIDE, LEGIBLE, empty, layout, shifted
from nas.trial import Trial

_MOST_LINES = 12
_DASHES = ("solid", "dash", "dot", "dashdot")


class TrajectoriesInfo(NamedTuple):
    """What the figure of a trial's levels shows."""

    title: str
    layers: tuple[Layer, ...]
    epochs: tuple[int, ...]
    active_channels: tuple[tuple[int | None, ...], ...]
    """A row for each layer, a column for each epoch; None if an epoch did not report the layer."""
    phases: tuple[Phase, ...]
    empty: str
    """Reason why there is nothing to show; "" if there is something."""


def trajectories_info(trial: Trial | None, layers: Sequence[Layer], *, title: str = "") -> TrajectoriesInfo:
    """Collect what the figure of ``trial`` shows.

    Args:
        trial: Trial with its history; None if there is none to show.
        layers: Layers of the study's network, in forward order.
        title: Title above the figure.
    """
    history = () if trial is None else trial.history
    records = sorted((record for record in history if record.active_channels), key=lambda record: record.epoch)
    rows = tuple(tuple(record.active_channels.get(layer.layer) for record in records) for layer in layers)
    reason = ""
    if trial is None or not layers:
        reason = "No search trial has settled on its ratios."
    elif not any(n is not None for row in rows for n in row):
        reason = f"Trial {trial.number} ({trial.state.value}) has reported no active channels."
    epochs = tuple(record.epoch for record in records)
    return TrajectoriesInfo(title, tuple(layers), epochs, rows, phases_of(records), reason)


def trajectories_figure(info: TrajectoriesInfo, *, as_map: bool = False) -> go.Figure:
    """Draw a line for each layer; with too many layers for lines, a map with a row for each layer.

    Args:
        info: Layers, epochs and levels.
        as_map: Whether few layers are drawn as a map, too.
    """
    figure = go.Figure()
    layout(figure, info.title, height=460)
    if info.empty:
        return empty(figure, info.empty)
    levels = [
        [None if n is None else level(n / layer.channels) for n in row]
        for layer, row in zip(info.layers, info.active_channels, strict=True)
    ]
    lowest = min(value for row in levels for value in row if value is not None)
    mapped = as_map or len(info.layers) > _MOST_LINES
    if not mapped:
        _draw_lines(figure, info, levels)
        figure.update_yaxes(title=shifted("active share n/C", len(info.layers)), **level_axis(lowest))
    else:
        _draw_map(figure, info, levels)
    figure.update_xaxes(title="epoch", range=[info.epochs[0] - 0.6, info.epochs[-1] + 0.6], showgrid=False)
    if len(info.epochs) <= 10:  # otherwise half epochs would get ticks
        figure.update_xaxes(dtick=1)
    mark_phases(figure, info.phases, over=mapped)
    return figure


def _hover(info: TrajectoriesInfo, row: int) -> list[list[object]]:
    layer = info.layers[row]
    return [[layer.layer, n, layer.channels] for n in info.active_channels[row]]


_HOVER = "%{customdata[0]}<br>epoch %{x}: %{customdata[1]} of %{customdata[2]} channels<extra></extra>"
_MAP_HOVER = "%{customdata[0]}<br>%{customdata[3]}: %{customdata[1]} of %{customdata[2]} channels<extra></extra>"


def _draw_lines(figure: go.Figure, info: TrajectoriesInfo, levels: Sequence[Sequence[float | None]]) -> None:
    from plotly.colors import sample_colorscale  # slow to load: the service starts without it

    count = len(info.layers)
    colors = sample_colorscale("Viridis", [LEGIBLE["Viridis"] * k / max(1, count - 1) for k in range(count)])
    for row, (layer, color) in enumerate(zip(info.layers, colors, strict=True)):
        # Layers on one level would hide one another.
        aside = 0.0 if count == 1 else 0.24 * (0.5 - row / (count - 1))
        figure.add_trace(
            go.Scatter(
                x=list(info.epochs),
                y=[None if value is None else value + aside for value in levels[row]],
                mode="lines+markers" if len(info.epochs) < 40 else "lines",
                name=f"{layer.name} ({layer.channels} channels)",
                line={"color": color, "width": 2, "shape": "hvh", "dash": _DASHES[row % len(_DASHES)]},
                marker={"size": 6},
                customdata=_hover(info, row),
                hovertemplate=_HOVER,
            )
        )
    figure.update_layout(legend={**BESIDE, "title": {"text": "layer"}})


def _draw_map(figure: go.Figure, info: TrajectoriesInfo, levels: Sequence[Sequence[float | None]]) -> None:
    count = len(info.layers)
    draw_map(figure, [cell for row in range(count) for cell in _runs(info, row, levels[row])], _MAP_HOVER)
    rows = shown_places(info.layers, 30)
    figure.update_yaxes(
        title="layer",
        tickvals=rows,
        ticktext=[info.layers[row].name for row in rows],
        range=[count - 0.5, -0.5],  # the first layer on top
        showgrid=False,
    )
    for start in stage_starts([layer.stage for layer in info.layers])[1:]:
        figure.add_hline(y=start - 0.5, line={"color": "white", "width": 4})
    figure.update_layout(height=min(900, 200 + (24 if count <= _MOST_LINES else 12) * count))


def _runs(info: TrajectoriesInfo, row: int, levels: Sequence[float | None]) -> Iterator[Cell]:
    """Yield the runs of consecutive epochs in which a layer stayed at one level."""
    layer, active = info.layers[row], info.active_channels[row]
    first = 0
    for place in range(1, len(levels) + 1):
        goes_on = place < len(levels) and info.epochs[place] == info.epochs[place - 1] + 1
        if goes_on and levels[place] == levels[first]:
            continue
        here = levels[first]
        if here is not None:
            start, end = info.epochs[first], info.epochs[place - 1]
            when = f"epoch {start}" if start == end else f"epochs {start} to {end}"
            yield Cell(row, start - 0.5, end + 0.5, here, (layer.layer, active[first], layer.channels, when))
        first = place
