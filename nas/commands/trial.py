"""``nas trial``: one trial, with the ratio of every layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nas.commands.options import (
    AsJson,
    Database,
    Number,
    StudyRef,
    console,
    note,
    open_store,
    plain_table,
    say,
    settings_from,
)
from nas.errors import ConflictError, InputError
from nas.formatting import format_parameter, format_value
from nas.model_card import KINDS, circumstances
from nas.study import Study
from nas.trial import METRICS, Candidate, Trial

_BAR = 32
_WIDE = 100  # characters from which the whole bar has room


def trial(
    study: StudyRef,
    number: Number,
    as_json: AsJson = False,
    architecture: Annotated[
        Path | None,
        typer.Option("--architecture", metavar="FILE", help="Write the network's architecture as JSON, for nas train."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the ratios: .html, .png, .svg or .pdf.")
    ] = None,
    database: Database = None,
) -> None:
    """Show a trial: what was sampled, how it scored, and the split ratio of every layer.

    \b
    Examples:
      nas trial latest 3
      nas trial digits 3 --architecture digits-3.json
      nas trial digits 3 --plot ratios.svg
    """
    from nas.plots.save import check_figure_path

    if plot is not None:
        check_figure_path(plot)
    if architecture is not None and not architecture.absolute().parent.is_dir():
        raise InputError(f"--architecture {architecture}: the folder {architecture.absolute().parent} does not exist")
    with open_store(settings_from(database)) as store:
        found = store.study(study)
        wanted = store.trial(found.id, number)
    if (architecture is not None or plot is not None) and not wanted.candidates:
        raise ConflictError(f"trial {number} of {found.name} is {wanted.state.value} and has no network yet")
    if as_json:
        from nas.wire import trial_detail_from

        print(json.dumps(trial_detail_from(wanted).model_dump(mode="json"), indent=2))
    else:
        print_trial(console(), found, wanted)
    if architecture is not None:
        wanted.candidates[0].architecture.save(architecture)
        note(f"wrote {architecture}")
    if plot is not None:
        from nas.plots.save import save_figure
        from nas.plots.splits import splits_figure, splits_info

        title = f"{found.name}, trial {number} ({wanted.label})"
        save_figure(splits_figure(splits_info(wanted.candidates[0].splits, title=title)), plot)
        note(f"wrote {plot}")


def print_trial(out: Console, study: Study, trial: Trial) -> None:
    """Print a trial as people read it."""
    say(out, f"{study.name}, trial {trial.number} ({trial.label}): {trial.state.value}", style="bold")
    if trial.reason:
        say(out, f"reason: {trial.reason}")
    sampled = [f"{name}={format_parameter(value)}" for name, value in trial.parameters.items()]
    say(out, "sampled: " + " ".join([*sampled, f"seed={trial.seed}"]))
    if trial.history:
        last = trial.history[-1]
        say(out, f"last epoch: {last.epoch} ({last.phase})")
    for position, candidate in enumerate(trial.candidates):
        if len(trial.candidates) > 1:
            out.print(f"\ncandidate {position}", style="bold")
        _print_candidate(out, candidate)


def _print_candidate(out: Console, candidate: Candidate) -> None:
    say(out, f"architecture: {candidate.architecture.model} {candidate.architecture.id[:12]}")
    if not candidate.within_budget:
        say(out, f"the budget was not met: {candidate.note}", style="yellow")
    if candidate.weights is None:
        out.print("weights: not kept")
    scores = plain_table("score", "value", "of", right=["value"])
    for evaluation in candidate.evaluations:
        what = f"{evaluation.kind.value} ({KINDS[evaluation.kind]}), {evaluation.data_split} data"
        scores.add_row(METRICS[evaluation.metric].label, format_value(evaluation.metric, evaluation.value), what)
    for item in {measured.metric: measured for measured in candidate.measurements}.values():
        scores.add_row(METRICS[item.metric].label, format_value(item.metric, item.value), circumstances(item))
    out.print()
    out.print(scores)
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
    """Return a bar of blocks, an eighth of a character fine; never empty for a positive share."""
    eighths = max(1, round(share * width * 8)) if share > 0 else 0
    full, part = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[part] if part else "")).ljust(width, "·")
