"""A network that a trial settled on, its splits and scores, and its JSON form. No torch, no ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nas.metrics import BY_TRAINING, METRICS, Evaluation, EvaluationKind, Measurement
from partialnet.architecture import Architecture


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


def candidate_to_dict(candidate: Candidate) -> dict[str, Any]:
    """Return the JSON form of a candidate."""
    return {
        "architecture": candidate.architecture.to_dict(),
        "splits": [asdict(split) for split in candidate.splits],
        "evaluations": [asdict(evaluation) for evaluation in candidate.evaluations],
        "measurements": [{**vars(m), "figures": dict(m.figures)} for m in candidate.measurements],
        "weights": asdict(candidate.weights) if candidate.weights else None,
        "within_budget": candidate.within_budget,
        "note": candidate.note,
        "target": candidate.target,
    }


def candidate_from_dict(data: Mapping[str, Any]) -> Candidate:
    """Return the candidate of its JSON form."""
    return Candidate(
        architecture=Architecture.from_dict(data["architecture"]),
        splits=tuple(Split(**item) for item in data["splits"]),
        evaluations=tuple(
            Evaluation(**{**item, "kind": EvaluationKind(item["kind"])}) for item in data["evaluations"]
        ),
        measurements=tuple(Measurement(**item) for item in data["measurements"]),
        weights=Artifact(**data["weights"]) if data["weights"] else None,
        within_budget=data["within_budget"],
        note=data["note"],
        target=data["target"],
    )
