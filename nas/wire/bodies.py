"""What goes over the wire: the JSON that the API answers, the client reads and ``--json`` prints. No torch, no ray.

:mod:`nas.wire.builders` builds them from the domain types. Figures are plain numbers in the units of
:data:`nas.metrics.METRICS`: fractions, never percent. Unknown keys are ignored when reading, so that an older client
reads a newer service.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from nas.jobs import JobKind, JobState
from nas.metrics import Direction, EvaluationKind
from nas.study import StudyState
from nas.trial import TrialKind, TrialState

Scalar = bool | int | float | str


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True)


class ErrorBody(_Body):
    """The one shape of every error.

    Args:
        error: Name of the kind of error, such as ``NotFoundError``.
        detail: What was wrong, where, the value, what would be right.
        faults: One line for each fault where there can be several (a definition), else empty.
    """

    error: str
    detail: str
    faults: tuple[str, ...] = ()


class StudyBody(_Body):
    """A study in a list.

    Args:
        counts: Trials by state; states without a trial are left out.
        planned: Trials that the definition asks for, with baselines and the final comparison.
        best_top1: Best validation top-1 of all trials, of the best trained weights that were scored; a fraction.
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


class DataBody(_Body):
    """What the data of a study was when it first ran.

    Args:
        classes: Names, in the order of the targets.
        counts: Split (train, validation, and test where the study needs it) to number of images.
        content: Split to the SHA-256 of its images and classes, hexadecimal.
    """

    classes: tuple[str, ...]
    counts: dict[str, int]
    content: dict[str, str]


class StudyDetail(StudyBody):
    """A study with its definition (which :func:`nas.definition.study.parse_study` reads back).

    Args:
        fingerprint: Of its data; None before its first run.
    """

    definition: dict[str, Any]
    reference_point: dict[str, float]
    fingerprint: DataBody | None = None


class StudyList(_Body):
    """All studies, newest first."""

    studies: tuple[StudyBody, ...]
    count: int


class EvaluationBody(_Body):
    """One figure observed on data."""

    kind: EvaluationKind
    metric: str
    value: float
    std: float | None
    data_split: str
    seed: int | None
    epochs: int | None


class MeasurementBody(_Body):
    """One figure measured on the network, with its circumstances."""

    metric: str
    label: str
    value: float
    figures: dict[str, Any]
    fingerprint: str


class SplitBody(_Body):
    """The learned split of one layer."""

    layer: str
    index: int
    stage: int | None
    block: int | None
    channels: int
    active_channels: int
    ratio: float
    macs: int


class CandidateBody(_Body):
    """An architecture that a trial settled on, and what was observed of it.

    Args:
        target: Absolute cost that was asked for; None for uniform and random splits.
    """

    architecture_id: str
    architecture: dict[str, Any]
    splits: tuple[SplitBody, ...]
    evaluations: tuple[EvaluationBody, ...]
    measurements: tuple[MeasurementBody, ...]
    has_weights: bool
    within_budget: bool
    note: str | None
    target: float | None = None


class EpochBody(_Body):
    """What a trial reported after an epoch."""

    epoch: int
    phase: str
    metrics: dict[str, float]
    active_channels: dict[str, int]


class TrialBody(_Body):
    """A trial in a list.

    Args:
        scores: Metric to figure of the trial's network, of several the first; evaluated ones are of kind
            ``evaluation``.
        evaluation: Which weights the evaluated scores come from: as asked for, or the best trained ones of the network.
        within_budget: Whether all networks are; None before there is one.
        networks: How many the trial settled on.
        epoch: Newest one that a running trial reported.
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


class TrialDetail(TrialBody):
    """A trial with its candidates (per-layer splits, scores) and its history.

    Args:
        placement: Where it ran last: node, shares, device, precision, versions; None before it started.
    """

    candidates: tuple[CandidateBody, ...]
    history: tuple[EpochBody, ...]
    placement: dict[str, Any] | None = None


class TrialList(_Body):
    """The trials of a study by number.

    Args:
        evaluation: Asked for; None where each trial says its own.
    """

    trials: tuple[TrialBody, ...]
    count: int
    evaluation: EvaluationKind | None


class AxisBody(_Body):
    """An objective, as an axis shows it."""

    metric: str
    label: str
    direction: Direction
    percent: bool


class ParetoPointBody(_Body):
    """One candidate in the plane (or space) of the objectives; ``position`` is its place within its trial."""

    number: int
    label: str
    kind: TrialKind
    architecture_id: str
    values: dict[str, float]
    on_front: bool
    parameters: dict[str, Scalar]
    position: int = 0


class ParetoBody(_Body):
    """The candidates of a study and which of them are on the front.

    Args:
        hypervolume: Of the front up to the study's reference point; None without points, or where the reference point
            lacks one of the objectives.
    """

    study_id: str
    study: str
    evaluation: EvaluationKind
    objectives: tuple[AxisBody, ...]
    points: tuple[ParetoPointBody, ...]
    hypervolume: float | None


class JobBody(_Body):
    """A job of a worker.

    Args:
        number: The trial that it is about, if any.
        size: Of the file that can be downloaded, in bytes; None as long as there is none.
        sha256: Of that file.
        error: Why it failed.
        stopping: Whether it was asked to stop and has not ended yet.
        expired: Whether it runs no more, because its worker died; it waits for another one.
    """

    id: str
    kind: JobKind
    state: JobState
    stopping: bool
    study_id: str | None
    number: int | None
    size: int | None
    sha256: str | None
    error: str | None
    expired: bool = False


class LaunchBody(_Body):
    """A launched (or resumed) study and the job that runs it."""

    study: StudyBody
    job: JobBody


class HealthBody(_Body):
    """Whether the service can work: ``worker`` is ``running``, ``restarting`` or ``off`` (none of its own)."""

    status: str = Field(description="ok")
    worker: str
