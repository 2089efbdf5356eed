"""What a study holds, in numbers: the choices that lists and figures of it can offer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import exists, func, literal, select, union_all
from sqlalchemy.orm import Session

from nas.metrics import METRICS, EvaluationKind
from nas.store.base import Repository
from nas.store.tables import ScoreTable, TrialTable
from nas.trial import TrialKind, TrialState


@dataclass(frozen=True)
class Holdings:
    """What a study holds.

    Args:
        trials: Number of trials by kind and recorded state; only those that exist.
        metrics: Metrics with a value of some network, in the order of the metrics.
        evaluations: Evaluation kinds with a score of some network, in their order.
    """

    trials: Mapping[tuple[TrialKind, TrialState], int]
    metrics: tuple[str, ...]
    evaluations: tuple[EvaluationKind, ...]


class Holds(Repository):
    """Reads what studies hold."""

    def holdings(self, study_id: str) -> Holdings:
        """Return what a study holds.

        Raises:
            NotFoundError: If there is no such study.
        """
        with self._read() as session:
            study = self._study_row(session, study_id)
            counted = (
                select(TrialTable.kind, TrialTable.state, func.count())
                .where(TrialTable.study_id == study.id)
                .group_by(TrialTable.kind, TrialTable.state)
            )
            trials = {(TrialKind(kind), TrialState(state)): count for kind, state, count in session.execute(counted)}
            there = _present(session, study.id)
        metrics = {metric for metric, _ in there}
        kinds = {basis for _, basis in there if basis is not None}
        return Holdings(
            trials,
            tuple(name for name in METRICS if name in metrics),
            tuple(kind for kind in EvaluationKind if kind.value in kinds),
        )


def _present(session: Session, study_id: str) -> set[tuple[str, str | None]]:
    """Return the metrics that have a value, evaluated ones with each of their evaluation kinds.

    Each is a look into the index: a list of the distinct values would read all scores of the study.
    """
    wanted = [
        (name, kind) for name, metric in METRICS.items() for kind in (EvaluationKind if metric.evaluated else (None,))
    ]
    looks = []
    for place, (name, kind) in enumerate(wanted):
        there = exists().where(ScoreTable.study_id == study_id, ScoreTable.metric == name)
        if kind is not None:
            there = there.where(ScoreTable.basis == kind.value)
        looks.append(select(literal(place)).where(there))
    found = [wanted[place] for place in session.scalars(union_all(*looks))]
    return {(name, None if kind is None else kind.value) for name, kind in found}
