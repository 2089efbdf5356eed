"""Adapter from a study's words to a search by gates or fractional levels, without Ray.

Definition -> ``learn_split`` -> reports; what trains a supernet is in :mod:`nas.training.supernet`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.definition.sections import TrainingSpec
from nas.definition.study import StudyDefinition
from nas.training.build import budget_for, build_network, constants
from nas.training.checkpoint import TrialCheckpoint
from nas.trial import EpochRecord, TrialSpec
from partialnet.data import Batches, DataSplits, ImageSource
from partialnet.errors import TrainingDiverged
from partialnet.search.learn_split import learn_split
from partialnet.search.result import SearchProgress, SplitResult
from partialnet.search.state import SearchState
from partialnet.train import EpochProgress, EvaluationResult, Recipe, evaluate, fit, seeded

Report = Callable[[EpochRecord], None]

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class GateTraining:
    """What a search by gates or fractional levels ended with.

    Args:
        network: Fixed to the learned split and fine-tuned.
        split: What the search settled on.
        inherited: Validation scores with the weights of the search.
        finetuned: Validation scores after fine-tuning.
    """

    network: nn.Module
    split: SplitResult
    inherited: EvaluationResult
    finetuned: EvaluationResult


def training_batches(
    source: ImageSource, batch_size: int, seed: int, augment: str, device: torch.device | str
) -> Batches:
    """Return shuffled batches; incomplete ones are left out, since a batch of one image has no batch statistics."""
    return source.batches(
        batch_size,
        shuffle_seed=seed,
        augment="standard" if augment == "standard" else "none",
        device=device,
        drop_last=len(source) >= batch_size,
    )


def validate(network: nn.Module, splits: DataSplits, device: torch.device, step: int) -> EvaluationResult:
    """Evaluate on the validation images.

    Raises:
        TrainingDiverged: If the loss there is not finite.
    """
    result = evaluate(network, splits.validation.batches(EVALUATION_BATCH, device=device), device=device)
    if not math.isfinite(result.loss):
        raise TrainingDiverged(step, result.loss)
    return result


def train_gates(
    definition: StudyDefinition,
    spec: TrialSpec,
    splits: DataSplits,
    *,
    report: Report,
    device: torch.device | str,
    checkpoint: TrialCheckpoint | None = None,
) -> GateTraining:
    """Learn the split of the study's network for a trial's parameters, fix it, fine-tune it and evaluate it.

    Deterministic for the trial's seed on one machine. Only training and validation images are used.

    Args:
        definition: The study.
        spec: The trial: its parameters and its seed.
        splits: The study's data set.
        report: Told of every epoch, those of the fine-tuning included.
        device: Where to train.
        checkpoint: Of this trial: gone on from, and written to before each report.

    Raises:
        TrainingDiverged: If a loss is not finite.
    """
    device = torch.device(device)
    parameters: Mapping[str, Any] = {**constants(definition), **spec.parameters}
    training = definition.sampled_training(parameters)
    with seeded(spec.seed, device):
        network = build_network(definition, len(splits.info.class_names)).to(device)
    batches = training_batches(splits.train, training.batch_size, spec.seed, definition.data.augment, device)
    recorder = SearchRecorder(splits, device, len(batches), batches.images, report, checkpoint)
    split = learn_split(
        network,
        batches,
        SmoothedCrossEntropy(training.label_smoothing),
        budget_for(definition.budget, float(parameters["target"]), splits.info.input_shape),
        method=definition.method,
        steps=training.epochs * len(batches),
        seed=spec.seed,
        recipe=search_recipe(training),
        complexity_exponent=float(parameters.get("complexity_exponent", 1.0)),
        penalty=float(parameters.get("penalty", 0.9)),
        gate_learning_rate=training.gate_learning_rate,
        resume=search_state(checkpoint),
        callback=recorder,
    )
    fixed = split.fixed.to(device)
    inherited = validate(fixed, splits, device, training.epochs * len(batches))
    known = {"cost": float(split.cost), "target": float(split.target)}
    finetuned = train_fixed(
        fixed,
        splits,
        Plan(
            training,
            training.finetune_epochs,
            training.finetune_learning_rate,
            definition.data.augment,
            spec.seed,
            from_scratch=False,
        ),
        Labels("finetune", training.epochs, split.active_channels, known),
        report=report,
        device=device,
        checkpoint=checkpoint,
    )
    return GateTraining(fixed, split, inherited, finetuned or inherited)


def search_state(checkpoint: TrialCheckpoint | None) -> SearchState | None:
    """Return where the search of an interrupted trial stood, if it is known."""
    if checkpoint is None or not checkpoint.search.exists():
        return None
    return SearchState.load(checkpoint.search)


def search_recipe(training: TrainingSpec) -> Recipe:
    """Return the recipe of the search: its rate stays at the peak, and falls in the fine-tuning that follows.

    One decay over both makes weights of the search a head start; two decays, each to the end, left the fine-tuned
    network behind by 2 to 7 points of validation top-1 on the digits (2 seeds, 10 + 5 epochs).
    """
    recipe = training.recipe()
    return replace(recipe, final_fraction=1.0) if training.finetune_epochs else recipe


@dataclass(frozen=True)
class SmoothedCrossEntropy:
    """Cross entropy of logits [B, classes] and targets [B]: smoothed in training, plain where nothing is learned.

    A supernet scores networks by the loss that it is given, and these scores are shown beside validation losses.
    """

    label_smoothing: float

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        smoothing = self.label_smoothing if torch.is_grad_enabled() else 0.0
        return functional.cross_entropy(logits, targets, label_smoothing=smoothing)


@dataclass
class SearchRecorder:
    """Sums up the steps of an epoch of the search, evaluates at its end, and reports.

    Args:
        splits: With the validation images.
        device: Of the network.
        steps_per_epoch: Batches.
        images_per_epoch: In them.
        report: Told of each epoch.
        checkpoint: Takes the state of the search first.
        view: Makes of the searched network what is evaluated.
    """

    splits: DataSplits
    device: torch.device
    steps_per_epoch: int
    images_per_epoch: int
    report: Report
    checkpoint: TrialCheckpoint | None = None
    view: Callable[[nn.Module], nn.Module] = lambda model: model
    _sums: dict[str, float] = field(default_factory=dict)
    _started: float = field(default_factory=time.perf_counter)

    def __call__(self, progress: SearchProgress) -> None:
        for key in ("loss", "task_loss", "order_loss", "complexity"):
            self._sums[key] = self._sums.get(key, 0.0) + float(getattr(progress, key))
        if progress.step % self.steps_per_epoch:
            return
        seconds = time.perf_counter() - self._started
        result = validate(self.view(progress.model), self.splits, self.device, progress.step)
        metrics = {key: total / self.steps_per_epoch for key, total in self._sums.items()}
        metrics |= {
            "cost": float(progress.cost),
            "target": float(progress.target),
            "learning_rate": float(progress.learning_rate),
            "images_per_second": self.images_per_epoch / max(seconds, 1e-9),
            **_scores(result),
        }
        epoch = progress.step // self.steps_per_epoch
        if self.checkpoint is not None:
            # A record for every step would outgrow the weights, and nothing here reads them again.
            replace(progress.state(), history=()).save(self.checkpoint.search)
        self.report(EpochRecord(epoch, progress.phase, metrics, dict(progress.active_channels)))
        self._sums.clear()
        self._started = time.perf_counter()


@dataclass(frozen=True)
class Plan:
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
            **_scores(progress.evaluation),
        }
        return EpochRecord(self.epochs_before + progress.epoch, self.phase, metrics, dict(self.active_channels))


def train_fixed(
    network: nn.Module,
    splits: DataSplits,
    plan: Plan,
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


def _scores(result: EvaluationResult) -> dict[str, float]:
    return {"top1": result.top1, "top5": result.top5, "validation_loss": result.loss}
