"""What figures over layers share: names and stages along an axis, and ratios on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import plotly.graph_objects as go

from nas.candidate import Split
from nas.plots.style import BESIDE, EDGE, GRID, RATIO_SCALE
from nas.trial import Trial

_MOST_TICKS = 18


class Layer(NamedTuple):
    """A layer as axes show it."""

    layer: str
    name: str
    """``stage.block`` (one-based) in a network with stages; otherwise the index of the layer."""
    channels: int
    stage: int | None


def short_name(split: Split) -> str:
    """Return ``"3.2"`` for the second block of the third stage; in a network without stages, the index of the layer."""
    if split.stage is None or split.block is None:
        return str(split.index)
    return f"{split.stage + 1}.{split.block + 1}"


def layer_of(split: Split) -> Layer:
    """Return the layer of a split."""
    return Layer(split.layer, short_name(split), split.channels, split.stage)


def layers_of(trials: Iterable[Trial]) -> tuple[Layer, ...]:
    """Return the layers of a study's network in forward order; empty while no trial has settled on a network.

    They are those of the network with the most layers, since blocks may be absent in others.
    """
    splits = max((c.splits for trial in trials for c in trial.candidates), key=len, default=())
    return tuple(layer_of(split) for split in sorted(splits, key=lambda split: split.index))


def stage_starts(stages: Sequence[int | None]) -> tuple[int, ...]:
    """Return the positions at which a stage begins, including the first one."""
    return tuple(k for k in range(len(stages)) if k == 0 or stages[k] != stages[k - 1])


def fraction(ratio: float) -> str:
    """Return a ratio as people write it: ``1/4``, or a decimal number if it is no small fraction."""
    found = Fraction(ratio).limit_denominator(256)
    return str(found) if found.numerator == 1 or found == 1 else f"{ratio:.3g}"


def level(ratio: float) -> float:
    """Return the base-2 logarithm of a ratio: 0 for all channels, -1 for half of them."""
    return math.log2(ratio)


def level_axis(lowest: float) -> dict[str, Any]:
    """Return range, tick positions and texts (1, 1/2, 1/4, ...) of an axis down to the level ``lowest``."""
    values = list(range(min(-1, math.floor(lowest)), 1))
    texts = [fraction(2.0**value) for value in values]
    return {"range": [min(-1.0, lowest) - 0.3, 0.3], "tickvals": values, "ticktext": texts}


class Cell(NamedTuple):
    """A rectangle of a map: one row high, between two places of the horizontal axis, coloured by its level."""

    row: int
    start: float
    end: float
    level: float
    hover: tuple[object, ...]
    """Values that the hover text shows."""


def draw_map(figure: go.Figure, cells: Sequence[Cell], hovertemplate: str) -> None:
    """Draw cells, with a legend of ratios.

    Bars replace a heat map, and a legend replaces a colour bar: both set styles of their own, which the
    Content-Security-Policy of the pages forbids.
    """
    from plotly.colors import sample_colorscale  # slow to load: the service starts without it

    low = min(-1, math.floor(min(cell.level for cell in cells)))
    scale = [list(stop) for stop in RATIO_SCALE]
    shades = sorted({*(cell.level for cell in cells), *range(low, 1)})
    colors = dict(zip(shades, sample_colorscale(scale, [1 - shade / low for shade in shades]), strict=True))
    figure.add_trace(
        go.Bar(
            orientation="h",
            y=[cell.row for cell in cells],
            x=[cell.end - cell.start for cell in cells],
            base=[cell.start for cell in cells],
            width=0.94,
            marker={"color": [colors[cell.level] for cell in cells], "line": {"width": 1, "color": EDGE}},
            customdata=[list(cell.hover) for cell in cells],
            hovertemplate=hovertemplate,
            showlegend=False,
        )
    )
    for value in range(0, low - 1, -1):
        marker = {"symbol": "square", "size": 14, "color": colors[value], "line": {"width": 1, "color": EDGE}}
        name = fraction(2.0**value)
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=name))
    figure.update_layout(
        barmode="overlay",
        legend={**BESIDE, "title": {"text": "ratio n/C"}, "itemclick": False, "itemdoubleclick": False},
    )


def shown_places(layers: Sequence[Layer], most: int = _MOST_TICKS) -> list[int]:
    """Return the positions of the layers that an axis names: about ``most``, with the first layer of each stage."""
    step = math.ceil(len(layers) / most)
    edges = [*stage_starts([layer.stage for layer in layers]), len(layers)]
    # the last layer of a stage gives way to the first layer of the next
    return [k for a, b in pairwise(edges) for k in range(a, b, step) if k == a or 4 * (b - k) > 3 * step]


def mark_layers(figure: go.Figure, layers: Sequence[Layer], *, over: bool = False) -> None:
    """Name the layers along the horizontal axis and separate the stages; names are thinned until they fit.

    Args:
        figure: Figure to change.
        layers: Layers at the positions 0, 1, 2, ... of the axis.
        over: Whether white gaps in the drawing separate the stages, instead of grey lines behind it.
    """
    places = shown_places(layers)
    staged = any(layer.stage is not None for layer in layers)
    figure.update_xaxes(
        title="layer (stage.block)" if staged else "layer",
        tickvals=places,
        ticktext=[layers[place].name for place in places],
        range=[-0.6, len(layers) - 0.4],
        autotickangles=[0, 90],  # upright where the figure is too narrow for them
        showgrid=False,
    )
    if not staged:
        return
    edges = [*stage_starts([layer.stage for layer in layers]), len(layers)]
    line = {"color": "white", "width": 4} if over else {"color": GRID, "width": 2}
    for start in edges[1:-1]:
        figure.add_vline(x=start - 0.5, line=line, layer="above" if over else "below")
    for start, end in pairwise(edges):
        stage = layers[start].stage
        wide = end - start > len(layers) / 12
        figure.add_annotation(
            x=(start + end - 1) / 2,
            y=1.0,
            yref="paper",
            yanchor="bottom",
            text="" if stage is None else f"stage {stage + 1}" if wide else str(stage + 1),
            font={"size": 11},
            showarrow=False,
        )
