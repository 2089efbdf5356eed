"""Training of a fixed network within a trial: fine-tuning, baselines, the final comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from nas.definition.sections import TrainingSpec
from nas.training.checkpoint import TrialCheckpoint
from nas.training.data import teacher_for, training_batches
from nas.training.scoring import EVALUATION_BATCH, Report, epoch_scores
from nas.trial import EpochRecord
from partialnet.data import DataSplits
from partialnet.errors import TrainingDiverged
from partialnet.train import EpochProgress, EvaluationResult, Recipe, fit


@dataclass(frozen=True)
class FixedTraining:
    """Settings of a fixed network's training within a trial.

    Args:
        training: Training of the study with the trial's parameters.
        epochs: Number of epochs; 0 leaves the network unchanged.
        learning_rate: Learning rate that replaces that of the training, if given.
        augment: Augmentation of the training images.
        seed: Seed of the trial.
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
        """Optimiser, schedule and loss; without a warm-up if the optimiser has run at this rate before."""
        recipe = self.training.recipe(self.learning_rate)
        return recipe if self.from_scratch else replace(recipe, warmup_fraction=0.0)


@dataclass(frozen=True)
class Labels:
    """Values that the reports of a fixed network's epochs hold besides its progress.

    Args:
        phase: Name of the phase: ``"finetune"`` or ``"train"``.
        epochs_before: Number of epochs in earlier phases of the trial.
        active_channels: Number of active channels by layer.
        metrics: Constant metrics: cost and target.
    """

    phase: str
    epochs_before: int
    active_channels: Mapping[str, int]
    metrics: Mapping[str, float] = field(default_factory=dict)

    def record(self, progress: EpochProgress) -> EpochRecord:
        """Return the record of an epoch."""
        scores = progress.best
        assert scores is not None
        metrics = {
            "loss": progress.loss,
            "task_loss": progress.loss,
            "order_loss": 0.0,
            **self.metrics,
            "learning_rate": progress.learning_rate,
            "images_per_second": progress.images_per_second,
            **epoch_scores(scores),
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
    """Train a fixed network in place and report each epoch except those before an interruption.

    If the recipe averages the weights, the network ends with the averaged ones, and the scores are theirs.

    Returns:
        Validation scores after the last epoch; None without epochs.

    Raises:
        TrainingDiverged: If a loss is not finite.
    """
    if plan.epochs == 0:
        return None
    # The order of images differs from that of the search, whose last epochs must not be repeated.
    recipe = plan.recipe
    batches = training_batches(splits, plan.training.batch_size, plan.seed + 1, plan.augment, device, recipe)

    def tell(progress: EpochProgress) -> None:
        if progress.best is not None and not math.isfinite(progress.best.loss):
            raise TrainingDiverged(progress.epoch * len(batches), progress.best.loss)
        report(labels.record(progress))

    validation = splits.validation.batches(EVALUATION_BATCH, device=device)
    result = fit(
        network,
        batches,
        validation,
        recipe=recipe,
        epochs=plan.epochs,
        seed=plan.seed + 1,
        device=device,
        callback=tell,
        checkpoint=None if checkpoint is None else checkpoint.network,
        resume=True,
        teacher=teacher_for(recipe, splits),
    )
    if result.average is not None:
        network.load_state_dict(result.average.state_dict())
    return result.history[-1].best
