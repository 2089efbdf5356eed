"""The training of one trial: losses, validation top-1 and cost over its epochs, with its phases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from nas.plots.style import COLORS, FRONT, INK, SHADE, layout
from nas.trial import EpochRecord, TrialKind

LOSSES = ("loss", "task_loss", "order_loss")


class Phase(NamedTuple):
    """Consecutive epochs of one phase."""

    name: str
    first: int
    last: int


class HistoryInfo(NamedTuple):
    """What the figure of a training shows."""

    title: str
    epochs: tuple[int, ...]
    losses: Mapping[str, tuple[float | None, ...]]
    top1: tuple[float | None, ...]
    """Validation top-1 in percent."""
    cost: tuple[float | None, ...]
    target: tuple[float | None, ...]
    phases: tuple[Phase, ...]


def history_info(history: Sequence[EpochRecord], *, title: str = "") -> HistoryInfo:
    """Collect what the figure of ``history`` shows; a metric that an epoch lacks leaves a gap."""
    records = sorted(history, key=lambda record: record.epoch)

    def series(name: str) -> tuple[float | None, ...]:
        return tuple(record.metrics.get(name) for record in records)

    losses = {name: series(name) for name in LOSSES if any(name in record.metrics for record in records)}
    top1 = tuple(None if value is None else value * 100 for value in series("top1"))
    epochs = tuple(record.epoch for record in records)
    return HistoryInfo(title, epochs, losses, top1, series("cost"), series("target"), phases_of(records))


def phases_of(records: Sequence[EpochRecord]) -> tuple[Phase, ...]:
    """Return the phases as runs of consecutive epochs; ``records`` are in the order of their epochs."""
    phases: list[Phase] = []
    for record in records:
        if phases and phases[-1].name == record.phase:
            phases[-1] = phases[-1]._replace(last=record.epoch)
        else:
            phases.append(Phase(record.phase, record.epoch, record.epoch))
    return tuple(phases)


def mark_phases(figure: go.Figure, phases: Sequence[Phase], *, over: bool = False) -> None:
    """Write the names of the phases above the topmost panel, and shade every second phase.

    Args:
        figure: Figure to change.
        phases: Phases in the order of their epochs.
        over: Whether dashed lines on top of the panel separate the phases instead of shades.
    """
    for place, phase in enumerate(phases):
        if over and place:
            figure.add_vline(x=phase.first - 0.5, line={"color": INK, "width": 1.5, "dash": "dash"})
        elif place % 2:
            figure.add_vrect(x0=phase.first - 0.5, x1=phase.last + 0.5, fillcolor=SHADE, line_width=0, layer="below")
        figure.add_annotation(
            x=(phase.first + phase.last) / 2,
            y=1.0,
            yref="y domain",
            yanchor="bottom",
            text=phase.name,
            font={"size": 11},
            showarrow=False,
        )


def history_figure(info: HistoryInfo) -> go.Figure:
    """Draw a training in three panels, one above the other: losses, top-1, and cost with its target."""
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    dashes = {"loss": "solid", "task_loss": "dash", "order_loss": "dot"}
    for name, values in info.losses.items():
        line = {"color": INK, "dash": dashes[name]}
        _add(figure, 1, info.epochs, values, name.replace("_", " "), line)
    _add(figure, 2, info.epochs, info.top1, "validation top-1", {"color": COLORS[TrialKind.SEARCH]})
    _add(figure, 3, info.epochs, info.cost, "cost", {"color": COLORS[TrialKind.BASELINE]})
    _add(figure, 3, info.epochs, info.target, "target", {"color": FRONT, "dash": "dot"})
    layout(figure, info.title, height=640)
    figure.update_layout(legend_y=1.05, margin_t=80)  # leaves a line for the names of the phases
    for row, label in ((1, "loss"), (2, "top-1 (%)"), (3, "cost")):
        figure.update_yaxes(title=label, row=row, col=1)
    figure.update_xaxes(title="epoch", row=3, col=1)
    if len(info.epochs) <= 10:  # otherwise half epochs would get ticks
        figure.update_xaxes(dtick=1)
    mark_phases(figure, info.phases)
    return figure


def _add(
    figure: go.Figure,
    row: int,
    epochs: Sequence[int],
    values: Sequence[float | None],
    name: str,
    line: Mapping[str, str],
) -> None:
    if all(value is None for value in values):
        return
    mode = "lines+markers" if len(epochs) < 40 else "lines"
    figure.add_trace(go.Scatter(x=list(epochs), y=list(values), mode=mode, name=name, line=dict(line)), row=row, col=1)
