"""Colours of marks and lines by a value, with a legend instead of a colour bar, on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from nas.plots.style import EDGE, LEARNED_STYLES, LEGIBLE, LEGIBLE_ON_DARK

_SCALE = "Viridis"
_STEPS = 5
"""Number of values that the legend of a scale names."""
_COLORS = 32
"""Number of colours of a scale; traces of one colour can be drawn together."""
_ROWS = 12
"""Most categories that a legend names."""


class Shades(NamedTuple):
    """The meaning of colours.

    Args:
        label: Name of the value.
        values: Value of each mark by its key; marks without one are grey.
        log: Whether numbers are placed on a logarithmic scale.
    """

    label: str
    values: Mapping[Any, float | str | bool]
    log: bool = False


class Palette(NamedTuple):
    """The colours of a list of marks, in its order, on both kinds of pages, and the entries of their legend."""

    light: tuple[str, ...]
    dark: tuple[str, ...]
    legend: tuple[tuple[str, str, str], ...]
    """Text, light colour and dark colour of each entry."""


def palette(shades: Shades, keys: Sequence[Hashable]) -> Palette:
    """Return the colours of the marks ``keys``.

    Numbers get a place on a scale from the smallest to the largest one. Other values, and truth values, are categories.
    """
    found = [shades.values.get(key) for key in keys]
    present = [value for value in found if value is not None]
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in present):
        places, named = _scaled([float(value) for value in present], shades.log)
    else:
        places, named = _categories([str(value) for value in present])
    if not present:
        places, named = [], []
    colors = {place: (on_light(place), on_dark(place)) for place in {*places, *(place for _, place in named)}}
    rest = iter(places)
    pairs = [(EDGE, EDGE) if value is None else colors[next(rest)] for value in found]
    legend = [(text, *colors[place]) for text, place in named]
    if len(present) < len(found):
        legend.append(("no value", EDGE, EDGE))
    return Palette(tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs), tuple(legend))


def on_light(place: float) -> str:
    """Return the colour of a place from 0 to 1 that stands out from a light page."""
    return _sampled(place * LEGIBLE[_SCALE])


def on_dark(place: float) -> str:
    """Return the colour of a place from 0 to 1 that stands out from a dark page."""
    return _sampled(LEGIBLE_ON_DARK + place * (1 - LEGIBLE_ON_DARK))


def _sampled(place: float) -> str:
    from plotly.colors import sample_colorscale  # slow to load: the service starts without it

    return str(sample_colorscale(_SCALE, [place])[0])


def _scaled(values: Sequence[float], log: bool) -> tuple[list[float], list[tuple[str, float]]]:
    if not values:
        return [], []
    log = log and min(values) > 0
    low, high = min(values), max(values)
    ends = (math.log(low), math.log(high)) if log else (low, high)
    width = ends[1] - ends[0]

    def place(value: float) -> float:
        share = 0.0 if width <= 0 else ((math.log(value) if log else value) - ends[0]) / width
        return round(min(1.0, max(0.0, share)) * (_COLORS - 1)) / (_COLORS - 1)

    distinct = sorted(set(values))
    steps = [ends[0] + width * k / (_STEPS - 1) for k in range(_STEPS)]
    named = distinct if len(distinct) <= _STEPS else [math.exp(step) if log else step for step in steps]
    return [place(value) for value in values], [(f"{value:.3g}", place(value)) for value in named]


def _categories(values: Sequence[str]) -> tuple[list[float], list[tuple[str, float]]]:
    names = sorted(set(values))
    places = {name: k / max(1, len(names) - 1) for k, name in enumerate(names)}
    return [places[value] for value in values], list(places.items())[:_ROWS]


def draw_legend(figure: go.Figure, shades: Shades, found: Palette) -> None:
    """Add the legend of a palette to a figure: a square for each of a few values."""
    for text, light, dark in found.legend:
        figure.add_trace(
            go.Scatter(
                x=[None],
                y=[None],
                mode="markers",
                marker={"symbol": "square", "size": 12, "color": light},
                meta={"dark": dark},
                name=text,
                legendgroup="values",
                legendgrouptitle={"text": shades.label},
                hoverinfo="skip",
            )
        )


def series_style(place: int) -> tuple[str, str]:
    """Return colour and symbol of the series ``place`` among several that are drawn together."""
    return LEARNED_STYLES[place % len(LEARNED_STYLES)]
