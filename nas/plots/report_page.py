"""The page of a report on studies: facts, findings, tables and pictures, made from the data of the store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from nas.definition.searched import network_word
from nas.definition.study import StudyDefinition
from nas.finalist import Role
from nas.findings.comparison import Difference, Row, comparison_of
from nas.findings.comparison_sentences import answers_of
from nas.findings.latency_sentences import mark_explained, marked_value
from nas.findings.pareto import pareto_points
from nas.findings.power import foresight
from nas.findings.scores import SEARCHED, judged_metrics, searched_kind
from nas.formatting import format_moment, format_number, format_short, format_value
from nas.metrics import METRICS, EvaluationKind, listed_metrics
from nas.plots.agreement import agreement_figure, agreement_info
from nas.plots.layers import fraction, layers_of
from nas.plots.methods import MethodsInfo, Searched, check_comparable, methods_figure, methods_info
from nas.plots.page import Page, Picture, Section, Table
from nas.plots.ratios import ratios_figure, ratios_info, ratios_map_figure
from nas.plots.trajectories import trajectories_figure, trajectories_info
from nas.study import Study, StudyState
from nas.trial import Trial, TrialKind, TrialState

_MOST_COLUMNS = 8
_SHOWN = (TrialState.COMPLETE, TrialState.RUNNING, TrialState.INTERRUPTED)
_FRONTS = (
    "Each mark is a network, each line the best that a method reaches at a cost. Weights: {kind}, and no other kind. "
    "Vertical bars are the standard deviation over seeds, if there are several. Uniform ratios carry their ratio."
)
_LINES = (
    "A line for each of a few targets between both ends of the searched range. Lines on one level are drawn beside one "
    "another, and uniform baselines dotted."
)
_B = " A target b costs as much in the partial convolutions as the uniform ratio 1/b."
_MAP = (
    "A row for each learned network (of more than 60, a selection), the most expensive target on top; a darker cell has"
    " more active channels."
)
_LEVELS = (
    "The share of active channels in each layer at the end of each epoch, and above it the phases of the training."
)
_BELIEFS = (
    "Each mark is a network of the search: its score in the search, and its score after training from "
    "scratch. Better is to the right and upwards. Kendall's tau is 1 if the order is the same, 0 if the scores are"
    " unrelated. On the dashed line both scores are equal."
)


class Reported(NamedTuple):
    """A study with the trials that a report shows."""

    study: Study
    trials: Sequence[Trial]
    followed: Trial | None
    """Trial whose levels are drawn, with its history."""


def make_page(reported: Sequence[Reported], *, made_at: datetime, version: str) -> Page:
    """Return the report on studies.

    Args:
        reported: Studies with their trials, at least one; all have the same data set.
        made_at: Time that the colophon shows.
        version: Version of the program, for the colophon.

    Raises:
        InputError: If the studies have different data sets.
    """
    names = [entry.study.name for entry in reported]
    searched = [(entry.study, entry.trials) for entry in reported]
    notes = check_comparable([study for study, _ in searched])
    alone = len(reported) == 1
    return Page(
        title=f"Report on {', '.join(names)}" if alone else "Report on several studies",
        notes=notes,
        pictures=_fronts(searched),
        sections=tuple(_section(entry, suffix="" if alone else f"-{entry.study.name}") for entry in reported),
        colophon=f"Made by nas {version} on {made_at:%Y-%m-%d %H:%M} UTC from the database of the studies.",
    )


def _fronts(searched: Sequence[Searched]) -> tuple[Picture, ...]:
    """Return the front of the most reliable evaluation kind; if that is retraining, the front of the search as well."""
    names = ", ".join(study.name for study, _ in searched)
    quality, costs = judged_metrics(searched[0][0].definition.objectives)
    best = methods_info(searched, costs[0], quality, title=f"{names}: fronts by method")
    pictures = [_front("fronts", "Fronts by method", best)]
    if best.evaluation is EvaluationKind.RETRAINED:
        title = f"{names}: fronts of the search"
        search = methods_info(searched, costs[0], quality, kinds=SEARCHED, title=title)
        pictures.append(_front("fronts-search", "Fronts of the search", search))
    return tuple(pictures)


def _front(name: str, heading: str, info: MethodsInfo) -> Picture:
    caption = "" if info.evaluation is None else _FRONTS.format(kind=info.evaluation.value)
    return Picture(name, heading, caption, methods_figure(info))


def best_learned(study: Study, trials: Sequence[Trial]) -> int | None:
    """Return the number of the best search trial on the front; without scores, of any trial that has settled."""
    quality, costs = judged_metrics(study.definition.objectives)
    kind = searched_kind(trials, (quality,))
    points = pareto_points(trials, (quality, *costs), kind, study.definition.constraints)
    learned = [point for point in points if point.kind is TrialKind.SEARCH]
    if learned:
        return max(learned, key=lambda point: (point.on_front, point.values[quality])).number
    settled = [t for t in trials if t.kind is TrialKind.SEARCH and t.state in _SHOWN]
    return settled[0].number if settled else None


def _section(entry: Reported, *, suffix: str) -> Section:
    study, trials = entry.study, entry.trials
    definition = study.definition
    answers = _answers(study, trials)
    tables = (_final(study, trials), _networks(study, trials), _ratios(entry))
    facts = (
        ("method", definition.method),
        ("data", definition.data.folder or definition.data.name),
        *([("images", study.data.sentence())] if study.data else []),
        ("network", definition.model.model),
        ("state", study.state.value),
        ("trials", _trials_text(trials)),
        ("created", format_moment(study.created_at, UTC)),
    )
    return Section(
        study.name,
        definition.question.strip(),
        facts,
        _status(study, trials),
        answers,
        tuple(sentence for sentence in study.report if sentence not in answers),
        tuple(table for table in tables if table is not None),
        _pictures(entry, suffix),
    )


def _answers(study: Study, trials: Sequence[Trial]) -> tuple[str, ...]:
    """Return the answers of the final comparison, from the trainings so far, and which difference it can show."""
    said = answers_of(comparison_of(study, trials), study.definition.final)
    expected = foresight(study.comparison_plan, study.definition) if said else None
    return (*said, *([] if expected is None else [expected]))


def _trials_text(trials: Sequence[Trial]) -> str:
    ended = sum(trial.state.ended for trial in trials)
    failed = sum(trial.state is TrialState.FAILED for trial in trials)
    stopped = sum(trial.state is TrialState.PRUNED for trial in trials)
    counts = ((stopped, "stopped early"), (failed, "failed"))
    return f"{ended} of {len(trials)} ended" + "".join(f", {count} {word}" for count, word in counts if count)


def _status(study: Study, trials: Sequence[Trial]) -> str:
    """Say why the results are provisional, and which command continues the study."""
    if study.state is StudyState.FINISHED:
        return ""
    ended = sum(trial.state.ended for trial in trials)
    so_far = f"{ended} of {format_number(study.planned, 'planned trial')} have ended"
    if study.state in (StudyState.QUEUED, StudyState.RUNNING):
        return f"This study is {study.state.value}: {so_far}. What follows is provisional."
    why = f" ({study.reason})" if study.reason else ""
    return f"This study is {study.state.value}{why}: {so_far}. To continue: nas run --resume {study.name}"


def _pictures(entry: Reported, suffix: str) -> tuple[Picture, ...]:
    study, trials = entry.study, entry.trials
    ratios = ratios_info(study.definition, trials, title=f"{study.name}: split ratio of each layer by target")
    number = "" if entry.followed is None else f" of trial {entry.followed.number}"
    levels = trajectories_info(entry.followed, layers_of(trials), title=f"{study.name}: levels{number}")
    beliefs = agreement_info(trials, title=f"{study.name}: scores during the search against scores after retraining")
    return (
        Picture(
            f"ratios{suffix}",
            "Ratio of each layer by target",
            "" if ratios.empty else _LINES + (_B if study.definition.budget.scope == "conv" else ""),
            ratios_figure(ratios),
        ),
        Picture(
            f"ratios-map{suffix}",
            "Ratio of each layer, every network",
            "" if ratios.empty else _MAP,
            ratios_map_figure(ratios),
        ),
        Picture(
            f"levels{suffix}",
            f"Levels{number} over its training" if number else "Levels over a training",
            "" if levels.empty else _LEVELS + _stay(study.definition),
            trajectories_figure(levels),
        ),
        Picture(
            f"agreement{suffix}",
            "Scores during the search, against retraining",
            "" if beliefs.empty else _BELIEFS,
            agreement_figure(beliefs),
        ),
    )


def _stay(definition: StudyDefinition) -> str:
    if not definition.search_method.levels_stay:
        return ""
    return f" A {definition.method} trains many levels at once, so these stay where they are."


def _final(study: Study, trials: Sequence[Trial]) -> Table | None:
    """Return the final comparison: networks of equal cost, trained from scratch."""
    comparison = comparison_of(study, trials)
    if not comparison:
        return None
    rows: list[tuple[str, ...]] = []
    for place, group in enumerate(comparison.groups):
        for row in group:
            # only the mean of several random networks is compared; it stands beside the first of them
            first = next(other for other in group if other.role is row.role) is row
            found = comparison.differences(row.role)[place] if first and row.role is not Role.LEARNED else None
            rows.append(_finalist(row, found, comparison.metric, comparison.cost_metric))
    quality, cost = METRICS[comparison.metric], METRICS[comparison.cost_metric]
    heads = ("network", "compared with", cost.short, "cost off", "seeds", quality.short, "std", "learned minus it")
    caption = (
        f"Trained from scratch at equal cost with the same seeds; {quality.label} on {comparison.data_split} images, "
        "means over the seeds. Differences are means over pairs with one seed, with 95 % intervals; those from random "
        f"{network_word(comparison.searched)}s are from their mean."
    )
    return Table("Final comparison", caption, heads, tuple(rows), words=2)


def _finalist(row: Row, found: Difference | None, metric: str, cost_metric: str) -> tuple[str, ...]:
    learned = row.role is Role.LEARNED
    return (
        row.label,
        "" if learned else row.candidate,
        format_short(cost_metric, row.cost),
        "" if learned else f"{round(row.off, 3) + 0.0:+.1%}",  # adding 0.0 turns -0.0 into 0.0
        str(row.seeds),
        "-" if row.mean is None else format_value(metric, row.mean),
        "-" if row.std is None else format_value(metric, row.std),
        "" if found is None else _difference(found, metric),
    )


def _difference(found: Difference, metric: str) -> str:
    margin = "" if found.margin is None else f" ± {format_value(metric, found.margin)}"
    return f"{'-' if found.mean < 0 else '+'}{format_value(metric, abs(found.mean))}{margin}"


def _networks(study: Study, trials: Sequence[Trial]) -> Table | None:
    """Return the front and the baselines, in the evaluation kind that the search ended with."""
    objectives = study.definition.objectives
    kind = searched_kind(trials, objectives)
    points = pareto_points(trials, objectives, kind, study.definition.constraints)
    if not any(point.kind is TrialKind.SEARCH for point in points):
        return None
    shown = [point for point in points if point.on_front or point.kind is TrialKind.BASELINE]
    shown.sort(key=lambda point: [point.values[name] for name in (*objectives[1:], objectives[0])])
    wanted = dict.fromkeys((*objectives, *listed_metrics()))
    metrics = [name for name in wanted if any(name in point.values for point in shown)]
    several = {trial.number for trial in trials if len(trial.candidates) > 1}
    names = [f"{point.number}.{point.position}" if point.number in several else str(point.number) for point in shown]
    targets = {line.name: line.label for line in ratios_info(study.definition, trials).lines}
    rows = [
        (
            name,
            "learned" if point.kind is TrialKind.SEARCH else point.label,
            "yes" if point.on_front else "",
            targets.get(f"trial {name}", "-"),
            *(marked_value(point, metric) for metric in metrics),
        )
        for name, point in zip(names, shown, strict=True)
    ]
    heads = ("trial", "ratios", "on the front", "target", *(METRICS[name].short for name in metrics))
    judged = " and ".join(METRICS[name].short for name in objectives)
    caption = f"Networks on the front of {judged}, and the baselines: {kind.value}, validation data."
    if any(point.measured_within_budget is False for point in shown):
        caption += f" {mark_explained(study.definition)}."
    return Table("Front and baselines", caption, heads, tuple(rows), words=3)


def _ratios(entry: Reported) -> Table | None:
    """Return active channels and ratios as a table: the picture as text, for the networks of the front."""
    info = ratios_info(entry.study.definition, entry.trials)
    lines = info.lines
    if len(lines) > _MOST_COLUMNS:
        definition = entry.study.definition
        points = pareto_points(entry.trials, definition.objectives, constraints=definition.constraints)
        front = {point.number for point in points if point.on_front}
        lines = tuple(line for line in lines if line.number in front)[:_MOST_COLUMNS] or lines[:_MOST_COLUMNS]
    if not lines:
        return None
    rows = [
        (
            layer.layer,
            str(layer.channels),
            *(
                f"{line.active_channels[k]} ({fraction(line.ratios[k])})" if line.ratios[k] else "absent"
                for line in lines
            ),
        )
        for k, layer in enumerate(info.layers)
    ]
    heads = ("layer", "channels C", *(f"{line.label}, {line.name}" for line in lines))
    which = "learned networks" if lines == info.lines else "learned networks of the front"
    caption = f"Active channels n, and the ratio n/C, of {which}."
    return Table("Ratios as a table", caption, heads, tuple(rows), folded=True)
