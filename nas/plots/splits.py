"""The learned splits of one architecture: a bar per layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from nas.candidate import Split
from nas.plots.layers import short_name, stage_starts
from nas.plots.style import COLORS, GRID, INK, layout
from nas.trial import TrialKind


class SplitBar(NamedTuple):
    """One layer."""

    layer: str
    name: str
    """Short name for the axis: ``stage.block`` (one-based) where there are stages, else the layer's index."""
    channels: int
    active_channels: int
    ratio: float
    macs: int


class SplitsInfo(NamedTuple):
    """What the figure of an architecture's splits shows."""

    title: str
    bars: tuple[SplitBar, ...]
    stage_starts: tuple[int, ...]
    """Positions of the bars that open a stage."""


def splits_info(splits: Sequence[Split], *, title: str = "") -> SplitsInfo:
    """Say what the figure of ``splits`` shows, in forward order."""
    ordered = sorted(splits, key=lambda split: split.index)
    starts = stage_starts([split.stage for split in ordered])
    bars = tuple(
        SplitBar(split.layer, short_name(split), split.channels, split.active_channels, split.ratio, split.macs)
        for split in ordered
    )
    return SplitsInfo(title, bars, starts)


def splits_figure(info: SplitsInfo) -> go.Figure:
    """Draw the ratio of each layer; the dotted line is the uniform ratio 1/4 of the published networks."""
    figure = go.Figure(
        go.Bar(
            x=list(range(len(info.bars))),
            y=[bar.ratio for bar in info.bars],
            marker={"color": COLORS[TrialKind.SEARCH]},
            customdata=[[bar.layer, bar.active_channels, bar.channels, bar.macs] for bar in info.bars],
            hovertemplate=(
                "%{customdata[0]}<br>%{customdata[1]} of %{customdata[2]} channels convolved (%{y:.3f})<br>"
                "%{customdata[3]:,} multiply-adds<extra></extra>"
            ),
        )
    )
    layout(figure, info.title, height=360)
    few = len(info.bars) <= 20  # more channel counts than that do not fit below the axis; hovering shows them
    names = [f"{bar.name}<br>{bar.active_channels}/{bar.channels}" if few else bar.name for bar in info.bars]
    figure.update_xaxes(title="layer (stage.block)", tickvals=list(range(len(names))), ticktext=names)
    figure.update_yaxes(title="split ratio n/C", range=[0, 1.02])
    figure.add_hline(y=0.25, line={"dash": "dot", "color": INK, "width": 1})
    for start in info.stage_starts[1:]:
        figure.add_vline(x=start - 0.5, line={"color": GRID, "width": 2})
    return figure
