"""``nas trial``: shows one trial, with the ratio of each layer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from nas.candidate import Candidate
from nas.commands.options import (
    AsJson,
    CandidateRef,
    Database,
    Number,
    StudyRef,
    console,
    note,
    plain_table,
    say,
)
from nas.commands.remote import Server, open_source
from nas.errors import InputError
from nas.findings.candidates import choose_candidate
from nas.findings.scores import candidate_values
from nas.formatting import circumstances, format_parameter, format_short, format_value
from nas.metrics import KINDS, METRICS, listed_metrics
from nas.study import Study
from nas.trial import Trial
from partialnet.architecture import Architecture
from partialnet.blocks import AS_PUBLISHED, BlockChoices, block_rows

_BAR = 32
_WIDE = 100  # characters from which the whole bar has room


def trial(
    study: StudyRef,
    number: Number,
    candidate: CandidateRef = None,
    as_json: AsJson = False,
    architecture: Annotated[
        Path | None,
        typer.Option("--architecture", metavar="FILE", help="Write the network's architecture as JSON, for nas train."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the ratios: .html, .png, .svg or .pdf.")
    ] = None,
    database: Database = None,
    server: Server = None,
) -> None:
    """Show a trial: its sampled parameters, its scores, and the split ratio of each layer.

    For a trial with several networks, all are listed, and --candidate shows one in full.

    \b
    Examples:
      nas trial latest 3
      nas trial digits 3 --architecture digits-3.json
      nas trial digits 3 --plot ratios.svg
      nas trial supernet 0 --candidate 5 --architecture chosen.json
    """
    from nas.plots.save import check_figure_path

    if plot is not None:
        check_figure_path(plot)
    if architecture is not None and not architecture.absolute().parent.is_dir():
        raise InputError(f"--architecture {architecture}: the folder {architecture.absolute().parent} does not exist")
    with open_source(server, database) as store:
        found = store.study(study)
        wanted = store.trial(found.id, number)
        where = store.usual_fingerprints(found.id)
    named = candidate is not None or architecture is not None or plot is not None
    chosen = choose_candidate(wanted, found.name, candidate) if named else None
    if as_json:
        from nas.wire.builders import trial_detail_from

        print(json.dumps(trial_detail_from(wanted, where).model_dump(mode="json"), indent=2))
    else:
        print_trial(console(), found, wanted, chosen, where)
    if architecture is not None and chosen is not None:
        chosen[1].architecture.save(architecture)
        note(f"wrote {architecture}")
    if plot is not None and chosen is not None:
        from nas.plots.save import save_figure
        from nas.plots.splits import splits_figure, splits_info

        which = f", candidate {chosen[0]}" if len(wanted.candidates) > 1 else ""
        title = f"{found.name}, trial {number}{which} ({wanted.label})"
        save_figure(splits_figure(splits_info(chosen[1].splits, title=title)), plot)
        note(f"wrote {plot}")


def print_trial(
    out: Console, study: Study, trial: Trial, chosen: tuple[int, Candidate] | None, where: Mapping[str, str]
) -> None:
    """Print a trial for people; for several networks a table, or the ``chosen`` one with its index.

    The table's measurements are those under the circumstances ``where``, by metric.
    """
    say(out, f"{study.name}, trial {trial.number} ({trial.label}): {trial.state.value}", style="bold")
    if trial.reason:
        say(out, f"reason: {trial.reason}")
    if trial.fidelity is not None:
        say(out, f"trained: {trial.fidelity}")
    sampled = [f"{name}={format_parameter(value)}" for name, value in trial.spec.stored_parameters.items()]
    say(out, "sampled: " + " ".join([*sampled, f"seed={trial.seed}"]))
    if trial.placement is not None:
        say(out, f"ran on: {trial.placement.sentence()}")
    if trial.history:
        last = trial.history[-1]
        say(out, f"last epoch: {last.epoch} ({last.phase})")
    if len(trial.candidates) == 1:
        chosen = (0, trial.candidates[0])
    elif chosen is not None:
        out.print(f"\ncandidate {chosen[0]} of {len(trial.candidates)}", style="bold")
    if chosen is not None:
        _print_candidate(out, chosen[1])
    elif trial.candidates:
        _print_candidates(out, study, trial, where)


def _print_candidates(out: Console, study: Study, trial: Trial, where: Mapping[str, str]) -> None:
    """Print a line for each network; scores are of its best trained weights with a score."""
    rows = [candidate_values(candidate, candidate.kind, where) for candidate in trial.candidates]
    names = [name for name in listed_metrics() if any(name in row for row in rows)]
    labels = [METRICS[name].short for name in names]
    table = plain_table("candidate", *labels, "weights", "architecture", right=["candidate", *labels])
    for position, candidate in enumerate(trial.candidates):
        scores = [rows[position].get(name) for name in names]
        table.add_row(
            str(position),
            *("-" if score is None else format_short(name, score) for name, score in zip(names, scores, strict=True)),
            "-" if candidate.kind is None else candidate.kind.value,
            candidate.architecture.id[:12] + _missed(candidate),
        )
    out.print()
    out.print(table)
    out.print()
    say(out, f"show one in full: nas trial {study.name} {trial.number} --candidate PLACE")


def _missed(candidate: Candidate) -> str:
    if candidate.measured_within_budget is False:
        return "  (measured latency off the budget)"
    return "" if candidate.within_budget else "  (budget missed)"


def _blocks_table(architecture: Architecture) -> Table:
    """Return which blocks are there, with hidden width of the MLP and kernel size, for a network of a wider space."""
    figures = ["hidden channels", "kernel", "attended", "width"]
    blocks = plain_table("block", "", *figures, right=figures)
    for row in block_rows(architecture):
        numbers = (row.hidden_channels, row.kernel_size, row.attended_channels, row.channels)
        shown = ("" if number is None else str(number) for number in numbers)
        blocks.add_row(row.name, "" if row.present else "absent", *shown)
    return blocks


def _print_candidate(out: Console, candidate: Candidate) -> None:
    say(out, f"architecture: {candidate.architecture.model} {candidate.architecture.id[:12]}")
    if not candidate.within_budget:
        say(out, f"the budget was not met: {candidate.note}", style="yellow")
    if candidate.measured_within_budget is False:
        say(out, "the measured latency of the whole network does not keep the budget", style="yellow")
    if candidate.weights is None:
        out.print("weights: not kept")
    scores = plain_table("score", "value", "of", right=["value"])
    for evaluation in candidate.evaluations:
        what = f"{evaluation.kind.value} ({KINDS[evaluation.kind]}), {evaluation.data_split} data"
        scores.add_row(METRICS[evaluation.metric].label, format_value(evaluation.metric, evaluation.value), what)
    for evaluation in candidate.trainings:
        what = f"training by recipe {evaluation.recipe}, seed {evaluation.seed}, {evaluation.data_split} data"
        scores.add_row(METRICS[evaluation.metric].label, format_value(evaluation.metric, evaluation.value), what)
    for item in {measured.metric: measured for measured in candidate.measurements}.values():
        scores.add_row(METRICS[item.metric].label, format_value(item.metric, item.value), circumstances(item))
    out.print()
    out.print(scores)
    architecture = candidate.architecture
    if BlockChoices.of(architecture) != AS_PUBLISHED:
        out.print()
        out.print(_blocks_table(architecture))
    splits = plain_table("layer", "active", "of", "ratio", "", "multiply-adds", right=["active", "of", "multiply-adds"])
    for split in sorted(candidate.splits, key=lambda split: split.index):
        splits.add_row(
            split.layer,
            str(split.active_channels),
            str(split.channels),
            f"{split.ratio:.3f}",
            bar(split.ratio, _BAR if out.width >= _WIDE else _BAR // 2),
            f"{split.macs:,}",
        )
    out.print()
    out.print(splits)


def bar(share: float, width: int = _BAR) -> str:
    """Return a bar of blocks in steps of an eighth of a character; a positive share is never empty."""
    eighths = max(1, round(share * width * 8)) if share > 0 else 0
    full, part = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[part] if part else "")).ljust(width, "·")
