"""A large study, built by bulk inserts: as a search of many days would leave it."""

from __future__ import annotations

import importlib
import itertools
import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, text

from nas.store import Store
from nas.store.tables import (
    ArchitectureTable,
    CandidateTable,
    EvaluationTable,
    EventTable,
    HistoryTable,
    MeasurementTable,
    SplitTable,
    StudyTable,
    TrialTable,
)
from nas.store.tallies import recount
from nas.study import Study
from nas.trial import TrialKind, TrialState
from tests.nas.store.makers import definition

OBJECTIVES = ("top1", "macs", "params")
REFERENCE = {"top1": 0.0, "macs": 4e6, "params": 4e6}
_START = datetime(2026, 1, 1, tzinfo=UTC)
_CHUNK = 5000


def large_study(store: Store, trials: int, *, layers: int = 14, epochs: int = 30, name: str = "large") -> Study:
    """Return a study of ``trials`` trials: one runs, one of a hundred has failed, the others are complete."""
    made = store.create_study(definition(name, objectives=list(OBJECTIVES)), reference_point=REFERENCE)
    draw = random.Random(0)
    states = [
        TrialState.RUNNING if n == trials - 1 else TrialState.FAILED if n % 100 == 99 else TrialState.COMPLETE
        for n in range(trials)
    ]
    scored = [n for n, state in enumerate(states) if state is TrialState.COMPLETE]
    names = [f"stages.{n % 4}.blocks.{n}.mixer" for n in range(layers)]
    # Another study may hold the same networks: names of architectures are of this study alone.
    ids = {n: f"{made.id[:8]}{n:056x}" for n in scored}
    _insert(store, TrialTable, (_trial(made.id, n, state) for n, state in enumerate(states)))
    _insert(store, HistoryTable, _history(made.id, trials, epochs, names))
    _insert(store, EventTable, _events(made.id, trials * epochs))
    _insert(store, ArchitectureTable, (_architecture(ids[n], names) for n in scored))
    _insert(store, SplitTable, _splits(ids.values(), names))
    place = {"study_id": made.id, "position": 0, "within_budget": True}
    _insert(store, CandidateTable, ({**place, "number": n, "architecture_id": ids[n]} for n in scored))
    size = {n: 10 ** draw.uniform(5, 6.5) for n in scored}
    score = {n: min(0.99, max(0.01, 0.3 + size[n] / 5e6 + draw.gauss(0, 0.08))) for n in scored}
    _insert(store, EvaluationTable, _evaluations(made.id, score))
    _insert(store, MeasurementTable, _measurements(ids, size, draw))
    migration = importlib.import_module("nas.store.migrations.versions.0009_scores_and_hypervolumes")
    with store._database.write() as session:
        for statement in (migration._EVALUATIONS, migration._MEASUREMENTS):
            session.execute(text(statement))
        row = session.get_one(StudyTable, made.id)
        row.last_event = trials * epochs + 1
        recount(session, row)
    if store._database.path is None:  # PostgreSQL does so by itself after a while, SQLite never
        with store._database.engine.connect() as connection, connection.begin():
            connection.execute(text("ANALYZE"))
    return made


def _insert(store: Store, table: Any, rows: Iterable[dict[str, Any]]) -> None:
    found = iter(rows)
    while chunk := list(itertools.islice(found, _CHUNK)):
        with store._database.write() as session:
            session.execute(insert(table), chunk)


def _trial(study_id: str, number: int, state: TrialState) -> dict[str, Any]:
    start = _START + timedelta(minutes=number)
    return {
        "study_id": study_id, "number": number, "kind": TrialKind.SEARCH.value, "state": state.value, "seed": number,
        "parameters": {"target": 1.0 + number % 7, "penalty": 0.9, "complexity_exponent": 1.0}, "created_at": _START,
        "started_at": start, "ended_at": start + timedelta(minutes=3) if state.ended else None,
        "reason": "the training diverged" if state is TrialState.FAILED else None, "placement": None,
    }  # fmt: skip


def _history(study_id: str, trials: int, epochs: int, layers: list[str]) -> Iterator[dict[str, Any]]:
    active = {layer: 8 + place for place, layer in enumerate(layers)}
    for number in range(trials):
        for epoch in range(1, epochs + 1):
            metrics = {"loss": 2.0 / epoch, "task_loss": 1.9 / epoch, "top1": epoch / 100, "learning_rate": 0.004}
            yield {
                "study_id": study_id, "number": number, "epoch": epoch, "phase": "gates", "metrics": metrics,
                "active_channels": active,
            }  # fmt: skip


def _events(study_id: str, count: int) -> Iterator[dict[str, Any]]:
    for number in range(2, count + 2):
        payload = {"number": number // 30, "epoch": number % 30, "phase": "gates", "metrics": {"loss": 1.5}}
        yield {
            "study_id": study_id, "number": number, "kind": "epoch", "payload": payload,
            "created_at": _START + timedelta(seconds=number),
        }  # fmt: skip


def _architecture(name: str, layers: list[str]) -> dict[str, Any]:
    active = {layer: 8 + place for place, layer in enumerate(layers)}
    content = {"schema": 1, "model": "partialnet_micro", "options": {"num_classes": 10}, "active_channels": active}
    return {"id": name, "model": "partialnet_micro", "definition": content, "created_at": _START}


def _splits(names: Iterable[str], layers: list[str]) -> Iterator[dict[str, Any]]:
    for name in names:
        for index, layer in enumerate(layers):
            yield {
                "architecture_id": name, "input_shape": "1x8x8", "index": index, "layer": layer, "stage": index % 4,
                "block": index, "channels": 64, "active_channels": 8 + index, "ratio": (8 + index) / 64, "macs": 1000,
            }  # fmt: skip


def _evaluations(study_id: str, scores: dict[int, float]) -> Iterator[dict[str, Any]]:
    facts = {"study_id": study_id, "position": 0, "data_split": "validation", "epochs": 30, "created_at": _START}
    for number, top1 in scores.items():
        for kind, factor in (("inherited", 0.9), ("finetuned", 1.0)):
            for metric, value in (("top1", top1 * factor), ("loss", 2 - top1 * factor)):
                score = {"kind": kind, "metric": metric, "value": value, "std": None, "seed": 0}
                yield {**facts, "number": number, **score}


def _measurements(ids: dict[int, str], size: dict[int, float], draw: random.Random) -> Iterator[dict[str, Any]]:
    for number, name in ids.items():
        share = draw.uniform(0.5, 1.5)
        values = {"macs": size[number], "conv_macs": size[number] / 2, "params": size[number] * share}
        values |= {"params_inference": size[number] * share * 0.98, "activations": size[number] / 10}
        for metric, value in values.items():
            yield {
                "architecture_id": name, "input_shape": "1x8x8", "metric": metric, "value": float(round(value)),
                "figures": {"uncounted": []}, "fingerprint": "fvcore", "created_at": _START,
            }  # fmt: skip
