"""The ratio of each layer at each complexity target: where a search spends its channels on a small or large budget."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from nas.candidate import Candidate
from nas.definition.sections import BudgetSpec
from nas.definition.study import COSTS, StudyDefinition
from nas.findings.scores import usual_fingerprints
from nas.formatting import format_short
from nas.plots.layers import Cell, Layer, draw_map, fraction, layers_of, level, level_axis, mark_layers
from nas.plots.style import BESIDE, COLORS, LEGIBLE, empty, layout, shifted
from nas.trial import Trial, TrialKind, TrialState

_MOST_ROWS = 60
"""Most networks in the map; of more, a selection with evenly spaced targets is shown."""
_MANY = 24
"""Number of layers from which fewer lines are drawn, and without marks, so that they stay readable."""
UNIFORM = COLORS[TrialKind.BASELINE]
_NONE = "No search trial has settled on its ratios."


class RatioLine(NamedTuple):
    """The ratios of one network."""

    number: int
    """Number of its trial."""
    name: str
    """``trial 3``, or ``trial 0.2`` for the third network of trial 0."""
    target: float
    label: str
    """The target in words, such as ``b = 4.33``."""
    active_channels: tuple[int, ...]
    """Active channels of each layer; 0 for one in an absent block."""
    ratios: tuple[float, ...]


class RatiosInfo(NamedTuple):
    """What the figures of ratios against the target show."""

    title: str
    layers: tuple[Layer, ...]
    lines: tuple[RatioLine, ...]
    """Lines from the cheapest to the most expensive."""
    uniform: tuple[float, ...]
    """Ratios of the study's uniform baselines."""
    empty: str
    """Reason why there is nothing to show; "" if there is something."""


def ratios_info(
    definition: StudyDefinition,
    trials: Sequence[Trial],
    *,
    only: Collection[tuple[int, int]] | None = None,
    title: str = "",
) -> RatiosInfo:
    """Collect what the figures show: the networks of all complete search trials, by their target.

    The target of a trial with one network is its sampled target. A trial with a whole front has a target for each
    network: the requested one, or the network's cost if that is unknown (in scope ``conv`` as the paper's b).

    Args:
        definition: Definition of the study, which says what a target counts.
        trials: Trials of the study, in any state.
        only: Trial and position of the networks to show; None for all.
        title: Title above the figure.
    """
    layers = layers_of(trials)
    names = tuple(layer.layer for layer in layers)
    budget = definition.budget
    where = usual_fingerprints(candidate for trial in trials for candidate in trial.candidates)
    lines = []
    for trial in trials:
        if trial.kind is not TrialKind.SEARCH or trial.state is not TrialState.COMPLETE:
            continue
        for position, candidate in enumerate(trial.candidates):
            if only is not None and (trial.number, position) not in only:
                continue
            splits = {split.layer: split for split in candidate.splits}
            target = _target(budget, trial, candidate, where)
            if target is None or not splits or not set(splits) <= set(names):
                continue
            active = tuple(splits[name].active_channels if name in splits else 0 for name in names)
            ratios = tuple(splits[name].ratio if name in splits else 0.0 for name in names)
            name = f"trial {trial.number}" + (f".{position}" if len(trial.candidates) > 1 else "")
            lines.append(RatioLine(trial.number, name, target, _target_text(budget, target), active, ratios))
    # b falls as costs rise; networks with one target are in the order of their trials
    lines.sort(key=lambda line: (_rank(budget, line.target), line.number))
    reason = "" if lines else _NONE if only is None else "No learned network is on the front."
    return RatiosInfo(title, layers, tuple(lines), tuple(sorted(definition.baselines, reverse=True)), reason)


def _rank(budget: BudgetSpec, target: float) -> float:
    return -target if budget.scope == "conv" else target


def _target(budget: BudgetSpec, trial: Trial, candidate: Candidate, where: Mapping[str, str]) -> float | None:
    sampled = trial.parameters.get("target")
    if len(trial.candidates) == 1 and isinstance(sampled, (int, float)):
        return float(sampled)
    if budget.scope != "conv":
        metric = COSTS[budget.unit]
        return candidate.target or candidate.score(metric, fingerprint=where.get(metric))
    if not candidate.splits:
        return None
    # b is the divisor of a uniform ratio of equal cost, and costs are quadratic in n: b = sqrt(all / active)
    if budget.unit == "macs":
        whole = sum(split.macs / split.ratio**2 for split in candidate.splits)
        return math.sqrt(whole / (candidate.target or sum(split.macs for split in candidate.splits)))
    squares = [(split.channels**2, split.active_channels**2) for split in candidate.splits]
    return math.sqrt(sum(c for c, _ in squares) / sum(n for _, n in squares))


def _target_text(budget: BudgetSpec, target: float) -> str:
    if budget.scope == "conv":
        return f"b = {target:.3g}"
    metric = COSTS[budget.unit]
    return f"{format_short(metric, target)} {'ms' if budget.unit == 'latency' else budget.unit}"


