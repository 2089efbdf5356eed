"""A running trial, and the result of its trainer. Loads no Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nas.definition.sections import TrainingSpec
from nas.definition.study import StudyDefinition
from nas.metrics import Evaluation
from nas.training.build import Weights, budget_for
from nas.training.checkpoint import TrialCheckpoint
from nas.training.scoring import Report
from nas.trial import TrialSpec
from partialnet.data import DataSplits
from partialnet.search.budget import Budget
from partialnet.search.latency_table import LatencyTable
from partialnet.search.result import SplitResult


@dataclass(frozen=True)
class TrialRun:
    """A running trial with everything that a trainer needs.

    Args:
        definition: Definition of the study.
        spec: Number, parameters and seed of the trial.
        splits: Data set of the study.
        report: Function to call after each epoch; an exception that it raises ends the trial.
        device: Device of the training.
        checkpoint: Checkpoint of this trial, which the training resumes from and writes before each report.
        table: Latency table of the study, if it has one.
        weights: Weights that all trainings of the study start from, if it names any.
    """

    definition: StudyDefinition
    spec: TrialSpec
    splits: DataSplits
    report: Report
    device: torch.device
    checkpoint: TrialCheckpoint | None = None
    table: LatencyTable | None = None
    weights: Weights = None

    def budget(self, target: float) -> Budget:
        """Return the budget with a target in the unit of the study."""
        return budget_for(self.definition.budget, target, self.splits.info.input_shape, self.table)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Parameters of the trial, including the constants of the space."""
        return {**self.definition.constants, **self.spec.parameters}

    @property
    def training(self) -> TrainingSpec:
        """Training of the study with the trial's parameters."""
        return training_of(self.definition, self.spec)

    @property
    def classes(self) -> int:
        """Number of classes of the data set."""
        return len(self.splits.info.class_names)


@dataclass(frozen=True)
class HeldTo:
    """The cost that a network of the final comparison must match.

    Args:
        metric: Metric of the cost.
        target: Cost to match.
        measured: Cost of the network, if it cannot be counted.
    """

    metric: str
    target: float
    measured: float | None = None


@dataclass(frozen=True)
class Trained:
    """A network that a trainer settled on.

    Args:
        network: Fixed and trained network, which knows its architecture.
        evaluations: Scores of the network.
        split: Result of the search with the cost; None for a network that was not searched.
        target: Cost that the network must match, if there is one.
    """

    network: nn.Module
    evaluations: tuple[Evaluation, ...]
    split: SplitResult | None = None
    target: HeldTo | None = None


Trainer = Callable[[TrialRun], list[Trained]]
"""Trains a trial: one network, or several by ascending cost."""


def training_of(definition: StudyDefinition, spec: TrialSpec) -> TrainingSpec:
    """Return the study's training with a trial's parameters."""
    return definition.sampled_training({**definition.constants, **spec.parameters})
