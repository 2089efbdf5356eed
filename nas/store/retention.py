"""Which weights are kept: those of the front, the baselines, the final comparison, and what a user has pinned."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from nas.definition.constraints import Constraint
from nas.errors import ConflictError, NotFoundError
from nas.findings.pareto import front_mask
from nas.jobs import JobKind, JobState
from nas.metrics import BY_TRAINING, METRICS, EvaluationKind, listed_metrics
from nas.store.base import Repository
from nas.store.mapping import definition_from
from nas.store.records import StoredWeights
from nas.store.score_reads import bases, breaking, columns
from nas.store.tables import ArtifactTable, CandidateTable, JobTable, StudyTable, TrainingTable, TrialTable
from nas.study import StudyState
from nas.trainings import TrainingState
from nas.trial import TrialKind, TrialState

ENDED = (StudyState.FINISHED, StudyState.STOPPED, StudyState.FAILED)
"""States of studies whose weights may be collected: the front of the others still changes."""
_KEPT_KINDS: Mapping[str, str] = MappingProxyType(
    {TrialKind.BASELINE.value: "baseline", TrialKind.RETRAIN.value: "final comparison"}
)
_OPEN = (JobState.QUEUED.value, JobState.RUNNING.value)


class Retention(Repository):
    """Reads which files belong to what, pins networks, and forgets weights."""

    def pin(self, study_id: str, number: int, position: int, *, pinned: bool = True) -> None:
        """Pin a trial's network, so that its weights are kept, or end that.

        Raises:
            NotFoundError: If there is no such study, trial or network.
        """
        with self._write() as session:
            study = self._locked_study(session, study_id)
            row = session.get(CandidateTable, (study_id, number, position))
            if row is None:
                raise NotFoundError(f"trial {number} of study {study.name} has no network {position}")
            if row.pinned != pinned:
                row.pinned = pinned
                self._emit(session, study, "pin", {"number": number, "position": position, "pinned": pinned})

    def pins(self, study_id: str) -> frozenset[tuple[int, int]]:
        """Return the pinned networks of a study, by trial and position."""
        query = select(CandidateTable.number, CandidateTable.position).where(
            CandidateTable.study_id == study_id, CandidateTable.pinned
        )
        with self._read() as session:
            self._study_row(session, study_id)
            return frozenset((number, position) for number, position in session.execute(query))

    def stored_weights(self, study_id: str) -> list[StoredWeights]:
        """Return the recorded weights of a study's networks, each with the reason why it is kept, if there is one.

        Raises:
            NotFoundError: If there is no such study.
        """
        with self._read() as session:
            return weights_of(session, self._study_row(session, study_id))

    def recorded_files(self, study_id: str) -> set[str]:
        """Return the URIs of the files that networks and jobs of a study refer to."""
        weights = (
            select(ArtifactTable.uri)
            .join(CandidateTable, CandidateTable.weights_id == ArtifactTable.id)
            .where(CandidateTable.study_id == study_id)
        )
        results = select(JobTable.result).where(JobTable.study_id == study_id)
        with self._read() as session:
            found = {result["uri"] for result in session.scalars(results) if result and "uri" in result}
            return found | set(session.scalars(weights))

    def unfinished(self, study_id: str) -> set[int]:
        """Return the numbers of the trials that have not ended, and may continue from a checkpoint."""
        states = [state.value for state in TrialState if not state.ended and state is not TrialState.INTERRUPTED]
        query = select(TrialTable.number).where(TrialTable.study_id == study_id, TrialTable.state.in_(states))
        with self._read() as session:
            return set(session.scalars(query))

    def forget_weights(self, study_id: str, uris: Collection[str]) -> list[str]:
        """Remove the records of weights that nothing keeps; their files can then be deleted.

        Returns:
            URIs whose records were removed: those of ``uris`` that are still not kept.

        Raises:
            ConflictError: If the study has not ended.
        """
        with self._write() as session:
            study = self._locked_study(session, study_id)
            if StudyState(study.state) not in ENDED:
                raise ConflictError(f"study {study.name} is {study.state}, so its weights are kept")
            found = weights_of(session, study)
            kept = {row.uri for row in found if row.kept is not None}
            gone = sorted({row.uri for row in found if row.uri in uris} - kept)
            ids = list(session.scalars(select(ArtifactTable.id).where(ArtifactTable.uri.in_(gone))))
            session.execute(
                update(CandidateTable)
                .where(CandidateTable.study_id == study_id, CandidateTable.weights_id.in_(ids))
                .values(weights_id=None)
            )
            used = select(CandidateTable.weights_id).where(CandidateTable.weights_id.in_(ids))
            session.execute(delete(ArtifactTable).where(ArtifactTable.id.in_(ids), ArtifactTable.id.not_in(used)))
            if gone:
                self._emit(session, study, "gc", {"weights": len(gone)})
            return gone


def weights_of(session: Session, study: StudyTable) -> list[StoredWeights]:
    """Return the recorded weights of a study's networks, each with the reason why it is kept, if there is one."""
    trial = (TrialTable.study_id == CandidateTable.study_id) & (TrialTable.number == CandidateTable.number)
    query: Any = (
        select(
            CandidateTable.number, CandidateTable.position, CandidateTable.pinned, TrialTable.kind,
            ArtifactTable.uri, ArtifactTable.size,
        )
        .join(TrialTable, trial)
        .join(ArtifactTable, ArtifactTable.id == CandidateTable.weights_id)
        .where(CandidateTable.study_id == study.id)
        .order_by(CandidateTable.number, CandidateTable.position)
    )  # fmt: skip
    front, exported = _on_fronts(session, study), _being_exported(session, study.id)
    trained = _being_trained(session, study.id)
    found = []
    for number, position, pinned, kind, uri, size in session.execute(query):
        reasons = {
            "pinned": pinned,
            _KEPT_KINDS.get(kind, ""): kind in _KEPT_KINDS,
            "front": (number, position) in front,
            "being exported": number in exported,
            "start of a training": (number, position) in trained,
        }
        kept = next((reason for reason, holds in reasons.items() if holds), None)
        found.append(StoredWeights(number, position, uri, size, kept))
    return found


