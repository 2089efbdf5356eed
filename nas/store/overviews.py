"""Reads for whoever runs the service: whose studies jobs work for, what running trials hold, known latency tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from sqlalchemy import func, select

from nas.store.base import Repository
from nas.store.records import DeviceRow, HeldRow, StudyName, TableRow
from nas.store.tables import MeasurementTable, StudyTable, TrialTable
from nas.trial import TrialState

_LATENCY = "latency_ms"


class Overviews(Repository):
    """Reads lists over all studies."""

    def study_names(self, study_ids: Collection[str]) -> Mapping[str, StudyName]:
        """Return names and creators of studies by id; ids of deleted ones are left out."""
        query = select(StudyTable.id, StudyTable.name, StudyTable.created_by)
        query = query.where(StudyTable.id.in_(sorted(study_ids)))
        with self._read() as session:
            return {row.id: StudyName(row.name, row.created_by) for row in session.execute(query)}

    def held(self, study_ids: Collection[str]) -> Mapping[str, HeldRow]:
        """Return what the running trials of studies hold, by study; studies without a running trial are left out."""
        query = select(TrialTable.study_id, TrialTable.placement).where(
            TrialTable.study_id.in_(sorted(study_ids)), TrialTable.state == TrialState.RUNNING.value
        )
        places = defaultdict(list)
        with self._read() as session:
            for study_id, placement in session.execute(query):
                places[study_id].append(placement or {})
        return {
            study_id: HeldRow(
                len(found),
                sum(place.get("cpus", 0.0) for place in found),
                sum(place.get("gpus", 0.0) for place in found),
                tuple(sorted({place["node"] for place in found if "node" in place})),
            )
            for study_id, found in places.items()
        }

    def devices(self) -> list[DeviceRow]:
        """Return the circumstances that latencies were measured under, by fingerprint."""
        counted = (
            select(func.max(MeasurementTable.id).label("newest"), func.count().label("count"))
            .where(MeasurementTable.metric == _LATENCY)
            .group_by(MeasurementTable.fingerprint)
            .subquery()
        )
        columns = (MeasurementTable.fingerprint, MeasurementTable.figures, counted.c.count, MeasurementTable.created_at)
        query = select(*columns).join(counted, counted.c.newest == MeasurementTable.id)
        with self._read() as session:
            return [DeviceRow(*row) for row in session.execute(query.order_by(MeasurementTable.fingerprint))]

    def latency_tables(self) -> list[TableRow]:
        """Return the latency tables that studies were created with, by fingerprint and network."""
        table = StudyTable.latency_table
        texts = (table[name].as_string() for name in ("fingerprint", "network", "title"))
        query = select(*texts, table["reference_ms"].as_float(), StudyTable.name).where(table.is_not(None))
        studies: dict[tuple[str, str, str, float], list[str]] = defaultdict(list)
        with self._read() as session:
            for fingerprint, network, title, reference, name in session.execute(query.order_by(StudyTable.sequence)):
                studies[fingerprint, network, title, reference].append(name)
        return [TableRow(*key, tuple(names)) for key, names in sorted(studies.items())]
