"""Metrics, evaluations on data, and measurements of a network. Loads neither torch nor ray."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any


class EvaluationKind(StrEnum):
    """Origin of the weights of an evaluation; kinds differ hugely, so a front compares one kind only."""

    INHERITED = "inherited"
    FINETUNED = "finetuned"
    PREDICTED = "predicted"
    RETRAINED = "retrained"


BY_TRAINING = (EvaluationKind.RETRAINED, EvaluationKind.FINETUNED, EvaluationKind.INHERITED)
"""Kinds with real scores, the best trained weights first."""


class Direction(StrEnum):
    """Whether higher or lower values are better."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"


@dataclass(frozen=True)
class Metric:
    """The name of a scored quantity, its direction, and its display.

    Args:
        label: Label with the unit, for axes and wide tables.
        short: Short label for narrow columns.
        direction: Whether higher or lower values are better.
        evaluated: Whether it needs a data set (an evaluation); otherwise it is a measurement of the network.
        percent: Whether the stored fraction is shown as percent.
        digits: Number of decimals that are shown; None for counts, which are whole numbers.
        listed: Whether tables of networks have a column for it.
        brief: Whether the narrower table of a front also has a column for it.
        objective: Whether a study may search for it, which needs its value at the end of a trial.
    """

    label: str
    short: str
    direction: Direction
    evaluated: bool = False
    percent: bool = False
    digits: int | None = None
    listed: bool = False
    brief: bool = False
    objective: bool = True

    @property
    def quantity(self) -> str:
        """Label without its unit."""
        return self.label.partition(" (")[0]

    @property
    def is_count(self) -> bool:
        """Whether it is a whole number, which a prefix shortens."""
        return not self.percent and self.digits is None


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "top1": Metric(
            "top-1 (%)", "top-1 %", Direction.MAXIMIZE, evaluated=True, percent=True, digits=2, listed=True, brief=True
        ),
        "top5": Metric("top-5 (%)", "top-5 %", Direction.MAXIMIZE, evaluated=True, percent=True, digits=2),
        "loss": Metric("cross entropy (nats)", "loss", Direction.MINIMIZE, evaluated=True, digits=4),
        "macs": Metric("FLOPs (multiply-adds)", "FLOPs", Direction.MINIMIZE, listed=True, brief=True),
        "conv_macs": Metric("multiply-adds of the partial convolutions", "conv FLOPs", Direction.MINIMIZE),
        "params": Metric("parameters (training form)", "params", Direction.MINIMIZE),
        "params_inference": Metric("parameters (inference form)", "params (inf.)", Direction.MINIMIZE, listed=True),
        "activations": Metric("activations (elements)", "activations", Direction.MINIMIZE),
        "latency_ms": Metric(
            "latency (ms)", "latency ms", Direction.MINIMIZE, digits=3, listed=True, brief=True, objective=False
        ),
        "predicted_ms": Metric("latency by the table (ms)", "table ms", Direction.MINIMIZE, digits=3),
    }
)


def listed_metrics(*, brief: bool = False) -> tuple[str, ...]:
    """Return the metrics that tables of networks show, in their order; with ``brief`` those of the table of a front."""
    return tuple(name for name, metric in METRICS.items() if (metric.brief if brief else metric.listed))


def evaluated_metrics() -> tuple[str, ...]:
    """Return the metrics that need a data set, in their order."""
    return tuple(name for name, metric in METRICS.items() if metric.evaluated)


@dataclass(frozen=True)
class Evaluation:
    """One score on data.

    Args:
        kind: Origin of the weights.
        metric: Key of :data:`METRICS` that is evaluated (``top1``, ``top5``, ``loss``); fractions, not percent.
        value: Finite value of the metric.
        std: Standard deviation over repetitions, if any.
        data_split: Name of the data split: ``"validation"`` or ``"test"``.
        seed: Seed of the training.
        epochs: Number of training epochs in total.
        recipe: Recipe of a training outside the study; None for a training of the study itself.
    """

    kind: EvaluationKind
    metric: str
    value: float
    std: float | None = None
    data_split: str = "validation"
    seed: int | None = None
    epochs: int | None = None
    recipe: str | None = None

    def __post_init__(self) -> None:
        if self.metric not in METRICS or not METRICS[self.metric].evaluated:
            raise ValueError(f"metric is {self.metric!r}, but must be one of {', '.join(evaluated_metrics())}")
        if not math.isfinite(self.value):
            raise ValueError(f"the value of {self.metric} must be finite, but is {self.value}")
        if self.std is not None and not self.std >= 0:
            raise ValueError(f"std must not be negative, but is {self.std}")
        if self.data_split not in ("validation", "test"):
            raise ValueError(f"data_split is {self.data_split!r}, but must be validation or test")


@dataclass(frozen=True)
class Measurement:
    """One measurement of the network itself, with the circumstances that it depends on.

    Args:
        metric: Key of :data:`METRICS` that is not evaluated (``macs``, ``latency_ms``, ...).
        value: Finite value that is not negative; for latency the median.
        figures: Further observations and settings as JSON values (uncounted operations; warm-up, n, median, p90,
            interval, device, threads, batch, resolution, runtime).
        fingerprint: Short name of the circumstances; values of one metric can be compared only if it is equal.
    """

    metric: str
    value: float
    figures: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if self.metric not in METRICS or METRICS[self.metric].evaluated:
            raise ValueError(f"metric is {self.metric!r}, but must be a measured one")
        if not (math.isfinite(self.value) and self.value >= 0):
            raise ValueError(f"the value of {self.metric} must be finite and not negative, but is {self.value}")


# Explanations of the evaluation kinds for readers who have not read the manual.
KINDS: Mapping[EvaluationKind, str] = MappingProxyType(
    {
        EvaluationKind.INHERITED: "weights as the search left them",
        EvaluationKind.FINETUNED: "after fine-tuning of the fixed network",
        EvaluationKind.PREDICTED: "predicted, not trained",
        EvaluationKind.RETRAINED: "trained as a fixed network",
    }
)