def spread(info: RatiosInfo, count: int) -> tuple[RatioLine, ...]:
    """Return at most ``count`` lines with evenly spaced targets on a logarithmic scale, including both ends."""
    return tuple(info.lines[k] for k in spread_places([line.target for line in info.lines], count))


def map_numbers(budget: BudgetSpec, targets: Mapping[int, float]) -> list[int]:
    """Return the numbers of the trials that the map of ratios shows, of trials with one network each.

    Args:
        budget: Budget of the study.
        targets: Sampled targets by the number of the trial.
    """
    ordered = sorted(targets, key=lambda number: (_rank(budget, targets[number]), number))
    return [ordered[k] for k in spread_places([targets[number] for number in ordered], _MOST_ROWS)]


def spread_places(targets: Sequence[float], count: int) -> list[int]:
    """Return at most ``count`` places of sorted ``targets``, evenly spaced on a logarithmic scale, with both ends."""
    if len(targets) <= count:
        return list(range(len(targets)))
    logs = np.log(np.asarray(targets, dtype=np.float64))
    free = np.ones(len(logs), dtype=bool)
    for wanted in np.linspace(logs[0], logs[-1], count):
        free[np.argmin(np.where(free, np.abs(logs - wanted), np.inf))] = False
    return [int(k) for k in np.flatnonzero(~free)]


def _hover(line: RatioLine, layers: Sequence[Layer]) -> list[list[object]]:
    return [
        [layer.layer, n, layer.channels, f"{ratio:.3g}", line.label, line.number, line.name]
        for layer, n, ratio in zip(layers, line.active_channels, line.ratios, strict=True)
    ]


_HOVER = (
    "%{customdata[4]} (%{customdata[6]})<br>%{customdata[0]}<br>"
    "%{customdata[1]} of %{customdata[2]} channels (%{customdata[3]})<extra></extra>"
)


def ratios_figure(info: RatiosInfo) -> go.Figure:
    """Draw a line of ratios for each of a few targets, beside the uniform ratios."""
    from plotly.colors import sample_colorscale  # slow to load: the service starts without it

    figure = go.Figure()
    layout(figure, info.title, height=460)
    if info.empty:
        return empty(figure, info.empty)
    many = len(info.layers) > _MANY
    # more lines would hide one another; the map shows all networks
    lines = spread(info, 3 if many else 6)[::-1]
    shades = [LEGIBLE["Plasma"] * k / max(1, len(lines) - 1) for k in range(len(lines))]
    for place, (line, color) in enumerate(zip(lines, sample_colorscale("Plasma", shades), strict=True)):
        # Levels often coincide: a small offset, with the most expensive on top, keeps each line visible.
        aside = 0.0 if len(lines) == 1 else 0.36 * (0.5 - place / (len(lines) - 1))
        figure.add_trace(
            go.Scatter(
                x=list(range(len(line.ratios))),
                y=[level(ratio) + aside if ratio else None for ratio in line.ratios],
                mode="lines" if many else "lines+markers",
                name=f"{line.label} ({line.name})",
                line={"color": color, "width": 2, "shape": "hvh"},
                marker={"size": 7},
                customdata=_hover(line, info.layers),
                hovertemplate=_HOVER,
            )
        )
    lowest = min(level(ratio) for ratio in (*info.uniform, *(r for line in lines for r in line.ratios if r)))
    mark_layers(figure, info.layers)
    figure.update_yaxes(title=shifted("split ratio n/C", len(lines)), **level_axis(lowest))
    for ratio in info.uniform:
        figure.add_hline(
            y=level(ratio),
            line={"dash": "dot", "color": UNIFORM, "width": 1},
            annotation={
                "text": f"uniform {fraction(ratio)}",
                "font": {"size": 11, "color": UNIFORM},
                "xanchor": "left",
                "x": 1.005,
            },
            annotation_position="right",
        )
    figure.update_layout(legend={**BESIDE, "x": 1.15})
    return figure


def ratios_map_figure(info: RatiosInfo) -> go.Figure:
    """Draw the ratios as a map: a column for each layer, a row for each network, the most expensive on top."""
    figure = go.Figure()
    lines = spread(info, _MOST_ROWS)
    layout(figure, info.title, height=min(900, 170 + 24 * max(4, len(lines))))
    if info.empty:
        return empty(figure, info.empty)
    cells = [
        Cell(row, k - 0.48, k + 0.48, level(line.ratios[k]), tuple(hover))
        for row, line in enumerate(lines)
        for k, hover in enumerate(_hover(line, info.layers))
        if line.ratios[k]
    ]
    draw_map(figure, cells, _HOVER)
    mark_layers(figure, info.layers, over=True)
    rows = range(0, len(lines), math.ceil(len(lines) / 30))
    figure.update_yaxes(
        tickvals=list(rows),
        ticktext=[f"{lines[row].label} ({lines[row].name})" for row in rows],
        range=[-0.6, len(lines) - 0.4],
        showgrid=False,
        automargin=True,
    )
    return figure
