"""``nas optuna-mirror``: writes a study for Optuna's dashboard and plots."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from nas.commands.options import Database, StudyRef, console, open_store, say, settings_from
from nas.findings.milliseconds import own_fingerprints
from nas.findings.scores import check_objectives
from nas.formatting import format_number
from nas.settings import mask


def optuna_mirror(
    study: StudyRef,
    storage: Annotated[
        str,
        typer.Option(
            "--storage",
            metavar="URL",
            help="Storage of Optuna: sqlite:///FILE, any other SQLAlchemy URL, or the path of a journal file.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the study there; by default its own.")
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            "--objective",
            metavar="METRIC",
            help="Metric of the trials' values; may be given several times. A single one shows each epoch as well, "
            "which Optuna does not do for several. \\[the objectives of the study]",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: name, trials, added, rewritten.")] = False,
    database: Database = None,
) -> None:
    """Write a study in Optuna's form, for its dashboard and its plots.

    The study there holds the ended search trials: parameters, distributions, values, states, times, constraints, and
    the ratios of each network. Baselines are among the attributes of the study. A repeated call adds the trials that
    have ended meanwhile, and writes the study anew if known ones have changed.

    \b
    Examples:
      nas optuna-mirror latest --storage sqlite:///optuna.db
      nas optuna-mirror digits --storage optuna.log --objective top1
    """
    from nas.sweep.optuna_mirror import mirror, open_storage

    check_objectives(objective or ["top1"])
    with open_store(settings_from(database)) as store:
        found = store.study(study)
        objectives = tuple(objective or found.definition.objectives)
        trials = store.trials(found.id, history=len(objectives) == 1)
        own = own_fingerprints(store.latency_table(found.id), found.definition.data.input_shape)
    done = mirror(found, trials, open_storage(storage), name or found.name, objectives, own)
    if as_json:
        print(json.dumps(asdict(done), indent=2))
        return
    how = "written anew" if done.rewritten else f"{done.added} of them new"
    say(console(), f"study {done.name} in {mask(storage)}: {format_number(done.trials, 'trial')}, {how}")
    say(console(), f"show it: optuna-dashboard {mask(storage)}")
