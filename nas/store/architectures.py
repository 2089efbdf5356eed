"""Reads architectures: those that were exported, with their provenance, and where one was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Select, select, tuple_
from sqlalchemy.orm import Session

from nas.candidate import PackedFile
from nas.errors import InputError, NotFoundError
from nas.jobs import JobKind, JobState
from nas.store.base import Repository
from nas.store.marks import decode_place, encode_mark
from nas.store.records import ExportRow, FoundArchitecture, MeasuredRow, Sighting
from nas.store.tables import ArchitectureTable, CandidateTable, JobTable, MeasurementTable, StudyTable, TrialTable

_SHORTEST_ID = 6
_MOST_SIGHTINGS = 100


class Architectures(Repository):
    """Reads architectures."""

    def exports(
        self, study_id: str | None = None, *, limit: int = 100, after: str | None = None
    ) -> tuple[list[ExportRow], str | None]:
        """Return a page of the finished exports, newest first, and the mark of its end; None on the last page.

        Args:
            study_id: Id of the study; None for all.
            limit: Largest number of exports.
            after: Mark of the previous page's end.

        Raises:
            InputError: If the mark is damaged.
        """
        query = _finished().order_by(JobTable.sequence.desc(), JobTable.id.desc()).limit(limit + 1)
        if study_id is not None:
            query = query.where(JobTable.study_id == study_id)
        if after is not None:
            query = query.where(tuple_(JobTable.sequence, JobTable.id) < tuple_(*decode_place(after)))
        with self._read() as session:
            jobs = session.scalars(query).all()
            kept = jobs[:limit]
            more = encode_mark([kept[-1].sequence, kept[-1].id]) if len(jobs) > limit else None
            return [row for job in kept if (row := _export(session, job)) is not None], more

    def architecture(self, ref: str) -> FoundArchitecture:
        """Return an architecture with the trials that settled on it, and its exports.

        Args:
            ref: Id, or its first 6 or more characters.

        Raises:
            InputError: If it is too short, or the beginning of several ids.
            NotFoundError: If there is none.
        """
        with self._read() as session:
            return found_architecture(session, ref)


def found_architecture(session: Session, ref: str) -> FoundArchitecture:
    """Return an architecture, as :meth:`Architectures.architecture` does."""
    if len(ref) < _SHORTEST_ID:
        raise InputError(f"{ref!r}: name an architecture by the first {_SHORTEST_ID} or more characters of its id")
    rows = session.scalars(
        select(ArchitectureTable).where(ArchitectureTable.id.startswith(ref, autoescape=True)).limit(2)
    ).all()
    if not rows:
        raise NotFoundError(f"there is no architecture {ref!r}")
    if len(rows) > 1:
        raise InputError(f"{ref!r} is the beginning of several ids: {', '.join(row.id for row in rows)}")
    [row] = rows
    sightings = _sightings(session, row.id)
    exports = [
        export
        for study_id in sorted({sighting.study_id for sighting in sightings})
        for job in session.scalars(_finished().where(JobTable.study_id == study_id))
        if (export := _export(session, job)) is not None and export.architecture_id == row.id
    ]
    exports.sort(key=lambda export: (export.at, export.job_id), reverse=True)
    measured = _measured(session, row.id)
    return FoundArchitecture(row.id, row.model, row.definition, tuple(sightings), tuple(exports), tuple(measured))


def _measured(session: Session, architecture_id: str) -> list[MeasuredRow]:
    """Return the newest value of each metric under each circumstance and input shape."""
    query = select(MeasurementTable).where(MeasurementTable.architecture_id == architecture_id)
    newest = {
        (row.metric, row.fingerprint, row.input_shape): row
        for row in session.scalars(query.order_by(MeasurementTable.id))
    }
    return [
        MeasuredRow(row.metric, row.value, row.fingerprint, row.input_shape, dict(row.figures), row.created_at)
        for row in newest.values()
    ]


def _finished() -> Select[JobTable]:
    return select(JobTable).where(
        JobTable.kind == JobKind.EXPORT.value, JobTable.state == JobState.FINISHED.value, JobTable.study_id.is_not(None)
    )


def _export(session: Session, job: JobTable) -> ExportRow | None:
    """Return the export of a job; None if its trial has no such network any more."""
    number, position = job.payload.get("number"), int(job.payload.get("candidate") or 0)
    query = (
        select(StudyTable.name, CandidateTable.architecture_id, ArchitectureTable.model, StudyTable.data)
        .join(CandidateTable, CandidateTable.study_id == StudyTable.id)
        .join(ArchitectureTable, ArchitectureTable.id == CandidateTable.architecture_id)
        .where(StudyTable.id == job.study_id, CandidateTable.number == number, CandidateTable.position == position)
    )
    found = session.execute(query).first()
    result = job.result or {}
    if found is None or "sha256" not in result or job.study_id is None or job.ended_at is None:
        return None
    return ExportRow(
        job.id, job.study_id, found[0], int(job.payload["number"]), position, found[1], found[2], result["sha256"],
        result["size"], bool(job.payload.get("onnx", False)), job.ended_at, tuple(map(_file, result.get("files", ()))),
        (found[3] or {}).get("content", {}), result.get("int8"),
    )  # fmt: skip


def _file(entry: Mapping[str, Any]) -> PackedFile:
    return PackedFile(str(entry["name"]), int(entry["size"]), str(entry["sha256"]))


def _sightings(session: Session, architecture_id: str) -> list[Sighting]:
    query = (
        select(StudyTable.id, StudyTable.name, CandidateTable.number, CandidateTable.position, TrialTable.kind)
        .join(CandidateTable, CandidateTable.study_id == StudyTable.id)
        .join(TrialTable, (TrialTable.study_id == StudyTable.id) & (TrialTable.number == CandidateTable.number))
        .where(CandidateTable.architecture_id == architecture_id)
        .order_by(StudyTable.sequence, CandidateTable.number, CandidateTable.position)
        .limit(_MOST_SIGHTINGS)
    )
    return [Sighting(*row) for row in session.execute(query)]
