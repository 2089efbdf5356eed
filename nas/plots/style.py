"""What all figures share: colours, symbols and layout."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import plotly.graph_objects as go

from nas.definition.methods import METHODS
from nas.metrics import METRICS
from nas.trial import TrialKind

INK = "#1f2937"
GRID = "#e5e7eb"
SHADE = "#f3f4f6"
EDGE = "#6b7280"
"""Edge of a cell or a mark whose own colour may be close to that of the page, light or dark."""
VEIL = "rgba(255,255,255,0.75)"
"""Background of a text that lies on lines."""
FRONT = "#b91c1c"
COLORS: Mapping[TrialKind, str] = MappingProxyType(
    {
        TrialKind.SEARCH: "#1d4ed8",
        TrialKind.BASELINE: "#b45309",
        TrialKind.RANDOM: "#6b7280",
        TrialKind.RETRAIN: "#047857",
        TrialKind.CHEAPER: "#0369a1",
    }
)
# Kinds also differ in shape, for colour-blind readers and black-and-white print.
SYMBOLS: Mapping[TrialKind, str] = MappingProxyType(
    {
        TrialKind.SEARCH: "circle",
        TrialKind.BASELINE: "diamond",
        TrialKind.RANDOM: "x",
        TrialKind.RETRAIN: "square",
        TrialKind.CHEAPER: "triangle-down",
    }
)
NAMES: Mapping[TrialKind, str] = MappingProxyType(
    {
        TrialKind.SEARCH: "learned networks",
        TrialKind.BASELINE: "uniform ratio (baseline)",
        TrialKind.RANDOM: "random networks",
        TrialKind.RETRAIN: "retrained",
        TrialKind.CHEAPER: "learned networks, cheaper levels",
    }
)

LEARNED_STYLES = (
    (COLORS[TrialKind.SEARCH], SYMBOLS[TrialKind.SEARCH]),
    ("#a21caf", "triangle-up"),
    ("#0e7490", "square"),
    ("#4d7c0f", "hexagon"),
    ("#be123c", "star"),
    ("#b45309", "diamond"),
    ("#6b7280", "cross"),
    ("#1f2937", "pentagon"),
)
"""Colours and symbols of what is drawn together: methods, studies, chosen trials."""
RATIO_SCALE = ((0.0, "#dbe4fd"), (0.35, "#93b4f5"), (0.7, COLORS[TrialKind.SEARCH]), (1.0, "#172554"))
"""Colours of a split ratio on a logarithmic scale, from few active channels to all of them."""

BESIDE: Mapping[str, str | float] = MappingProxyType(
    {"orientation": "v", "x": 1.02, "xanchor": "left", "y": 1.0, "yanchor": "top"}
)
"""Place of a legend to the right of its figure, for many or long entries."""

LEGIBLE: Mapping[str, float] = MappingProxyType({"Viridis": 0.58, "Plasma": 0.62})
"""Part of a colour scale, from its dark end, that has a contrast of 3 to 1 on white; pages lighten it where dark."""


LEGIBLE_ON_DARK = 0.45
"""Place of the scale Viridis from which its colours have a contrast of 3 to 1 on a dark page."""


def learned_style(method: str) -> tuple[str, str]:
    """Return colour and symbol of the learned networks of a method, by its index among the methods."""
    return LEARNED_STYLES[list(METHODS).index(method) % len(LEARNED_STYLES)]


def shifted(title: str, lines: int) -> str:
    """Return the title of an axis along which lines are shifted a little, since they would hide one another."""
    # no smaller type: a tag for it becomes an inline style, which the policy of the pages forbids
    return f"{title}<br>(lines on one level are shifted a little)" if lines > 1 else title


def shown(metric: str, value: float) -> float:
    """Return a stored value in the unit of its label: percent for fractions."""
    return value * 100 if METRICS[metric].percent else value


def roomy_range(values: Sequence[float]) -> list[float] | None:
    """Return a range of 10 % around values that hardly differ, so that their digits are not blown up to distances.

    Args:
        values: Values along an axis.

    Returns:
        The two ends of the range; None if the values fill an axis by themselves, or there are none.
    """
    if not values:
        return None
    low, high = min(values), max(values)
    room = 0.05 * max(abs(low), abs(high)) or 1.0
    return None if high - low >= room / 5 else [low - room, high + room]


def empty(figure: go.Figure, reason: str) -> go.Figure:
    """Write in the middle of a figure without data why there is none, and hide the axes."""
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    text = "<br>".join(textwrap.wrap(html.escape(reason), 80))
    figure.add_annotation(text=text, showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5, font={"size": 14})
    figure.update_layout(height=220)
    return figure


def layout(figure: go.Figure, title: str, height: int = 480) -> go.Figure:
    """Give ``figure`` the common layout."""
    figure.update_layout(
        title={"text": title, "x": 0, "xref": "paper", "font": {"size": 16}},
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        plot_bgcolor="white",
        paper_bgcolor="white",
        height=height,
        margin={"l": 64, "r": 24, "t": 56, "b": 56},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "xanchor": "right", "x": 1.0},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(gridcolor=GRID, linecolor=INK, ticks="outside", zeroline=False)
    figure.update_yaxes(gridcolor=GRID, linecolor=INK, ticks="outside", zeroline=False)
    return figure
