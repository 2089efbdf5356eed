"""Bodies of architectures and exports. Loads neither torch nor ray."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from nas.metrics import METRICS
from nas.wire.bodies import Body, Int8Body
from nas.wire.trainings import TrainingBody, training_from

if TYPE_CHECKING:
    from nas.store.records import ExportRow, FoundArchitecture
    from nas.trainings import Training


class ProvenanceBody(Body):
    """A trial that settled on an architecture.

    Args:
        position: Index of the network within the trial.
        kind: Kind of the trial.
    """

    study_id: str
    study: str
    number: int
    position: int
    kind: str


class FileBody(Body):
    """A file of a package, with its size in bytes and its SHA-256 checksum."""

    name: str
    size: int
    sha256: str


class ExportBody(Body):
    """An exported architecture.

    Args:
        job_id: Id of the export's job, by which its zip is downloaded.
        position: Index of the network within the trial.
        sha256: SHA-256 checksum of the zip.
        size: Size of the zip in bytes.
        onnx: Whether the zip holds an ONNX form.
        download: Path of the zip within the API.
        load: Line of Python that loads the unpacked folder.
        files: Files of the unpacked folder; empty for an export of an earlier version.
        content: SHA-256 of the study's images and classes by split; empty if unknown.
        int8: 8-bit form in the zip; None if there is none.
    """

    job_id: str
    architecture_id: str
    model: str
    study_id: str
    study: str
    number: int
    position: int
    sha256: str
    size: int
    onnx: bool
    exported_at: datetime
    download: str
    load: str
    files: tuple[FileBody, ...] = ()
    content: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    int8: Int8Body | None = None


class ExportList(Body):
    """A page of the exports, newest first.

    Args:
        after: Mark of the page's end; None on the last page.
    """

    architectures: tuple[ExportBody, ...]
    count: int
    after: str | None = None


class MeasuredBody(Body):
    """A measurement of an architecture.

    Args:
        fingerprint: Short name of the circumstances; values under others cannot be compared.
        input_shape: Shape of the input as ``CxHxW``.
        figures: Further observations and circumstances.
    """

    metric: str
    label: str
    value: float
    fingerprint: str
    input_shape: str
    figures: dict[str, Any]
    at: datetime


class ArchitectureBody(Body):
    """An architecture.

    Args:
        id: Hash of the architecture.
        architecture: Content of its ``architecture.json``.
        provenance: Trials that settled on it, the first 100.
        exports: Exports of it.
        load: Line of Python that builds the network without weights from the saved ``architecture``.
        measurements: Newest measurements of it, under each circumstance.
        trainings: Trainings of it, the newest 100.
    """

    id: str
    model: str
    architecture: dict[str, Any]
    provenance: tuple[ProvenanceBody, ...]
    exports: tuple[ExportBody, ...]
    load: str
    measurements: tuple[MeasuredBody, ...] = ()
    trainings: tuple[TrainingBody, ...] = ()


def export_from(row: ExportRow) -> ExportBody:
    """Build the body of an export."""
    return ExportBody(
        job_id=row.job_id,
        architecture_id=row.architecture_id,
        model=row.model,
        study_id=row.study_id,
        study=row.study,
        number=row.number,
        position=row.position,
        sha256=row.sha256,
        size=row.size,
        onnx=row.onnx,
        exported_at=row.at,
        download=f"/jobs/{row.job_id}/download",
        load=f'model = partialnet.load_package("{row.study}-trial-{row.number}").model',
        files=tuple(FileBody(**vars(file)) for file in row.files),
        content=dict(row.content),
        int8=None if row.int8 is None else Int8Body.model_validate(row.int8),
    )


def architecture_from(found: FoundArchitecture, trainings: Iterable[Training] = ()) -> ArchitectureBody:
    """Build the body of an architecture with the trainings of it."""
    return ArchitectureBody(
        id=found.id,
        model=found.model,
        architecture=dict(found.definition),
        provenance=tuple(ProvenanceBody(**vars(sighting)) for sighting in found.sightings),
        exports=tuple(map(export_from, found.exports)),
        load='model = partialnet.create(partialnet.Architecture.load("architecture.json"))',
        measurements=tuple(
            MeasuredBody(**{**vars(row), "figures": dict(row.figures)}, label=METRICS[row.metric].label)
            for row in found.measured
        ),
        trainings=tuple(map(training_from, trainings)),
    )
