"""What the store returns beside the domain types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nas.study import Study
from nas.trial import TrialKind, TrialState


@dataclass(frozen=True)
class StudyRow:
    """A study for lists.

    Args:
        study: The study.
        counts: How many of its trials stand where; every state is a key.
        best_top1: Best validation top-1 of its trials, of the best trained weights that were scored; a fraction, None
            before the first.
    """

    study: Study
    counts: Mapping[TrialState, int]
    best_top1: float | None = None


@dataclass(frozen=True)
class LayerRatio:
    """The split of one layer of one trial's candidate, flat: made for data frames.

    Args:
        number: Of the trial.
        kind: Of the trial.
        architecture_id: Of the candidate.
        layer: Module name.
        index: Zero-based, in forward order.
        stage: Zero-based, where the network has stages.
        block: Zero-based within the stage.
        channels: Width C.
        active_channels: Convolved channels n.
        ratio: n/C.
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
