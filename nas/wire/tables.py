"""Tables of trials with chosen columns: as JSON, CSV and Parquet. Loads neither torch nor ray."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from nas.definition.study import StudyDefinition
from nas.errors import InputError
from nas.metrics import METRICS, EvaluationKind
from nas.wire.bodies import Body

if TYPE_CHECKING:
    from nas.store import NetworkRow, TrialRow

FACTS = (
    "number", "position", "kind", "label", "state", "reason", "seed", "epoch", "evaluation", "within_budget",
    "architecture_id", "started_at", "ended_at",
)  # fmt: skip
"""Columns of each study, besides its parameters and the metrics."""
Cell = bool | int | float | str | None


class TrialTableBody(Body):
    """A page of trials as a table: a row for each network, and for each trial without one.

    Args:
        columns: Names of the columns.
        rows: Values of the rows, in the order of the columns.
        count: Number of rows.
        evaluation: Requested evaluation kind; None if each row has its own.
        after: Mark of the page's end, with which the next page is requested; None on the last page.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    count: int
    evaluation: EvaluationKind | None
    after: str | None


def all_columns(definition: StudyDefinition) -> tuple[str, ...]:
    """Return all columns of a study's table: facts, sampled parameters (``parameters.target``), metrics."""
    swept = [f"parameters.{name}" for name in definition.space]
    return (*FACTS, *swept, *METRICS)


def check_columns(names: Sequence[str], definition: StudyDefinition) -> tuple[str, ...]:
    """Return the chosen columns.

    Raises:
        InputError: If one is unknown, or chosen twice.
    """
    known = all_columns(definition)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"columns: unknown column {name[:80]!r}{hint}; known: {', '.join(known)}")
    if len(set(names)) < len(names):
        raise InputError(f"columns: each column can be chosen once, but got {', '.join(names)}")
    return tuple(names)


def table_rows(trial: TrialRow, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the rows of a trial: one for each listed network, or one if there is none; times as ``datetime``."""
    networks: Sequence[NetworkRow | None] = trial.networks or (None,)
    return [tuple(_cell(trial, network, column) for column in columns) for network in networks]


def as_cell(value: Any) -> Cell:
    """Return a value in a type of JSON."""
    return value.isoformat() if isinstance(value, datetime) else value


def _cell(trial: TrialRow, network: NetworkRow | None, column: str) -> Any:
    if column in METRICS:
        return None if network is None else network.values.get(column)
    if column.startswith("parameters."):
        return trial.spec.stored_parameters.get(column.removeprefix("parameters."))
    if column in ("position", "architecture_id", "evaluation", "within_budget"):
        found = None if network is None else getattr(network, column)
        return str(found) if column == "evaluation" and found is not None else found
    facts = {
        "number": trial.spec.number,
        "kind": trial.spec.kind.value,
        "label": trial.spec.label,
        "state": trial.state.value,
        "reason": trial.reason,
        "seed": trial.spec.seed,
        "epoch": trial.epoch,
        "started_at": trial.started_at,
        "ended_at": trial.ended_at,
    }
    return facts[column]
