"""Reads what lists of studies and plans of new ones show besides the studies: growths, and durations of trials."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from nas.definition.study import StudyDefinition
from nas.findings.growth import Growth
from nas.findings.pace import EndedTrial, alike, differing, epochs_of_kind, images_ratio
from nas.store.base import Repository
from nas.store.mapping import definition_from, study_from
from nas.store.tables import HypervolumeTable, StudyTable, TrialTable
from nas.study import Study
from nas.trial import TrialKind, TrialState

_LATEST = 20
_MOST_COMPARED = 500
_MOST_STUDIES = 100


class Paces(Repository):
    """Reads growths of hypervolumes and durations of trials."""

    def recorded_growths(self, study_ids: Sequence[str]) -> dict[str, list[Growth]]:
        """Return the recorded growths of the hypervolumes of several studies, in the order of the trials' ends."""
        query = select(HypervolumeTable).where(HypervolumeTable.study_id.in_(study_ids))
        found: dict[str, list[Growth]] = {study_id: [] for study_id in study_ids}
        with self._read() as session:
            for row in session.scalars(query.order_by(HypervolumeTable.study_id, HypervolumeTable.place)):
                found[row.study_id].append(Growth(row.number, row.trials, row.value, row.created_at))
        return found

    def latest_ends(self, study_id: str) -> list[EndedTrial]:
        """Return the latest complete trials of a study.

        Raises:
            NotFoundError: If there is no such study.
        """
        with self._read() as session:
            row = self._study_row(session, study_id)
            return self._ended(session, study_id, definition_from(row), _LATEST)

    def comparable(self, definition: StudyDefinition) -> tuple[Study, list[EndedTrial]] | None:
        """Return the newest study whose epochs take as long as those of a planned one, with its complete trials.

        Without one, the newest study that differs in batch size or augmentation alone is the next best.

        Args:
            definition: Definition of the planned study.
        """
        rough: tuple[Study, list[EndedTrial]] | None = None
        name = StudyTable.definition["data"]["name"].as_string()
        newest = select(StudyTable).where(name == definition.data.name).order_by(StudyTable.sequence.desc())
        with self._read() as session:
            for row in session.scalars(newest.limit(_MOST_STUDIES)):
                if not row.counts.get(TrialState.COMPLETE.value):
                    continue
                known = study_from(row)
                if not alike(definition, known.definition) or images_ratio(definition, known) is None:
                    continue
                differs = differing(definition, known.definition)
                if differs and rough is not None:
                    continue
                ended = self._ended(session, row.id, known.definition, _MOST_COMPARED)
                if any(trial.kind is TrialKind.SEARCH for trial in ended) or not definition.sweep.trials:
                    if not differs:
                        return known, ended
                    rough = known, ended
        return rough

    def _ended(self, session: Session, study_id: str, definition: StudyDefinition, most: int) -> list[EndedTrial]:
        query = (
            select(TrialTable.kind, TrialTable.parameters, TrialTable.started_at, TrialTable.ended_at)
            .where(TrialTable.study_id == study_id, TrialTable.state == TrialState.COMPLETE.value)
            .where(TrialTable.started_at.is_not(None), TrialTable.ended_at.is_not(None))
            .order_by(TrialTable.number.desc())
            .limit(most)
        )
        return [
            EndedTrial(kind, epochs_of_kind(definition, kind, parameters), start, end)
            for name, parameters, start, end in session.execute(query)
            for kind in (TrialKind(name),)
        ]
