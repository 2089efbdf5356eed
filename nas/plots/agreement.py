"""What a search believed of its networks against how they did when they were trained from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from types import MappingProxyType
from typing import NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from nas.candidate import Candidate
from nas.findings.scores import BELIEFS, scored_split
from nas.metrics import METRICS, Direction, EvaluationKind
from nas.plots.style import COLORS, empty, layout, shown
from nas.trial import Trial, TrialKind

_NAMES: Mapping[EvaluationKind, str] = MappingProxyType(
    {
        EvaluationKind.PREDICTED: "predicted by the value model",
        EvaluationKind.INHERITED: "with weights of the search",
        EvaluationKind.FINETUNED: "fine-tuned",
    }
)
_FEWEST = 3
"""Networks below which an order says nothing."""


class AgreementMark(NamedTuple):
    """One network: what was believed, and the mean of its retrainings, in the units of the axes' labels."""

    number: int
    """Of the trial that it came from."""
    architecture_id: str
    believed: float
    retrained: float
    std: float | None
    """Over seeds; None with one of them."""
    seeds: int


class AgreementPanel(NamedTuple):
    """One kind of belief against retraining."""

    believed: EvaluationKind
    believed_metric: str
    retrained_metric: str
    data_split: str
    """Of the retrained scores."""
    marks: tuple[AgreementMark, ...]
    tau: float | None
    """Kendall's tau-b of being better in both; None with fewer than 3 networks, or if all are equal."""


class AgreementInfo(NamedTuple):
    """What the figure shows: a panel for each kind of belief."""

    title: str
    panels: tuple[AgreementPanel, ...]
    empty: str
    """Why there is nothing to show; "" if there is."""


def agreement_info(trials: Sequence[Trial], *, title: str = "") -> AgreementInfo:
    """Say what the figure of a study shows.

    A belief and a retraining belong together if they are of one architecture, whichever trials they were observed in.

    Args:
        trials: Of one study.
        title: Shown above.
    """
    panels = tuple(panel for kind in BELIEFS if (panel := _panel(trials, kind)) is not None)
    reason = ""
    if not panels:
        reason = (
            "No network of this search has been trained from scratch yet; the final comparison of a study "
            "(final: {candidates: ...} in its definition) does that."
        )
    return AgreementInfo(title, panels, reason)


def _panel(trials: Sequence[Trial], believed: EvaluationKind) -> AgreementPanel | None:
    searched = [(trial, c) for trial in trials if trial.kind is TrialKind.SEARCH for c in trial.candidates]
    for retrained_metric in ("top1", "loss"):
        every = [candidate for trial in trials for candidate in trial.candidates]
        data_split = scored_split(every, retrained_metric, EvaluationKind.RETRAINED)
        observed = _retrained(trials, retrained_metric, data_split)
        for metric in dict.fromkeys((retrained_metric, "top1", "loss")):
            marks = _marks(searched, observed, believed, metric)
            if marks:
                tau = _tau(marks, metric, retrained_metric)
                return AgreementPanel(believed, metric, retrained_metric, data_split, marks, tau)
    return None


def _retrained(trials: Sequence[Trial], metric: str, data_split: str) -> dict[str, list[float]]:
    """Return architecture id to what its retrainings scored; where there are none, to the score that it carries."""
    found: list[dict[str, list[float]]] = []
    for of_their_own in (False, True):
        values: dict[str, list[float]] = {}
        for trial in trials:
            for candidate in trial.candidates if (trial.kind is TrialKind.RETRAIN) is of_their_own else ():
                score = candidate.score(metric, EvaluationKind.RETRAINED, data_split)
                if score is not None:
                    values.setdefault(candidate.architecture.id, []).append(shown(metric, score))
        found.append(values)
    return found[0] | found[1]


