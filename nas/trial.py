"""Trials and their records, the domain types of all other code. Loads neither torch nor ray.

Three things are kept apart: the sampled values (``Trial.parameters``), the network that the method settled on (an
architecture), and the observations (evaluations and measurements).

Life of a trial::

    queued -> running -> complete | pruned | failed | cancelled
       ^---------'   (an interrupted search puts it back)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from nas.candidate import Candidate
from nas.definition.space import Parameters
from nas.errors import InputError
from nas.finalist import Finalist, ratio_label, with_finalist, without_finalist


class TrialKind(StrEnum):
    """Purpose of a trial; the searcher learns only from ``search`` trials."""

    SEARCH = "search"
    BASELINE = "baseline"
    RANDOM = "random"
    RETRAIN = "retrain"
    CHEAPER = "cheaper"


LEARNED_KINDS = frozenset({TrialKind.SEARCH, TrialKind.CHEAPER})
"""Kinds of trials whose networks have learned splits; ``cheaper`` ones are at the next levels below a hard limit."""
OWN_NETWORK = frozenset({TrialKind.RETRAIN, TrialKind.CHEAPER})
"""Kinds of trials that train a network which their parameters name (a finalist)."""


class TrialState(StrEnum):
    """The states of a trial.

    ``pruned`` is the state of a trial that early stopping ended: it has no network, and no front holds it.
    ``interrupted`` is never stored: a running trial reads so when its study does.
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
        """Whether the state is final."""
        return self not in (TrialState.QUEUED, TrialState.RUNNING, TrialState.INTERRUPTED)


def trial_seed(study_seed: int, number: int) -> int:
    """Return the seed of trial ``number``, below 2**31: it depends only on the study's seed and the number."""
    return _hashed(f"{study_seed}:{number}")


def seed_for(study_seed: int, number: int, finalist: Finalist | None = None) -> int:
    """Return the seed of a trial; that of a finalist depends on its ``seed_index``, to allow pairs of equal seeds."""
    if finalist is not None:
        return _hashed(f"{study_seed}:retrain:{finalist.seed_index}")
    return trial_seed(study_seed, number)


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


EPOCH_SCORES: Mapping[str, str] = MappingProxyType({"top1": "top1", "top5": "top5", "loss": "validation_loss"})
"""Names of validation scores among the metrics of an epoch, by the metric of a trained network."""


