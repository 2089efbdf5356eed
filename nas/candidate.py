"""A network that a trial settled on, with its splits and scores, and its JSON form. Loads neither torch nor ray."""

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
        layer: Module name of the layer.
        index: Zero-based index of the layer in forward order.
        channels: Width C.
        active_channels: Convolved channels n.
        macs: Multiply-adds of this layer's convolution at the study's input size.
        stage: Zero-based stage; None in a network without stages.
        block: Zero-based block within the stage.
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
        uri: Path relative to the storage.
        sha256: SHA-256 checksum of its bytes, hexadecimal.
        size: Size in bytes.
        kind: Kind of the file: ``"weights"`` or ``"export"``.
    """

    uri: str
    sha256: str
    size: int
    kind: str


@dataclass(frozen=True)
class PackedFile:
    """A file of a package.

    Args:
        name: Name within the package.
        size: Size in bytes.
        sha256: SHA-256 checksum, hexadecimal.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Candidate:
    """An architecture that a trial settled on, with its scores and measurements.

    Args:
        architecture: Architecture of the network.
        splits: Splits of the layers, in forward order.
        evaluations: Scores on data.
        measurements: Measurements of the network itself.
        weights: Stored weights; None if they were not kept.
        within_budget: Whether the budget was met within 2 %, by counts or by the latency table.
        note: Reason of a missed budget, with the nearest reachable costs.
        target: Absolute cost that was requested, in the unit of the study's budget; None for uniform and random splits.
        measured_within_budget: Whether the latency of the whole network, as measured after the search, is within 5 % of
            the target, or at most the hard limit; None if it was not measured, or the budget is not in milliseconds.
        trainings: Scores of trainings outside the study, each with its recipe. They have other recipes than the study,
            so fronts and comparisons leave them out.
    """

    architecture: Architecture
    splits: tuple[Split, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    weights: Artifact | None = None
    within_budget: bool = True
    note: str | None = None
    target: float | None = None
    measured_within_budget: bool | None = None
    trainings: tuple[Evaluation, ...] = ()

    @property
    def kind(self) -> EvaluationKind | None:
        """Kind of its best trained weights with a score; None without a score."""
        found = {evaluation.kind for evaluation in self.evaluations}
        return next((kind for kind in BY_TRAINING if kind in found), None)

    def score(
        self,
        metric: str,
        kind: EvaluationKind | None = None,
        data_split: str = "validation",
        fingerprint: str | None = None,
    ) -> float | None:
        """Return the newest value of a metric.

        Args:
            metric: Key of the metric.
            kind: Evaluation kind of an evaluated metric; None for any.
            data_split: Data of an evaluated metric.
            fingerprint: Circumstances of a measured metric; None for any. Values of several networks can be compared
                only under the same ones.
        """
        if METRICS[metric].evaluated:
            values = [
                e.value
                for e in self.evaluations
                if e.metric == metric and e.data_split == data_split and kind in (None, e.kind)
            ]
        else:
            values = [
                m.value for m in self.measurements if m.metric == metric and fingerprint in (None, m.fingerprint)
            ]
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
        "measured_within_budget": candidate.measured_within_budget,
    }


def candidate_from_dict(data: Mapping[str, Any]) -> Candidate:
    """Return a candidate from its JSON form."""
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
        measured_within_budget=data.get("measured_within_budget"),
    )