def _marks(
    searched: Sequence[tuple[Trial, Candidate]],
    observed: Mapping[str, Sequence[float]],
    believed: EvaluationKind,
    metric: str,
) -> tuple[AgreementMark, ...]:
    marks = []
    for trial, candidate in searched:
        belief = candidate.score(metric, believed)
        values = observed.get(candidate.architecture.id)
        if belief is None or not values:
            continue
        std = stdev(values) if len(values) > 1 else None
        marks.append(
            AgreementMark(
                trial.number, candidate.architecture.id, shown(metric, belief), fmean(values), std, len(values)
            )
        )
    return tuple(marks)


def _tau(marks: Sequence[AgreementMark], metric: str, retrained_metric: str) -> float | None:
    """Return Kendall's tau-b: 1 if what was believed to be better always was, 0 if it was chance."""
    if len(marks) < _FEWEST:
        return None
    from scipy.stats import kendalltau

    opposed = METRICS[metric].direction is not METRICS[retrained_metric].direction
    tau = float(kendalltau([mark.believed for mark in marks], [mark.retrained for mark in marks]).statistic)
    if tau != tau:  # all equal on one side
        return None
    return -tau if opposed else tau


def agreement_figure(info: AgreementInfo) -> go.Figure:
    """Draw the panels side by side; to the right and upwards is better in each."""
    if info.empty:
        figure = go.Figure()
        layout(figure, info.title)
        return empty(figure, info.empty)
    count = len(info.panels)
    titles = [f"{_NAMES[panel.believed]}<br>{_tau_text(panel)}" for panel in info.panels]
    figure = make_subplots(rows=1, cols=count, subplot_titles=titles, horizontal_spacing=0.1 if count > 1 else None)
    layout(figure, info.title, height=440)
    figure.update_layout(showlegend=False, margin_t=100)
    figure.update_annotations(font_size=13)
    for column, panel in enumerate(info.panels, start=1):
        _draw(figure, panel, column)
    return figure


def _tau_text(panel: AgreementPanel) -> str:
    networks = f"{len(panel.marks)} network{'s' if len(panel.marks) != 1 else ''}"
    if panel.tau is None:
        return f"{networks}: {'too few for' if len(panel.marks) < _FEWEST else 'equal scores give'} no Kendall's tau"
    return f"Kendall's tau {panel.tau:.2f}, {networks}"


def _draw(figure: go.Figure, panel: AgreementPanel, column: int) -> None:
    if panel.believed_metric == panel.retrained_metric:
        ends = [value for mark in panel.marks for value in (mark.believed, mark.retrained)]
        span = [min(ends), max(ends)]
        line = {"color": COLORS[TrialKind.RANDOM], "width": 1, "dash": "dash"}
        diagonal = go.Scatter(x=span, y=span, mode="lines", line=line, hoverinfo="skip")
        figure.add_trace(diagonal, row=1, col=column)
    errors = [mark.std for mark in panel.marks]
    figure.add_trace(
        go.Scatter(
            x=[mark.believed for mark in panel.marks],
            y=[mark.retrained for mark in panel.marks],
            error_y={"type": "data", "array": errors, "thickness": 1, "width": 3} if any(errors) else None,
            mode="markers",
            marker={"color": COLORS[TrialKind.SEARCH], "size": 9, "opacity": 0.8},
            customdata=[[mark.number, mark.seeds] for mark in panel.marks],
            hovertemplate=(
                "trial %{customdata[0]}<br>believed %{x:.4~g}<br>retrained %{y:.4~g} "
                "(mean of %{customdata[1]})<extra></extra>"
            ),
        ),
        row=1,
        col=column,
    )
    figure.update_xaxes(title=f"{METRICS[panel.believed_metric].label}, validation", row=1, col=column)
    label = f"{METRICS[panel.retrained_metric].label}, retrained, {panel.data_split}"
    figure.update_yaxes(title=label if column == 1 else None, row=1, col=column)
    if METRICS[panel.believed_metric].direction is Direction.MINIMIZE:
        figure.update_xaxes(autorange="reversed", row=1, col=column)
    if METRICS[panel.retrained_metric].direction is Direction.MINIMIZE:
        figure.update_yaxes(autorange="reversed", row=1, col=column)
