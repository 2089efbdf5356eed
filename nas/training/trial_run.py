"""A trial under way, and what its trainer hands back. No Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nas.definition.sections import TrainingSpec
from nas.definition.study import StudyDefinition
from nas.metrics import Evaluation
from nas.training.checkpoint import TrialCheckpoint
from nas.training.scoring import Report
from nas.trial import TrialSpec
from partialnet.data import DataSplits
from partialnet.search.result import SplitResult


@dataclass(frozen=True)
class TrialRun:
    """A trial under way: all that a trainer needs.

    Args:
        definition: The study.
        spec: The trial: its parameters and its seed.
        splits: The study's data set.
        report: Receives every epoch; what it raises ends the trial.
        device: Where to train.
        checkpoint: State of this trial: gone on from, and written to before each report.
    """

    definition: StudyDefinition
    spec: TrialSpec
    splits: DataSplits
    report: Report
    device: torch.device
    checkpoint: TrialCheckpoint | None = None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The trial's parameters, complete with those that hold for every trial."""
        return {**self.definition.constants, **self.spec.parameters}

    @property
    def training(self) -> TrainingSpec:
        """The study's training with the trial's parameters."""
        return training_of(self.definition, self.spec)

    @property
    def classes(self) -> int:
        """Number of classes of the data set."""
        return len(self.splits.info.class_names)


@dataclass(frozen=True)
class Trained:
    """A network that a trainer settled on.

    Args:
        network: Fixed and trained, a PartialNet.
        evaluations: Its scores.
        split: What the search says of its cost; None for a network that was not searched.
        target: Metric and value of the cost that the network is to have, if it was given one.
    """

    network: nn.Module
    evaluations: tuple[Evaluation, ...]
    split: SplitResult | None = None
    target: tuple[str, float] | None = None


Trainer = Callable[[TrialRun], list[Trained]]
"""Trains a trial: one network, or several by ascending cost."""


def training_of(definition: StudyDefinition, spec: TrialSpec) -> TrainingSpec:
    """Return the study's training with a trial's parameters."""
    return definition.sampled_training({**definition.constants, **spec.parameters})