@dataclass(frozen=True)
class EpochRecord:
    """The report of a trial after an epoch.

    Args:
        epoch: One-based number of the epoch, over all phases of the trial.
        phase: Name of the phase: ``warmup``, ``uniform``, ``gates``, ``fractional``, ``frozen``, for a supernet
            ``sandwich``, then ``finetune``; for a fixed network ``train``.
        metrics: Finite numbers by name: ``loss``, ``task_loss``, ``order_loss``, ``top1``, ``cost``, ``target``,
            ``learning_rate``, ``images_per_second``, ...
        active_channels: Number of active channels by module name. In a wider space also hidden channels by name of the
            MLP, and presence (0 or 1) by name of the block.
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
class Rung:
    """A trial at a rung of early stopping, with the decision on it.

    Args:
        number: Number of the trial.
        epoch: One-based epoch of the rung.
        scores: Values that trials at the rung are compared by, in the order of the study's early stopping.
        kept: Whether the trial continues; otherwise it ends here.
    """

    number: int
    epoch: int
    scores: tuple[float, ...]
    kept: bool


@dataclass(frozen=True)
class Fidelity:
    """How far an early-stopped trial was trained.

    Args:
        epochs: Number of epochs that it trained.
        budget: Number of epochs of its whole training.
    """

    epochs: int
    budget: int

    def __str__(self) -> str:
        return f"{self.epochs} of {self.budget} epochs"


@dataclass(frozen=True)
class TrialSpec:
    """A trial before its run.

    Args:
        number: Zero-based number within the study.
        kind: Purpose of the trial.
        parameters: Sampled values.
        seed: Seed of the training.
        finalist: Network that it trains, for a trial of kind ``retrain`` or ``cheaper``.
    """

    number: int
    kind: TrialKind
    parameters: Parameters
    seed: int
    finalist: Finalist | None = None

    @property
    def stored_parameters(self) -> dict[str, float | int | str | bool]:
        """Parameters in the form of tables, files and HTTP, including the finalist."""
        return with_finalist(self.parameters, self.finalist)

    @property
    def label(self) -> str:
        """Short text for tables: ``uniform 1/4`` for a baseline, ``trial 5, retrained``, otherwise its kind."""
        if self.kind is TrialKind.BASELINE and "ratio" in self.parameters:
            return ratio_label(float(self.parameters["ratio"]))
        if self.finalist is not None:
            how = "cheaper levels" if self.kind is TrialKind.CHEAPER else "retrained"
            return f"{self.finalist.label}, {how}"
        return self.kind.value

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        parameters = self.stored_parameters
        return {"number": self.number, "kind": self.kind.value, "parameters": parameters, "seed": self.seed}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrialSpec:
        """Return a trial from its JSON form.

        Raises:
            InputError: If it is of kind ``retrain`` or ``cheaper`` and does not name its network.
        """
        kind, parameters = TrialKind(data["kind"]), data["parameters"]
        return cls.of_stored(data["number"], kind, parameters, data["seed"])

    @classmethod
    def of_stored(cls, number: int, kind: TrialKind, stored: Parameters, seed: int) -> TrialSpec:
        """Return a trial from :attr:`stored_parameters`.

        Raises:
            InputError: If it is of kind ``retrain`` or ``cheaper`` and does not name its network.
        """
        if kind not in OWN_NETWORK:
            return cls(number, kind, dict(stored), seed)
        try:
            parameters, finalist = without_finalist(stored)
        except InputError as error:
            raise InputError(f"trial {number}: {error}") from None
        return cls(number, kind, parameters, seed, finalist)


@dataclass(frozen=True)
class Compute:
    """What the numbers of a training depend on, besides the definition.

    Args:
        device: Name of the processor or of the GPU.
        precision: Type of the training's arithmetic, as in the definition.
        convolutions: Arithmetic of float32 convolutions on the device: ``"ieee"``, or ``"tf32"`` on a GPU.
        products: Arithmetic of float32 matrix products on the device.
        memory_gib: Memory that the trial may take of its GPU; None on a processor.
        versions: Versions of torch and, on a GPU, of CUDA, cuDNN and the driver.
    """

    device: str
    precision: str
    convolutions: str
    products: str
    memory_gib: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Placement:
    """Place where Ray ran a trial.

    Args:
        node: Host name of the machine.
        pid: Id of the trial's process.
        cpus: Share of CPUs.
        gpus: Share of GPUs.
        gpu_ids: Ids of the visible GPUs, by Ray's numbering.
        cuda_visible_devices: Value of the environment variable in the trial; None if it is not set.
        compute: Device, arithmetic and versions that its numbers depend on.
    """

    node: str
    pid: int
    cpus: float
    gpus: float
    gpu_ids: tuple[str, ...] = ()
    cuda_visible_devices: str | None = None
    compute: Compute | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Placement:
        """Build a placement from :meth:`to_dict`."""
        compute = data["compute"]
        found = None if compute is None else Compute(**compute)
        return cls(**{**data, "gpu_ids": tuple(data["gpu_ids"]), "compute": found})

    def sentence(self) -> str:
        """Return the placement in words, for people."""
        if self.compute is None:
            return self.node
        share = f", {self.gpus:g} of it" if 0 < self.gpus < 1 else ""
        cap = "" if self.compute.memory_gib is None else f", at most {self.compute.memory_gib:.1f} GiB"
        arithmetic = self.compute.precision
        if arithmetic == "float32" and "tf32" in (self.compute.convolutions, self.compute.products):
            arithmetic += f" (convolutions {self.compute.convolutions}, products {self.compute.products})"
        return f"{self.compute.device}{share}{cap}, {arithmetic}, on {self.node}"


@dataclass(frozen=True)
class Trial:
    """A sampled parameter set, its training and its results.

    Args:
        number: Zero-based number within the study.
        kind: Purpose of the trial.
        state: Present state.
        parameters: Sampled values (``target``, ``penalty``, ...; ``ratio`` for a baseline).
        seed: Seed of the training.
        reason: Reason why it failed or was cancelled.
        candidates: Networks that it settled on: usually one; a supernet's trial yields many.
        history: Records of its epochs.
        started_at: Start in UTC.
        ended_at: End in UTC.
        placement: Place and precision of its last run; None before it started.
        finalist: Network that it trains, for a trial of kind ``retrain`` or ``cheaper``.
        fidelity: Number of epochs that it trained, of how many, if it was stopped early.
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
    fidelity: Fidelity | None = None

    @property
    def spec(self) -> TrialSpec:
        """Specification for a (repeated) run."""
        return TrialSpec(self.number, self.kind, self.parameters, self.seed, self.finalist)

    @property
    def label(self) -> str:
        """Short text for tables; see :attr:`TrialSpec.label`."""
        return self.spec.label
