"""Fronts of several methods in one figure, beside uniform and random ratios; all scores are of one evaluation kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from types import MappingProxyType
from typing import NamedTuple

import plotly.graph_objects as go

from nas.candidate import Candidate
from nas.definition.constraints import broken
from nas.definition.methods import METHODS
from nas.errors import InputError
from nas.finalist import Role
from nas.findings.pareto import front_mask
from nas.findings.scores import candidate_values, check_objectives, common_kind, scored_split, usual_fingerprints
from nas.metrics import BY_TRAINING, METRICS, EvaluationKind
from nas.plots.layers import fraction
from nas.plots.pareto import staircase
from nas.plots.style import BESIDE, COLORS, SYMBOLS, empty, layout, learned_style, shown
from nas.study import Study
from nas.trial import Trial, TrialKind

UNIFORM, RANDOM, SCALED, ABLATED = (
    role.value for role in (Role.UNIFORM, Role.RANDOM, Role.SCALED, Role.ABLATED)
)
_NAMES: Mapping[str, str] = MappingProxyType(
    {
        UNIFORM: "uniform ratio", RANDOM: "random networks", SCALED: "published shape, scaled",
        ABLATED: "one kind alone",
    }
)  # fmt: skip
_STYLES: Mapping[str, TrialKind] = MappingProxyType(
    {
        UNIFORM: TrialKind.BASELINE, RANDOM: TrialKind.RANDOM, SCALED: TrialKind.RETRAIN,
        ABLATED: TrialKind.CHEAPER,
    }
)  # fmt: skip
"""Kind of trial whose colour and symbol networks that are not learned have."""
_NAMED = (UNIFORM, ABLATED)
"""Series whose marks have their labels beside them."""
_NO_FRONT = (RANDOM, ABLATED)
_MOST_ABOVE = 4
"""Number of series whose legend has room beside the title."""
_PARTS: Mapping[str, str] = MappingProxyType(
    {"data": "part of the data", "model": "network", "training": "training", "final": "final training"}
)
"""Sections of a definition that scores depend on, apart from the images."""

Searched = tuple[Study, Sequence[Trial]]


class MethodMark(NamedTuple):
    """A network in the units of the axes; with several seeds, its mean."""

    series: str
    """The method that learned the ratios, or ``uniform``, ``random``, ``scaled`` or ``ablated``."""
    study: str
    number: int
    """Number of its first trial."""
    label: str
    x: float
    y: float
    std: float | None
    """Standard deviation over the seeds; None with one seed."""
    seeds: int
    feasible: bool = True
    """Whether it keeps the constraints of its study; otherwise it is not on a front."""


class MethodsInfo(NamedTuple):
    """What the figure of fronts by method shows."""

    title: str
    x_label: str
    y_label: str
    evaluation: EvaluationKind | None
    marks: tuple[MethodMark, ...]
    fronts: Mapping[str, tuple[tuple[float, float], ...]]
    """Corners of the staircase of each series, by ascending x."""
    empty: str
    """Reason why there is nothing to show; "" if there is something."""


class _Score(NamedTuple):
    value: float
    std: float | None


def check_comparable(studies: Sequence[Study]) -> tuple[str, ...]:
    """Refuse studies with different data sets; return notes on the other differences.

    Raises:
        InputError: If two studies have different data sets; the message names them.
    """
    notes = []
    for study in studies[1:]:
        first, other = studies[0], study
        if not same_data(first, other):
            raise InputError(
                f"studies that are compared must have the same data set, but {first.name} has {_data(first)} and "
                f"{other.name} has {_data(other)}"
            )
        differing = [words for part, words in _PARTS.items() if _section(first, part) != _section(other, part)]
        if first.definition.sweep.seed != other.definition.sweep.seed:
            differing.insert(0, "their validation images (sweep.seed)")
        if differing:
            notes.append(f"{first.name} and {other.name} differ in {', '.join(differing)}, not only in the method.")
    return tuple(notes)


def same_data(first: Study, other: Study) -> bool:
    """Return whether the scores of two studies are about the same images."""
    return _data(first) == _data(other)


def _data(study: Study) -> str:
    data = study.definition.data
    return f"{data.folder or data.name} at {data.size} pixels"


def _section(study: Study, name: str) -> object:
    return getattr(study.definition, name)


def methods_info(
    searched: Sequence[Searched],
    x: str = "macs",
    y: str = "top1",
    *,
    kinds: Sequence[EvaluationKind] = BY_TRAINING,
    title: str = "",
) -> MethodsInfo:
    """Collect what the figure of ``searched`` shows.

    The evaluation kind is the first of ``kinds`` that learned networks of every study have. Retrained networks are
    compared on test images if all of them have such scores. The seeds of one network form one mark.

    Args:
        searched: Studies with their trials.
        x: Metric of the horizontal axis.
        y: Metric of the vertical axis: an evaluated one.
        kinds: Evaluation kinds, the most reliable first.
        title: Title above the figure.

    Raises:
        InputError: If a metric is unknown, or the studies are of different data sets.
    """
    check_objectives((x, y))
    check_comparable([study for study, _ in searched])
    kind = _kind(searched, y, kinds)
    every = [candidate for _, trials in searched for trial in trials for candidate in trial.candidates]
    data_split = "validation" if kind is None else scored_split(every, y, kind)
    where = usual_fingerprints(every).get(x)
    marks = [] if kind is None else [m for s, t in searched for m in _marks(s, t, (x, where), y, kind, data_split)]
    fronts = {name: _front([mark for mark in marks if mark.series == name], x, y) for name in _series(marks)}
    reason = "" if marks else f"No network has been scored in {METRICS[y].short} yet: see nas run --resume."
    weights = "" if kind is None else f", {kind.value}, {data_split} data"
    return MethodsInfo(
        title, METRICS[x].label, METRICS[y].label + weights, kind, tuple(marks), MappingProxyType(fronts), reason
    )


def _series(marks: Sequence[MethodMark]) -> list[str]:
    known = [*METHODS, *_NAMES]
    return sorted({mark.series for mark in marks}, key=known.index)


def _series_of(study: Study, trial: Trial) -> str:
    match trial.kind:
        case TrialKind.SEARCH:
            return study.definition.method
        case TrialKind.BASELINE:
            return UNIFORM
        case TrialKind.RANDOM:
            return RANDOM
    role = Role.LEARNED if trial.finalist is None else trial.finalist.role
    return role.value if role.value in _NAMES else study.definition.method


def _kind(searched: Sequence[Searched], y: str, kinds: Sequence[EvaluationKind]) -> EvaluationKind | None:
    """Return the kind that learned networks of the studies have in common; without learned ones, that of all."""
    learned = [
        [candidate for trial in trials if _series_of(study, trial) not in _NAMES for candidate in trial.candidates]
        for study, trials in searched
    ]
    every = [candidate for _, trials in searched for trial in trials for candidate in trial.candidates]
    return common_kind(learned, y, kinds) or common_kind([every], y, kinds)


def _score(candidate: Candidate, metric: str, kind: EvaluationKind, data_split: str) -> _Score | None:
    """Return the newest value of ``metric`` on ``data_split``."""
    wanted = (metric, kind, data_split)
    found = [entry for entry in candidate.evaluations if (entry.metric, entry.kind, entry.data_split) == wanted]
    return _Score(found[-1].value, found[-1].std) if found else None


def _marks(
    study: Study, trials: Sequence[Trial], of: tuple[str, str | None], y: str, kind: EvaluationKind, data_split: str
) -> list[MethodMark]:
    """Return the networks of a study; trainings of one architecture in one role with several seeds form one mark.

    Args:
        study: Study of the trials.
        trials: Trials of the study.
        of: Metric of the horizontal axis, with the circumstances of a measured one.
        y: Metric of the vertical axis.
        kind: Evaluation kind.
        data_split: Data of the scores.
    """
    x, where = of
    own = usual_fingerprints(c for trial in trials for c in trial.candidates)  # as the study's front reads its limits
    groups: dict[tuple[str | int, ...], list[tuple[Trial, Candidate, _Score]]] = {}
    for trial in trials:
        for position, candidate in enumerate(trial.candidates):
            score = _score(candidate, y, kind, data_split)
            if score is None or candidate.score(x, fingerprint=where) is None:
                continue
            series = _series_of(study, trial)
            alone = (trial.number, position) if kind is not EvaluationKind.RETRAINED else ()
            groups.setdefault((series, candidate.architecture.id, *alone), []).append((trial, candidate, score))
    marks = []
    for key, members in groups.items():
        series = str(key[0])
        # a network of the search may carry the mean of its retrainings, which are listed one by one as well
        members = [member for member in members if member[0].kind is TrialKind.RETRAIN] or members
        trial, candidate, score = members[0]
        values = [shown(y, member.value) for _, _, member in members]
        std = stdev(values) if len(values) > 1 else None if score.std is None else shown(y, score.std)
        cost = candidate.score(x, fingerprint=where)
        assert cost is not None  # networks without a cost were left out above
        label = _label(series, trial)
        kept = not broken(study.definition.constraints, candidate_values(candidate, kind, own))
        marks.append(
            MethodMark(series, study.name, trial.number, label, shown(x, cost), fmean(values), std, len(values), kept)
        )
    return marks


def _label(series: str, trial: Trial) -> str:
    if series == ABLATED and trial.finalist is not None and trial.finalist.kind is not None:
        return trial.finalist.kind
    ratio = trial.parameters.get("ratio") if trial.finalist is None else trial.finalist.ratio
    return fraction(float(ratio)) if series == UNIFORM and isinstance(ratio, (int, float)) else trial.label


def _front(every: Sequence[MethodMark], x: str, y: str) -> tuple[tuple[float, float], ...]:
    marks = [mark for mark in every if mark.feasible]
    mask = front_mask([[mark.x, mark.y] for mark in marks], (x, y))
    return staircase(sorted({(mark.x, mark.y) for mark, flag in zip(marks, mask, strict=True) if flag}), x, y)


def methods_figure(info: MethodsInfo) -> go.Figure:
    """Draw a staircase and marks for each method, and uniform and random ratios beside them."""
    figure = go.Figure()
    layout(figure, info.title)
    if info.empty:
        return empty(figure, info.empty)
    for series in _series(info.marks):
        _draw(figure, info, series)
    figure.update_xaxes(title=info.x_label)
    figure.update_yaxes(title=info.y_label)
    if len(_series(info.marks)) > _MOST_ABOVE:
        figure.update_layout(legend={**BESIDE})
    return figure


def _draw(figure: go.Figure, info: MethodsInfo, series: str) -> None:
    baseline = _STYLES.get(series)
    color, symbol = learned_style(series) if baseline is None else (COLORS[baseline], SYMBOLS[baseline])
    if series not in _NO_FRONT:
        corners = info.fronts[series]
        figure.add_trace(
            go.Scatter(
                x=[x for x, _ in corners],
                y=[y for _, y in corners],
                mode="lines",
                line={"color": color, "width": 1.5, "dash": "dot" if series in _NAMES else "solid"},
                legendgroup=series,
                showlegend=False,
                hoverinfo="skip",
            )
        )
    marks = [mark for mark in info.marks if mark.series == series]
    errors = [mark.std for mark in marks]
    figure.add_trace(
        go.Scatter(
            x=[mark.x for mark in marks],
            y=[mark.y for mark in marks],
            error_y={"type": "data", "array": errors, "thickness": 1.2, "width": 4} if any(errors) else None,
            mode="markers+text" if series in _NAMED else "markers",
            text=[mark.label for mark in marks] if series in _NAMED else None,
            textposition="top left" if series == UNIFORM else "middle right",
            textfont={"color": color, "size": 11},
            name=_NAMES.get(series, f"learned: {series}"),
            legendgroup=series,
            marker={"symbol": symbol, "size": 10, "color": color, "opacity": 0.85},
            customdata=[[m.study, m.number, m.label, _spread_text(m)] for m in marks],
            hovertemplate=(
                "%{customdata[0]}, trial %{customdata[1]} (%{customdata[2]})<br>"
                f"{info.x_label}: %{{x:,.6~g}}<br>%{{y:.4~g}}%{{customdata[3]}}<extra></extra>"
            ),
        )
    )


def _spread_text(mark: MethodMark) -> str:
    return "" if mark.std is None else f" ± {mark.std:.2g} over {mark.seeds} seeds"
