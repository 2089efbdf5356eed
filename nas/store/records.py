"""Types that the store returns besides the domain types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from nas.candidate import PackedFile
from nas.definition.space import Parameters
from nas.findings.pareto import ParetoPoint
from nas.metrics import EvaluationKind
from nas.study import Study
from nas.trial import Fidelity, TrialKind, TrialSpec, TrialState


@dataclass(frozen=True)
class StudyRow:
    """A study in a list.

    Args:
        study: The study.
        counts: Number of its trials in each state; each state is a key.
        best_top1: Best validation top-1 of its trials as a fraction, of the best trained weights with a score; None
            before the first score.
    """

    study: Study
    counts: Mapping[TrialState, int]
    best_top1: float | None = None


@dataclass(frozen=True)
class StudyPage:
    """A page of a list of studies.

    Args:
        rows: Studies of the page, in the requested order.
        after: Mark of the page's end, for the next page; None on the last page.
    """

    rows: tuple[StudyRow, ...]
    after: str | None


@dataclass(frozen=True)
class LayerRatio:
    """The split of one layer of one trial's candidate as a flat record for data frames.

    Args:
        number: Number of the trial.
        kind: Kind of the trial.
        architecture_id: Id of the candidate's architecture.
        layer: Module name of the layer.
        index: Zero-based index of the layer in forward order.
        stage: Zero-based stage; None in a network without stages.
        block: Zero-based block within the stage.
        channels: Width C.
        active_channels: Convolved channels n.
        ratio: Split ratio n/C.
        macs: Multiply-adds of the layer's convolution at the study's input size.
    """

    number: int
    kind: TrialKind
    architecture_id: str
    layer: str
    index: int
    stage: int | None
    block: int | None
    channels: int
    active_channels: int
    ratio: float
    macs: int


@dataclass(frozen=True)
class StoredWeights:
    """The recorded weights of a trial's network.

    Args:
        number: Number of the trial.
        position: Index of the network within it.
        uri: URI of the file, relative to the storage.
        size: Size in bytes.
        kept: Reason why it is kept, such as ``front``; None if it may be collected.
    """

    number: int
    position: int
    uri: str
    size: int
    kept: str | None


@dataclass(frozen=True)
class NetworkRow:
    """A network in a list: its scores, without its layers.

    Args:
        position: Index of the network within its trial, from 0.
        architecture_id: Id of its architecture.
        within_budget: Whether the budget was met.
        evaluation: Evaluation kind of its evaluated scores; None without a score.
        values: Values by metric, of one evaluation kind and under the usual circumstances.
    """

    position: int
    architecture_id: str
    within_budget: bool
    evaluation: EvaluationKind | None
    values: Mapping[str, float]


@dataclass(frozen=True)
class TrialRow:
    """A trial in a list.

    Args:
        spec: Number, kind, parameters and seed.
        state: Present state.
        reason: Reason why it failed or was cancelled.
        started_at: Start in UTC.
        ended_at: End in UTC.
        count: Number of its networks.
        within_budget: Whether all its networks are within the budget; None without a network.
        networks: Listed networks: all of them, or the one that its place in an order by a metric belongs to.
        epoch: Newest epoch of a trial that runs; None if it has reported none.
        fidelity: Number of epochs that it trained, of how many, if it was stopped early.
    """

    spec: TrialSpec
    state: TrialState
    reason: str | None
    started_at: datetime | None
    ended_at: datetime | None
    count: int
    within_budget: bool | None
    networks: tuple[NetworkRow, ...]
    epoch: int | None = None
    fidelity: Fidelity | None = None


@dataclass(frozen=True)
class TrialPage:
    """A page of a list of trials.

    Args:
        rows: Trials of the page, in the requested order.
        after: Mark of the page's end, for the next page; None on the last page.
        evaluation: Evaluation kind that most networks of the study have.
    """

    rows: tuple[TrialRow, ...]
    after: str | None
    evaluation: EvaluationKind


@dataclass(frozen=True)
class Front:
    """The front of a study.

    Args:
        evaluation: Evaluation kind of the evaluated scores.
        scored: Number of networks with each objective.
        points: Points of the front, and those dominated points that were requested, by trial and position.
        parameters: Sampled parameters of the points' trials, by number.
        several: Trials of the points that have several networks.
        hypervolume: Hypervolume of the front; None without points or without a whole reference point.
        broken: Number of networks by the constraint that they break; they are not on the front.
        seeds: Seeds of the points' trials, by number.
    """

    evaluation: EvaluationKind
    scored: int
    points: tuple[ParetoPoint, ...]
    parameters: Mapping[int, Parameters]
    several: frozenset[int]
    hypervolume: float | None
    broken: Mapping[str, int] = field(default_factory=dict)
    seeds: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ExportRow:
    """A finished export.

    Args:
        job_id: Id of the job that wrote it.
        study_id: Id of the study.
        study: Name of the study.
        number: Number of the trial.
        position: Index of the network within the trial.
        architecture_id: Id of the architecture.
        model: Name of the model.
        sha256: SHA-256 checksum of the zip file.
        size: Size of the zip file in bytes.
        onnx: Whether it holds an ONNX form.
        at: End of the export in UTC.
        files: Files of the package; empty for an export of an earlier version.
        content: SHA-256 checksums of the study's images and classes by split; empty if unknown.
        int8: Scores of its 8-bit form; None without one.
    """

    job_id: str
    study_id: str
    study: str
    number: int
    position: int
    architecture_id: str
    model: str
    sha256: str
    size: int
    onnx: bool
    at: datetime
    files: tuple[PackedFile, ...] = ()
    content: Mapping[str, str] = field(default_factory=dict)
    int8: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Sighting:
    """A trial that settled on an architecture.

    Args:
        study_id: Id of the study.
        study: Name of the study.
        number: Number of the trial.
        position: Index of the network within the trial.
        kind: Kind of the trial.
    """

    study_id: str
    study: str
    number: int
    position: int
    kind: str


@dataclass(frozen=True)
class MeasuredRow:
    """A measurement of an architecture.

    Args:
        metric: Key of :data:`nas.metrics.METRICS`.
        value: Value of the metric.
        fingerprint: Short name of the circumstances.
        input_shape: Shape of the input as ``CxHxW``.
        figures: Further observations and circumstances.
        at: Time of the measurement in UTC.
    """

    metric: str
    value: float
    fingerprint: str
    input_shape: str
    figures: Mapping[str, Any]
    at: datetime


@dataclass(frozen=True)
class FoundArchitecture:
    """An architecture with what is known of it.

    Args:
        id: Hash of the architecture.
        model: Name of the model.
        definition: Architecture as JSON.
        sightings: Trials that settled on it.
        exports: Exports of it, newest first.
        measured: Measurements of it, the newest under each circumstance.
    """

    id: str
    model: str
    definition: Mapping[str, Any]
    sightings: tuple[Sighting, ...]
    exports: tuple[ExportRow, ...]
    measured: tuple[MeasuredRow, ...] = ()


@dataclass(frozen=True)
class DeviceRow:
    """Circumstances of measured latencies.

    Args:
        fingerprint: Text that stands for the circumstances.
        figures: Figures of the newest measurement, with the circumstances in words.
        count: Number of measurements.
        at: Time of the newest one in UTC.
    """

    fingerprint: str
    figures: Mapping[str, Any]
    count: int
    at: datetime


@dataclass(frozen=True)
class TableRow:
    """A latency table of a device, which studies search with.

    Args:
        fingerprint: Text that stands for the device and the circumstances.
        network: Name of the network whose layers it holds.
        title: Device and circumstances in words.
        reference_ms: Latency of the whole network in milliseconds.
        studies: Names of the studies.
    """

    fingerprint: str
    network: str
    title: str
    reference_ms: float
    studies: tuple[str, ...]


@dataclass(frozen=True)
class StudyName:
    """Name of a study, and of the token that created it; None for a command."""

    name: str
    created_by: str | None


@dataclass(frozen=True)
class HeldRow:
    """What the running trials of a study hold.

    Args:
        trials: Number of the trials.
        cpus: Sum of their shares of CPUs.
        gpus: Sum of their shares of GPUs.
        nodes: Host names of their machines.
    """

    trials: int
    cpus: float
    gpus: float
    nodes: tuple[str, ...]
