"""A network layer by layer: the share of each layer in the multiply-adds, the parameters and the time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from nas.formatting import format_count
from nas.plots.page import Page, Picture, Section, Table
from nas.plots.style import COLORS, FRONT, empty, layout
from nas.probes.layers import LayerRow, LayerTable
from nas.trial import TrialKind

HEADS = ("layer", "kind", "channels", "active", "output", "multiply-adds", "parameters", "ms", "share")
_COLORS = (COLORS[TrialKind.SEARCH], COLORS[TrialKind.BASELINE], FRONT)


class NetworkInfo(NamedTuple):
    """What the figure of a network shows, in percent of the whole."""

    title: str
    layers: tuple[str, ...]
    macs: tuple[float, ...]
    params: tuple[float, ...]
    time: tuple[float, ...]
    """Shares of the time; empty if nothing was timed."""


def network_info(table: LayerTable, *, title: str = "") -> NetworkInfo:
    """Collect what the figure of a network shows; the time between layers is left out."""
    shares = [table.share(row) for row in table.rows]
    return NetworkInfo(
        title,
        tuple(row.layer or row.kind for row in table.rows),
        tuple(100 * row.macs / max(1, table.macs) for row in table.rows),
        tuple(100 * row.params / max(1, table.params) for row in table.rows),
        () if table.times is None else tuple(100 * (share or 0.0) for share in shares),
    )


def network_figure(info: NetworkInfo) -> go.Figure:
    """Draw a group of bars for each layer, in forward order from the top."""
    figure = go.Figure()
    if not info.layers:
        return empty(layout(figure, info.title), "the network has no layers")
    values = zip(("multiply-adds", "parameters", "time"), (info.macs, info.params, info.time), _COLORS, strict=True)
    for name, shares, color in values:
        if shares:
            figure.add_trace(
                go.Bar(
                    orientation="h",
                    y=info.layers,
                    x=shares,
                    name=name,
                    marker={"color": color},
                    hovertemplate=f"%{{y}}<br>%{{x:.2f}} % of the {name}<extra></extra>",
                )
            )
    layout(figure, info.title, height=140 + 26 * len(info.layers))
    figure.update_yaxes(autorange="reversed", automargin=True, tickfont={"size": 11}, dtick=1)
    figure.update_xaxes(title="share of the network (%)")
    return figure


def row_texts(row: LayerRow, share: float | None) -> tuple[str, ...]:
    """Return a row as text, in the order of :data:`HEADS`."""
    return (
        row.layer or "(the network)",
        row.kind,
        "" if row.channels is None else str(row.channels),
        "" if row.active_channels is None else str(row.active_channels),
        "x".join(map(str, row.output)),
        f"{row.macs:,}",
        f"{row.params:,}",
        "" if row.time_ms is None else f"{row.time_ms:.3f}",
        "" if share is None else f"{100 * share:.1f} %",
    )


def total_texts(table: LayerTable) -> tuple[tuple[str, ...], ...]:
    """Return the last rows as text: the time between the layers, and the totals."""
    blank = ("", "", "", "")
    if table.times is None:
        return (("total", *blank, f"{table.macs:,}", f"{table.params:,}", "", ""),)
    between, whole = table.times.between_ms, table.times.clocked_ms
    return (
        ("between the layers", *blank, "", "", f"{between:.3f}", f"{100 * between / whole:.1f} %"),
        ("total", *blank, f"{table.macs:,}", f"{table.params:,}", f"{whole:.3f}", "100.0 %"),
    )


def network_page(table: LayerTable, title: str, sentences: Sequence[str], colophon: str) -> Page:
    """Return the page of a network: its table and its figure.

    Args:
        table: Rows of the network.
        title: Title of the page.
        sentences: Notes on the figures, such as the machine and the settings.
        colophon: Last line of the page: program, version and date.
    """
    facts = [
        ("input", "x".join(map(str, table.input_shape))),
        ("multiply-adds", format_count(table.macs, 4)),
        ("parameters", format_count(table.params, 4)),
    ]
    if table.times is not None:
        facts.append(("latency", f"{table.times.plain_ms:.2f} ms"))
    rows = (*(row_texts(row, table.share(row)) for row in table.rows), *total_texts(table))
    caption = "".join(f"{sentence[0].upper()}{sentence[1:]}. " for sentence in sentences).strip()
    picture = Picture("shares", "What each layer takes", "", network_figure(network_info(table)))
    layers = Table("Layers", caption, HEADS, rows, words=2)
    section = Section(title, "", tuple(facts), "", (), (), (layers,), (picture,))
    return Page(title, (), (), (section,), colophon)
