"""``nas pareto``: shows the front of a study as a table, CSV, JSON or figure."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nas.commands.options import (
    AsJson,
    Database,
    StudyRef,
    console,
    note,
    plain_table,
    say,
)
from nas.commands.remote import Server, open_source
from nas.definition.space import Parameters
from nas.errors import InputError
from nas.findings.latency_sentences import mark_explained, marked_value
from nas.findings.pareto import ParetoPoint
from nas.findings.scores import check_objectives
from nas.formatting import format_parameter
from nas.metrics import METRICS, Direction, EvaluationKind, listed_metrics
from nas.study import Study
from nas.trial import TrialKind

if TYPE_CHECKING:
    from nas.store import Front

_FIXED_COLUMNS = (
    "number", "position", "kind", "label", "on_front", "broken", "measured_within_budget", "architecture_id",
)  # fmt: skip
_WIDE = 110  # characters from which all sampled parameters have room


def pareto(
    study: StudyRef,
    x: Annotated[str | None, typer.Option("--x", metavar="METRIC", help="Horizontal axis, e.g. macs.")] = None,
    y: Annotated[str | None, typer.Option("--y", metavar="METRIC", help="Vertical axis, e.g. top1.")] = None,
    evaluation: Annotated[
        EvaluationKind | None,
        typer.Option(
            "--evaluation",
            help="Evaluation kind of the scores; different kinds cannot be compared. "
            "\\[the one that most networks have]",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="List each scored trial, not only the front and the baselines.")
    ] = False,
    infeasible: Annotated[
        bool, typer.Option("--infeasible", help="Let the front hold networks that break a constraint of the study.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: each scored trial, figures in full.")] = False,
    as_json: AsJson = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the front: .html, .png, .svg or .pdf.")
    ] = None,
    database: Database = None,
    server: Server = None,
) -> None:
    """Show the Pareto front of a study: the networks that no other network dominates.

    The front is taken over the study's objectives, or over --x and --y. It holds only networks that keep the study's
    constraints, such as latency_ms <= 20. Metrics: top1, top5, loss, macs, conv_macs,
    params, params_inference, activations, latency_ms, predicted_ms.

    \b
    Examples:
      nas pareto latest
      nas pareto digits --x latency_ms --y top1 --all
      nas pareto digits --csv > front.csv
      nas pareto digits --plot front.html
    """
    if as_csv and as_json:
        raise InputError("--csv and --json exclude each other")
    from nas.plots.save import check_figure_path

    if plot is not None:
        check_figure_path(plot)
    wanted = tuple(TrialKind) if everything or as_csv or as_json or plot is not None else (TrialKind.BASELINE,)
    with open_source(server, database) as store:
        found = store.study(study)
        objectives = axes(found, x, y)
        front = store.front(found.id, objectives, evaluation, dominated=wanted, infeasible=infeasible)
    if as_csv:
        _print_csv(front)
    elif as_json:
        from nas.wire.builders import pareto_from

        print(json.dumps(pareto_from(found, front, objectives).model_dump(mode="json"), indent=2))
    else:
        print_front(console(), found, front, objectives, everything=everything)
    if plot is not None:
        _plot(plot, found, front, objectives)


def axes(study: Study, x: str | None, y: str | None) -> tuple[str, ...]:
    """Return the objectives of the front: those of the study, or the two axes if one of them is given.

    The first objective is the vertical axis, the second the horizontal one.

    Raises:
        InputError: If a metric is unknown, or both are the same.
    """
    declared = study.definition.objectives
    if x is None and y is None:
        return declared
    wanted_y = y or next(name for name in ("top1", *declared) if name != x)
    wanted_x = x or next(name for name in (*declared[1:], "macs", "params") if name != wanted_y)
    check_objectives((wanted_y, wanted_x))
    return (wanted_y, wanted_x)


def print_front(
    out: Console, study: Study, front: Front, objectives: Sequence[str], *, everything: bool = False
) -> None:
    """Print a front as a table, sorted by its second objective.

    Args:
        out: Console for the output.
        study: Study of the points.
        front: Front with the dominated points that may be listed.
        objectives: Objectives of the front.
        everything: Whether dominated trials are listed as well; baselines always are.
    """
    if not front.scored:
        say(out, f"{study.name} has no trial with {' and '.join(objectives)} ({front.evaluation.value}) yet")
        return
    shown = [point for point in front.points if everything or point.on_front or point.kind is TrialKind.BASELINE]
    shown.sort(key=lambda point: [point.values[name] for name in (*objectives[1:], objectives[0])])
    brief = [name for name in listed_metrics(brief=True) if name not in objectives]
    extra = [name for name in brief if any(name in point.values for point in shown)]
    metrics = [*objectives, *extra]
    labels = [METRICS[name].short for name in metrics]
    what = "networks" if front.several else "trials"
    title = f"{study.name}: front of {front.scored} scored {what}, {front.evaluation.value} weights, validation data"
    table = plain_table("", "trial", "ratios", *labels, "sampled", right=["trial", *labels])
    for point in shown:
        table.add_row(
            "*" if point.on_front else "x" if point.broken else "",
            f"{point.number}.{point.position}" if point.number in front.several else str(point.number),
            "learned" if point.kind is TrialKind.SEARCH else point.label,
            *(marked_value(point, name) for name in metrics),
            _sampled(point, front.parameters[point.number], everything=out.width >= _WIDE),
            style="bold" if point.on_front else None,
        )
    say(out, title, style="bold")
    out.print(table)
    if front.hypervolume is not None:
        directions = ", ".join(f"{name} {_arrow(name)}" for name in objectives)
        volume = format_volume(front.hypervolume)
        say(out, f"* on the front; hypervolume {volume} ({directions}; up to the network at n = C)")
    if limits := _limits(front):
        say(out, limits)
    if any(point.measured_within_budget is False for point in shown):
        say(out, mark_explained(study.definition))


def _limits(front: Front) -> str:
    """Return how many networks break which constraints; empty if none does."""
    over = [f"{count} of {front.scored} break {limit}" for limit, count in front.broken.items() if count]
    return f"x {', '.join(over)}; they are not on the front (--infeasible lets them)" if over else ""


def format_volume(value: float) -> str:
    """Write a hypervolume, whose unit is that of the objectives' product."""
    return f"{value:,.{0 if value >= 1000 else 4}f}"


