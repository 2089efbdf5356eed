"""The training of one trial: losses, validation top-1 and cost over its epochs, with its phases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from nas.plots.style import COLORS, FRONT, INK, SHADE, empty, layout
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


class _Curve(NamedTuple):
    name: str
    values: Sequence[float | None]
    line: Mapping[str, str]


def _panels(info: HistoryInfo) -> dict[str, list[_Curve]]:
    """Return the curves of each panel by the label of its axis, without curves and panels that hold nothing."""
    dashes = {"loss": "solid", "task_loss": "dash", "order_loss": "dot"}
    search, cost = {"color": COLORS[TrialKind.SEARCH]}, {"color": COLORS[TrialKind.BASELINE]}
    panels = {
        "loss": [
            _Curve(name.replace("_", " "), values, {"color": INK, "dash": dashes[name]})
            for name, values in info.losses.items()
        ],
        "top-1 (%)": [_Curve("validation top-1", info.top1, search)],
        "cost": [
            _Curve("cost", info.cost, cost),
            _Curve("target", info.target, {"color": FRONT, "dash": "dot"}),
        ],
    }
    held = {
        label: [curve for curve in curves if any(value is not None for value in curve.values)]
        for label, curves in panels.items()
    }
    return {label: curves for label, curves in held.items() if curves}


def history_figure(info: HistoryInfo) -> go.Figure:
    """Draw a training in panels, one above the other: losses, top-1, and cost with its target, as far as reported."""
    panels = _panels(info)
    if not panels:
        return empty(layout(go.Figure(), info.title), "No epoch has been reported.")
    from plotly.subplots import make_subplots  # slow to load: the service starts without it

    figure = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.06)
    mode = "lines+markers" if len(info.epochs) < 40 else "lines"
    for row, (label, curves) in enumerate(panels.items(), start=1):
        for name, values, line in curves:
            curve = go.Scatter(x=list(info.epochs), y=list(values), mode=mode, name=name, line=dict(line))
            figure.add_trace(curve, row=row, col=1)
        figure.update_yaxes(title=label, row=row, col=1)
    layout(figure, info.title, height=160 + 160 * len(panels))
    figure.update_layout(legend_y=1.05, margin_t=80)  # leaves a line for the names of the phases
    figure.update_xaxes(title="epoch", row=len(panels), col=1)
    if len(info.epochs) <= 10:  # otherwise half epochs would get ticks
        figure.update_xaxes(dtick=1)
    mark_phases(figure, info.phases)
    return figure
