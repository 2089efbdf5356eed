"""Conversion of a training's row to its domain type and back, and its state as its job moves; no queries here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from nas.candidate import Artifact
from nas.metrics import Evaluation, EvaluationKind
from nas.store.mapping import plain
from nas.store.tables import TrainingTable
from nas.trainings import Training, TrainingResult, TrainingSource, TrainingState


def training_name(row: TrainingTable) -> str:
    """Return the short id that messages name a training by."""
    return row.id[:8]


def training_from(row: TrainingTable, *, interrupted: bool = False, stopping: bool = False) -> Training:
    """Build the training of ``row``; an ``interrupted`` one has lost its process, a ``stopping`` one is to end."""
    return Training(
        id=row.id,
        source=TrainingSource(
            row.study_id, row.study, row.number, row.position, row.architecture_id, row.architecture, row.package,
            None if row.weights is None else Artifact(**row.weights), row.returns,
        ),
        definition=dict(row.definition),
        recipe=row.recipe,
        data=row.data,
        model=row.model,
        seed=row.seed,
        epochs=row.epochs,
        done=row.done,
        state=TrainingState.INTERRUPTED if interrupted else TrainingState(row.state),
        reason=row.reason,
        best_top1=row.best_top1,
        result=None if row.result is None else result_from_dict(row.result),
        job_id=row.job_id,
        created_by=row.created_by,
        version=row.version,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        stopping=stopping,
    )  # fmt: skip


def source_values(source: TrainingSource) -> dict[str, Any]:
    """Return the columns of a training's row that tell the network it starts from."""
    values: dict[str, Any] = plain(asdict(source))
    return values


def result_to_dict(result: TrainingResult) -> dict[str, Any]:
    """Return the JSON form of a result."""
    found: dict[str, Any] = plain(asdict(result))
    return found


def result_from_dict(data: Mapping[str, Any]) -> TrainingResult:
    """Return a result from its JSON form."""
    return TrainingResult(
        Artifact(**data["package"]),
        None if data["last"] is None else Artifact(**data["last"]),
        tuple(Evaluation(**{**item, "kind": EvaluationKind(item["kind"])}) for item in data["evaluations"]),
        tuple(data["notes"]),
    )