def _arrow(name: str) -> str:
    return "up" if METRICS[name].direction is Direction.MAXIMIZE else "down"


def _sampled(point: ParetoPoint, parameters: Parameters, *, everything: bool) -> str:
    if point.kind is not TrialKind.SEARCH:
        return ""
    shown = parameters if everything or "target" not in parameters else {"target": parameters["target"]}
    return " ".join(f"{name}={format_parameter(value)}" for name, value in shown.items())


def _print_csv(front: Front) -> None:
    parameters = front.parameters
    sampled = sorted({name for values in parameters.values() for name in values})
    metrics = [name for name in METRICS if any(name in point.values for point in front.points)]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    heads = [f"parameter.{name}" for name in sampled]
    writer.writerow([*_FIXED_COLUMNS, *metrics, *heads])
    for point in front.points:
        writer.writerow(
            [
                point.number,
                point.position,
                point.kind.value,
                point.label,
                str(point.on_front).lower(),
                "; ".join(point.broken),
                "" if point.measured_within_budget is None else str(point.measured_within_budget).lower(),
                point.architecture_id,
                *(point.values.get(name, "") for name in metrics),
                *(parameters[point.number].get(name, "") for name in sampled),
            ]
        )


def _plot(path: Path, study: Study, front: Front, objectives: Sequence[str]) -> None:
    from nas.plots.pareto import pareto_figure, pareto_info
    from nas.plots.save import save_figure

    title = f"{study.name} ({front.evaluation.value})"
    info = pareto_info(front.points, x=objectives[1], y=objectives[0], title=title)
    save_figure(pareto_figure(info), path)
    note(f"wrote {path}")
