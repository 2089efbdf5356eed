"""Training of a fixed network within a trial: fine-tuning, baselines, the final comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from nas.definition.sections import TrainingSpec
from nas.training.checkpoint import TrialCheckpoint
from nas.training.data import training_batches
from nas.training.scoring import EVALUATION_BATCH, Report, epoch_scores
from nas.trial import EpochRecord
from partialnet.data import DataSplits
from partialnet.errors import TrainingDiverged
from partialnet.train import EpochProgress, EvaluationResult, Recipe, fit


@dataclass(frozen=True)
class FixedTraining:
    """How a fixed network is trained within a trial.

    Args:
        training: The study's training with the trial's parameters.
        epochs: How long; 0 leaves the network as it is.
        learning_rate: Instead of the training's, if given.
        augment: Of the training images.
        seed: The trial's.
        from_scratch: Whether the weights are untrained.
    """

    training: TrainingSpec
    epochs: int
    learning_rate: float | None
    augment: str
    seed: int
    from_scratch: bool

    @property
    def recipe(self) -> Recipe:
        """Optimiser, schedule, loss; without a warm-up where the optimiser has been at this rate before."""
        recipe = self.training.recipe(self.learning_rate)
        return recipe if self.from_scratch else replace(recipe, warmup_fraction=0.0)


@dataclass(frozen=True)
class Labels:
    """What the reports of a fixed network's epochs say besides its progress.

    Args:
        phase: ``"finetune"`` or ``"train"``.
        epochs_before: Done in earlier phases of the trial.
        active_channels: Layer to n.
        metrics: Constant ones: cost and target.
    """

    phase: str
    epochs_before: int
    active_channels: Mapping[str, int]
    metrics: Mapping[str, float] = field(default_factory=dict)

    def record(self, progress: EpochProgress) -> EpochRecord:
        """Return the record of an epoch."""
        assert progress.evaluation is not None
        metrics = {
            "loss": progress.loss,
            "task_loss": progress.loss,
            "order_loss": 0.0,
            **self.metrics,
            "learning_rate": progress.learning_rate,
            "images_per_second": progress.images_per_second,
            **epoch_scores(progress.evaluation),
        }
        return EpochRecord(self.epochs_before + progress.epoch, self.phase, metrics, dict(self.active_channels))


def train_fixed(
    network: nn.Module,
    splits: DataSplits,
    plan: FixedTraining,
    labels: Labels,
    *,
    report: Report,
    device: torch.device,
    checkpoint: TrialCheckpoint | None = None,
) -> EvaluationResult | None:
    """Train a fixed network in place and report each epoch, those before an interruption left out.

    Returns:
        Validation scores after the last epoch; None if there is none.

    Raises:
        TrainingDiverged: If a loss is not finite.
    """
    if plan.epochs == 0:
        return None
    # Another order than that of the search: its last epochs must not be repeated.
    batches = training_batches(splits.train, plan.training.batch_size, plan.seed + 1, plan.augment, device)

    def tell(progress: EpochProgress) -> None:
        if progress.evaluation is not None and not math.isfinite(progress.evaluation.loss):
            raise TrainingDiverged(progress.epoch * len(batches), progress.evaluation.loss)
        report(labels.record(progress))

    validation = splits.validation.batches(EVALUATION_BATCH, device=device)
    result = fit(
        network,
        batches,
        validation,
        recipe=plan.recipe,
        epochs=plan.epochs,
        seed=plan.seed + 1,
        device=device,
        callback=tell,
        checkpoint=None if checkpoint is None else checkpoint.network,
        resume=True,
    )
    return result.evaluation
