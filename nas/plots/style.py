"""What all figures share: colours, symbols and layout."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import plotly.graph_objects as go

from nas.trial import METRICS, TrialKind

INK = "#1f2937"
GRID = "#e5e7eb"
FRONT = "#b91c1c"
COLORS: Mapping[TrialKind, str] = MappingProxyType(
    {
        TrialKind.SEARCH: "#1d4ed8",
        TrialKind.BASELINE: "#b45309",
        TrialKind.RANDOM: "#6b7280",
        TrialKind.RETRAIN: "#047857",
    }
)
# Kinds differ in shape as well, for those who don't tell the colours apart and for black and white print.
SYMBOLS: Mapping[TrialKind, str] = MappingProxyType(
    {
        TrialKind.SEARCH: "circle",
        TrialKind.BASELINE: "diamond",
        TrialKind.RANDOM: "x",
        TrialKind.RETRAIN: "square",
    }
)
NAMES: Mapping[TrialKind, str] = MappingProxyType(
    {
        TrialKind.SEARCH: "learned ratios",
        TrialKind.BASELINE: "uniform ratio (baseline)",
        TrialKind.RANDOM: "random ratios",
        TrialKind.RETRAIN: "retrained",
    }
)


def shown(metric: str, value: float) -> float:
    """Return a stored value in the unit of its label: percent for fractions."""
    return value * 100 if METRICS[metric].percent else value


def layout(figure: go.Figure, title: str, height: int = 480) -> go.Figure:
    """Give ``figure`` the common look."""
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
