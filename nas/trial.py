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
from typing import Any

from nas.candidate import Candidate
from nas.definition.space import Parameters
from nas.errors import InputError
from nas.finalist import Finalist, ratio_label, with_finalist, without_finalist
from nas.placement import Placement


class TrialKind(StrEnum):
    """Why a trial was run; only ``search`` trials are told to the searcher."""

    SEARCH = "search"
    BASELINE = "baseline"
    RANDOM = "random"
    RETRAIN = "retrain"


class TrialState(StrEnum):
    """Where a trial stands.

    ``interrupted`` is never stored: a trial that runs reads so when its study does.
    """

    QUEUED = "queued"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self not in (TrialState.QUEUED, TrialState.RUNNING, TrialState.INTERRUPTED)


def trial_seed(study_seed: int, number: int) -> int:
    """Return the seed of trial ``number``: a function of the study's seed and the number only, below 2**31."""
    return _hashed(f"{study_seed}:{number}")


def seed_for(study_seed: int, number: int, finalist: Finalist | None = None) -> int:
    """Return the seed of a trial; finalists are compared seed by seed, so theirs goes by their ``seed_index``."""
    if finalist is not None:
        return _hashed(f"{study_seed}:retrain:{finalist.seed_index}")
    return trial_seed(study_seed, number)


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


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


@dataclass(frozen=True)
class TrialSpec:
    """A trial before it is run.

    Args:
        number: Zero-based within the study.
        kind: Why it is run.
        parameters: What the sweep sampled.
        seed: Seed of the training.
        finalist: Network of the final comparison that it trains, of a trial of kind ``retrain``.
    """

    number: int
    kind: TrialKind
    parameters: Parameters
    seed: int
    finalist: Finalist | None = None

    @property
    def stored_parameters(self) -> dict[str, float | int | str | bool]:
        """The parameters as tables, files and the wire have them: with the finalist among them."""
        return with_finalist(self.parameters, self.finalist)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        parameters = self.stored_parameters
        return {"number": self.number, "kind": self.kind.value, "parameters": parameters, "seed": self.seed}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrialSpec:
        """Return the trial of its JSON form.

        Raises:
            InputError: If it is of kind ``retrain`` and does not say what it trains.
        """
        kind, parameters = TrialKind(data["kind"]), data["parameters"]
        return cls.of_stored(data["number"], kind, parameters, data["seed"])

    @classmethod
    def of_stored(cls, number: int, kind: TrialKind, stored: Parameters, seed: int) -> TrialSpec:
        """Return the trial of :attr:`stored_parameters`.

        Raises:
            InputError: If it is of kind ``retrain`` and does not say what it trains.
        """
        if kind is not TrialKind.RETRAIN:
            return cls(number, kind, dict(stored), seed)
        try:
            parameters, finalist = without_finalist(stored)
        except InputError as error:
            raise InputError(f"trial {number}: {error}") from None
        return cls(number, kind, parameters, seed, finalist)


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
        placement: Where it ran last, and in what precision; None before it started.
        finalist: Network of the final comparison that it trains, of a trial of kind ``retrain``.
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
    placement: Placement | None = None
    finalist: Finalist | None = None

    @property
    def spec(self) -> TrialSpec:
        """What is needed to run it (again)."""
        return TrialSpec(self.number, self.kind, self.parameters, self.seed, self.finalist)

    @property
    def label(self) -> str:
        """Short text for tables: ``uniform 1/4`` for a baseline, ``trial 5, retrained``, else its kind."""
        if self.kind is TrialKind.BASELINE and "ratio" in self.parameters:
            return ratio_label(float(self.parameters["ratio"]))
        if self.finalist is not None:
            return f"{self.finalist.label}, retrained"
        return self.kind.value
