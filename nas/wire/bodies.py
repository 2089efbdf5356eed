"""The JSON that the API answers, the client reads and ``--json`` prints. Loads neither torch nor ray.

:mod:`nas.wire.builders` builds these bodies from the domain types. Figures are plain numbers in the units of
:data:`nas.metrics.METRICS`: fractions, never percent. A reader ignores unknown keys, so that an older client can read
a newer service.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from nas.jobs import DesiredState, JobKind, JobState
from nas.metrics import Direction, EvaluationKind
from nas.study import StudyState
from nas.trial import TrialKind, TrialState

Scalar = bool | int | float | str


class Body(BaseModel):
    """Base of all bodies."""

    model_config = ConfigDict(frozen=True)


class ErrorBody(Body):
    """The common shape of all errors, a problem of RFC 9457 (``application/problem+json``).

    Args:
        type: Reference that identifies the kind of problem; ``about:blank`` says that ``status`` does.
        title: Phrase of the status.
        status: HTTP status.
        error: Name of the error class, such as ``NotFoundError``.
        detail: Text of the error: the place, what was wrong, the value, what would be right.
        faults: Lines for the faults of a definition or of parameters, one for each; otherwise empty.
        request_id: Id of the request, which the service's log has as well.
    """

    type: str = "about:blank"
    title: str = ""
    status: int = 0
    error: str
    detail: str
    faults: tuple[str, ...] = ()
    request_id: str | None = None


class StudyBody(Body):
    """A study in a list.

    Args:
        counts: Number of trials by state; states without a trial are left out.
        planned: Number of trials that the definition requests, with baselines and the final comparison.
        best_top1: Best validation top-1 of all trials as a fraction, of the best trained weights with a score.
        tags: Tags that people gave it.
        note: Text that people put on it.
        archived: Whether it is left out of the usual list.
        created_by: Name of the token that created it; None for a command.
        content: SHA-256 of its training images and classes; None before its first run.
    """

    id: str
    name: str
    state: StudyState
    question: str
    data: str
    model: str
    objectives: tuple[str, ...]
    counts: dict[TrialState, int]
    planned: int
    best_top1: float | None
    created_at: datetime
    updated_at: datetime
    reason: str | None
    report: tuple[str, ...]
    tags: tuple[str, ...] = ()
    note: str = ""
    archived: bool = False
    created_by: str | None = None
    content: str | None = None


class DataBody(Body):
    """Fingerprint of a study's data at its first run.

    Args:
        classes: Names of the classes in the order of the targets.
        counts: Number of images by split (train, validation, and test if the study needs it).
        content: SHA-256 of the images and classes by split, hexadecimal.
    """

    classes: tuple[str, ...]
    counts: dict[str, int]
    content: dict[str, str]


class GrowthBody(Body):
    """A growth of the hypervolume of a study's objectives.

    Args:
        number: Number of the trial whose end made it grow.
        trials: Number of trials with a result until then, this one included.
        value: Hypervolume afterwards, in the units of the objectives.
        at: Time of the trial's end.
    """

    number: int
    trials: int
    value: float
    at: datetime


class StudyDetail(StudyBody):
    """A study with its definition, which :func:`nas.definition.study.parse_study` reads.

    Args:
        fingerprint: Fingerprint of its data; None before its first run.
        hypervolumes: Growths of its hypervolume over time, the first one first.
    """

    definition: dict[str, Any]
    reference_point: dict[str, float]
    fingerprint: DataBody | None = None
    hypervolumes: tuple[GrowthBody, ...] = ()


class StudyList(Body):
    """A page of the studies.

    Args:
        count: Number of studies in the page.
        after: Mark of the page's end, with which the next page is requested; None on the last page.
    """

    studies: tuple[StudyBody, ...]
    count: int
    after: str | None = None


class EvaluationBody(Body):
    """One score on data."""

    kind: EvaluationKind
    metric: str
    value: float
    std: float | None
    data_split: str
    seed: int | None
    epochs: int | None
    recipe: str | None = None


class MeasurementBody(Body):
    """One measured value of a network, with its circumstances."""

    metric: str
    label: str
    value: float
    figures: dict[str, Any]
    fingerprint: str


class SplitBody(Body):
    """The learned split of one layer."""

    layer: str
    index: int
    stage: int | None
    block: int | None
    channels: int
    active_channels: int
    ratio: float
    macs: int


class BlockBody(Body):
    """A block of a network of a wider space.

    Args:
        present: Whether the block is there.
        channels: Width C.
        active_channels: Convolved channels; None without a partial convolution.
        hidden_channels: Hidden width of its MLP; None if the block is absent.
        kernel_size: Kernel size of its partial convolution; None without one.
        attended_channels: Channels that its attention serves, if it leaves some out.
    """

    name: str
    index: int
    stage: int
    block: int
    present: bool
    channels: int
    active_channels: int | None
    hidden_channels: int | None
    kernel_size: int | None
    attended_channels: int | None = None


class CandidateBody(Body):
    """An architecture that a trial settled on, with its scores and measurements.

    Args:
        blocks: Blocks in forward order, if they differ in more than their splits.
        target: Absolute cost that was requested; None for uniform and random splits.
        measured_within_budget: Whether its measured latency is within 5 % of its target, or at most the hard limit;
            None if it was not measured, or the budget is not in milliseconds.
        trainings: Scores of trainings outside the study, each with its recipe; fronts leave them out.
    """

    architecture_id: str
    architecture: dict[str, Any]
    splits: tuple[SplitBody, ...]
    blocks: tuple[BlockBody, ...] = ()
    evaluations: tuple[EvaluationBody, ...]
    measurements: tuple[MeasurementBody, ...]
    has_weights: bool
    within_budget: bool
    note: str | None
    target: float | None = None
    measured_within_budget: bool | None = None
    trainings: tuple[EvaluationBody, ...] = ()


class EpochBody(Body):
    """The report of a trial after an epoch."""

    epoch: int
    phase: str
    metrics: dict[str, float]
    active_channels: dict[str, int]


class FidelityBody(Body):
    """How far an early-stopped trial was trained."""

    epochs: int
    budget: int


class TrialBody(Body):
    """A trial in a list.

    Args:
        scores: Values of the trial's network by metric, of several networks the first; evaluated metrics have the
            kind ``evaluation``.
        evaluation: Evaluation kind of the scores: the requested one, or that of the network's best trained weights.
        within_budget: Whether all networks are within the budget; None before there is a network.
        networks: Number of networks that the trial settled on.
        fidelity: Epochs that an early-stopped trial trained, and those of its whole training (``epochs``, ``budget``).
        position: Index of the network that the scores are of, if the trial has several.
        epoch: Newest epoch that a running trial reported.
    """

    number: int
    kind: TrialKind
    label: str
    state: TrialState
    parameters: dict[str, Scalar]
    seed: int
    reason: str | None
    scores: dict[str, float]
    evaluation: EvaluationKind | None
    within_budget: bool | None
    epoch: int | None
    started_at: datetime | None
    ended_at: datetime | None
    networks: int = 0
    fidelity: FidelityBody | None = None
    position: int | None = None


class TrialDetail(TrialBody):
    """A trial with its candidates (per-layer splits, scores) and its history.

    Args:
        placement: Place of the last run: node, shares, device, precision, versions; None before it started.
    """

    candidates: tuple[CandidateBody, ...]
    history: tuple[EpochBody, ...]
    placement: dict[str, Any] | None = None


class TrialList(Body):
    """The trials of a study, ordered by number, or a page of them in the requested order.

    Args:
        count: Number of trials in the list.
        evaluation: Requested evaluation kind; None if each trial states its own.
        after: Mark of the page's end, with which the next page is requested; None on the last page.
    """

    trials: tuple[TrialBody, ...]
    count: int
    evaluation: EvaluationKind | None
    after: str | None = None


class AxisBody(Body):
    """An objective as the axis of a figure."""

    metric: str
    label: str
    direction: Direction
    percent: bool


class ParetoPointBody(Body):
    """One candidate in the plane (or space) of the objectives; ``position`` is its index within its trial.

    Args:
        broken: Constraints of the study that it breaks; then it is not on the front.
        measured_within_budget: Whether its measured latency is within 5 % of its target, or at most the hard limit;
            None if it was not measured, or the budget is not in milliseconds.
    """

    number: int
    label: str
    kind: TrialKind
    architecture_id: str
    values: dict[str, float]
    on_front: bool
    parameters: dict[str, Scalar]
    position: int = 0
    broken: tuple[str, ...] = ()
    measured_within_budget: bool | None = None


class ParetoBody(Body):
    """The candidates of a study, with marks on those of the front.

    Args:
        scored: Number of networks with each objective, whether or not they are among the points.
        hypervolume: Hypervolume of the front up to the study's reference point; None without points, or if the
            reference point lacks one of the objectives.
        thinned: Whether only a selection of the dominated networks are among the points.
    """

    study_id: str
    study: str
    evaluation: EvaluationKind
    objectives: tuple[AxisBody, ...]
    scored: int = 0
    points: tuple[ParetoPointBody, ...]
    hypervolume: float | None
    thinned: bool = False


class Int8Body(Body):
    """The 8-bit form of an export, measured beside the float form when it was made.

    Args:
        images: Number of validation images.
        max_drop: Largest fall of top-1 that was allowed, as a fraction.
        top1: Top-1 of the forms ``float32`` and ``int8`` on these images, as fractions.
        latency_ms: Latency of both forms in ONNX Runtime, in milliseconds.
        device: Processor on which they were measured.
    """

    images: int
    max_drop: float
    top1: dict[str, float]
    latency_ms: dict[str, float]
    device: str


class JobBody(Body):
    """A job of a worker.

    Args:
        number: Number of the trial of the job, if any.
        size: Size in bytes of the file for download; None while there is none.
        sha256: SHA-256 checksum of that file.
        int8: 8-bit form in that file; None if there is none.
        error: Reason why it failed.
        desired: State that was requested for it.
        stopping: Whether a pause or stop was requested and the job has not ended yet.
        expired: Whether it no longer runs because its worker died; it waits for another worker.
        attempt: Number of starts since the last progress, without clean hand-backs.
        worker: Machine and process that run it.
        created_at: Time when it was queued.
        started_at: Time of the newest start.
        expires_at: Time at which the lease ends without a heartbeat; for a waiting job, when it may start again.
    """

    id: str
    kind: JobKind
    state: JobState
    desired: DesiredState
    stopping: bool
    study_id: str | None
    number: int | None
    size: int | None
    sha256: str | None
    int8: Int8Body | None = None
    error: str | None
    expired: bool = False
    attempt: int = 0
    worker: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    expires_at: datetime | None = None


class LaunchBody(Body):
    """A launched (or resumed) study and its search job."""

    study: StudyBody
    job: JobBody


class ControlBody(Body):
    """A study whose search was requested to pause or stop, and the job of that search.

    Args:
        job: Job of the search; None if the study waited without one.
    """

    study: StudyBody
    job: JobBody | None


class HealthBody(Body):
    """State of the service: ``worker`` is ``running``, ``restarting`` or ``off`` (no embedded worker)."""

    status: str = Field(description="ok")
    worker: str
