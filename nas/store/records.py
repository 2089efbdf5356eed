"""Types that the store returns besides the domain types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nas.study import Study
from nas.trial import TrialKind, TrialState


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
