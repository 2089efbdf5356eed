"""The domain types that everything else speaks: trials, candidates, evaluations, measurements. No torch, no ray.

Three things are kept apart: what the sweep sampled (``Trial.parameters``), what the method settled on (an
architecture), and what was observed (evaluations and measurements).

Life of a trial::

    queued -> running -> complete | pruned | failed | cancelled
       ^---------'   (an interrupted search puts it back)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from nas.metrics import BY_TRAINING, METRICS, Evaluation, EvaluationKind, Measurement
from partialnet.architecture import Architecture

Parameters = Mapping[str, float | int | str | bool]


class TrialKind(StrEnum):
    """Why a trial was run; only ``search`` trials are told to the searcher."""

    SEARCH = "search"
    BASELINE = "baseline"
    RANDOM = "random"
    RETRAIN = "retrain"


class TrialState(StrEnum):
    """Where a trial stands."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self not in (TrialState.QUEUED, TrialState.RUNNING)


def trial_seed(study_seed: int, number: int) -> int:
    """Return the seed of trial ``number``: a function of the study's seed and the number only, below 2**31."""
    return _hashed(f"{study_seed}:{number}")


def seed_for(study_seed: int, number: int, kind: TrialKind, parameters: Parameters) -> int:
    """Return the seed of a trial; retrained networks are compared seed by seed, so theirs goes by ``seed_index``."""
    if kind is TrialKind.RETRAIN and "seed_index" in parameters:
        return _hashed(f"{study_seed}:retrain:{parameters['seed_index']}")
    return trial_seed(study_seed, number)


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


@dataclass(frozen=True)
class Split:
    """The learned split of one layer.

    Args:
        layer: Module name.
        index: Zero-based, in forward order.
        channels: Width C.
        active_channels: Convolved channels n.
        macs: Multiply-adds of this layer's convolution at the study's input size.
        stage: Zero-based; None where the network has none.
        block: Zero-based within the stage.
    """

    layer: str
    index: int
    channels: int
    active_channels: int
    macs: int
    stage: int | None = None
    block: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.active_channels <= self.channels:
            raise ValueError(f"{self.layer}: active_channels={self.active_channels} must be in 1..{self.channels}")

    @property
    def ratio(self) -> float:
        """Split ratio n/C."""
        return self.active_channels / self.channels


@dataclass(frozen=True)
class Artifact:
    """A stored file.

    Args:
        uri: Where it is, relative to the storage.
        sha256: Of its bytes, hexadecimal.
        size: In bytes.
        kind: ``"weights"`` or ``"export"``.
    """

    uri: str
    sha256: str
    size: int
    kind: str


@dataclass(frozen=True)
class Candidate:
    """An architecture that a trial settled on, and what was observed of it.

    Args:
        architecture: The network.
        splits: Per layer, in forward order.
        evaluations: On data.
        measurements: Of the network.
        weights: Stored weights, if kept.
        within_budget: False if the budget could not be met within 2 %.
        note: Why not, with the nearest reachable costs.
        target: Absolute cost that was asked for, in the unit of the study's budget; None for uniform and random splits.
    """

    architecture: Architecture
    splits: tuple[Split, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    weights: Artifact | None = None
    within_budget: bool = True
    note: str | None = None
    target: float | None = None

    @property
    def kind(self) -> EvaluationKind | None:
        """The best trained weights that it was scored with; None before it was."""
        found = {evaluation.kind for evaluation in self.evaluations}
        return next((kind for kind in BY_TRAINING if kind in found), None)

    def score(self, metric: str, kind: EvaluationKind | None = None, data_split: str = "validation") -> float | None:
        """Return the newest figure of ``metric``; for an evaluated one, of ``kind`` on ``data_split``."""
        if METRICS[metric].evaluated:
            values = [
                e.value
                for e in self.evaluations
                if e.metric == metric and e.data_split == data_split and kind in (None, e.kind)
            ]
        else:
            values = [m.value for m in self.measurements if m.metric == metric]
        return values[-1] if values else None


@dataclass(frozen=True)
class EpochRecord:
    """What a trial reports after an epoch.

    Args:
        epoch: One-based, over all phases of the trial.
        phase: ``warmup``, ``uniform``, ``gates``, ``fractional``, ``frozen``, of a supernet ``sandwich``, then
            ``finetune``; for a fixed network ``train``.
        metrics: ``loss``, ``task_loss``, ``order_loss``, ``top1``, ``cost``, ``target``, ``learning_rate``,
            ``images_per_second``, ...: finite numbers.
        active_channels: Module name to n.
    """

    epoch: int
    phase: str
    metrics: Mapping[str, float]
    active_channels: Mapping[str, int]

    def __post_init__(self) -> None:
        bad = {key: value for key, value in self.metrics.items() if not math.isfinite(value)}
        if bad:
            raise ValueError(f"reported metrics must be finite, but got {bad}")


def ratio_label(ratio: float) -> str:
    """Return what a uniform ratio is called: ``uniform 1/4``, or ``uniform 0.242`` where it is no such part."""
    parts = round(1 / ratio)
    return f"uniform 1/{parts}" if math.isclose(parts * ratio, 1.0) else f"uniform {ratio:.3g}"


def retrain_label(parameters: Parameters) -> str:
    """Return what a network of the final comparison is called.

    ``trial 5`` or, of several networks of a trial, ``trial 0.3``; ``uniform 0.242``; ``random split 1``.
    """
    match parameters.get("role"):
        case "learned":
            return f"trial {parameters.get('of')}" + (f".{parameters['position']}" if "position" in parameters else "")
        case "uniform" if "ratio" in parameters:
            return ratio_label(float(parameters["ratio"]))
        case "random":
            return f"random split {int(parameters.get('draw', 0)) + 1}"
    return "network"


@dataclass(frozen=True)
class TrialSpec:
    """A trial before it is run: what the sweep sampled."""

    number: int
    kind: TrialKind
    parameters: Parameters
    seed: int


@dataclass(frozen=True)
class Trial:
    """A sampled parameter set, its training, and what came of it.

    Args:
        number: Zero-based within the study.
        kind: Why it was run.
        state: Where it stands.
        parameters: What was sampled (``target``, ``penalty``, ...; ``ratio`` for a baseline).
        seed: Of the training.
        reason: Why it failed or was cancelled.
        candidates: Usually one; a supernet's trial yields many.
        history: Per epoch.
        started_at: UTC.
        ended_at: UTC.
    """

    number: int
    kind: TrialKind
    state: TrialState
    parameters: Parameters
    seed: int
    reason: str | None = None
    candidates: tuple[Candidate, ...] = ()
    history: tuple[EpochRecord, ...] = ()
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def spec(self) -> TrialSpec:
        """What is needed to run it (again)."""
        return TrialSpec(self.number, self.kind, self.parameters, self.seed)

    @property
    def label(self) -> str:
        """Short text for tables: ``uniform 1/4`` for a baseline, ``trial 5, retrained``, else its kind."""
        if self.kind is TrialKind.BASELINE and "ratio" in self.parameters:
            return ratio_label(float(self.parameters["ratio"]))
        if self.kind is TrialKind.RETRAIN and "role" in self.parameters:
            return f"{retrain_label(self.parameters)}, retrained"
        return self.kind.value