def _on_fronts(session: Session, study: StudyTable) -> set[tuple[int, int]]:
    """Return the networks on a front: of the objectives, or of top-1 and a listed cost, of any evaluation kind.

    Each front counts twice: of the networks that keep the study's constraints, and of all.
    """
    definition = definition_from(study)
    costs = [name for name in listed_metrics() if not METRICS[name].evaluated]
    found: set[tuple[int, int]] = set()
    for objectives in {definition.objectives, *(("top1", cost) for cost in costs)}:
        for kind in BY_TRAINING:
            found |= _on_front(session, study.id, objectives, definition.constraints, kind)
    return found


def _on_front(
    session: Session, study_id: str, objectives: Sequence[str], limits: Sequence[Constraint], kind: EvaluationKind
) -> set[tuple[int, int]]:
    table = columns(session, study_id, objectives, bases(session, study_id, objectives, kind))
    on = bases(session, study_id, [limit.metric for limit in limits], kind) if limits else {}
    everything = np.ones(len(table.numbers), dtype=bool)
    feasible = everything.copy()
    for broken in breaking(session, study_id, limits, on, table).values():
        feasible &= ~broken
    found: set[tuple[int, int]] = set()
    for part in (np.flatnonzero(everything), np.flatnonzero(feasible)):
        front = part[np.array(front_mask(table.values[part], objectives), dtype=bool)]
        found |= set(zip(table.numbers[front].tolist(), table.positions[front].tolist(), strict=True))
    return found


def _being_exported(session: Session, study_id: str) -> set[int]:
    query = select(JobTable.payload).where(
        JobTable.study_id == study_id, JobTable.kind == JobKind.EXPORT.value, JobTable.state.in_(_OPEN)
    )
    return {payload["number"] for payload in session.scalars(query) if "number" in payload}


def _being_trained(session: Session, study_id: str) -> set[tuple[int, int]]:
    """Return the networks whose weights a training starts from that has not finished."""
    query = select(TrainingTable.number, TrainingTable.position).where(
        TrainingTable.study_id == study_id,
        TrainingTable.weights.is_not(None),
        TrainingTable.state != TrainingState.FINISHED.value,
    )
    # a training of a study's network has both numbers
    return {(n, place) for n, place in session.execute(query) if n is not None and place is not None}
