"""Training of a network whose architecture is fixed."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from partialnet.errors import DataError, PartialNetError, TrainingDiverged
from partialnet.train.checkpoint import Checkpoint, Plan, load_checkpoint, save_checkpoint
from partialnet.train.compilation import compiled
from partialnet.train.evaluation import Batch, EvaluationResult, evaluate
from partialnet.train.norms import enough_images, left_out
from partialnet.train.optimizer import build_optimizer, schedule_learning_rate
from partialnet.train.precision import Scaler, check_precision, check_weights, run_model
from partialnet.train.readings import Readings
from partialnet.train.recipe import Recipe
from partialnet.transfer import batch_on, prefers_channels_last

_log = logging.getLogger(__name__)


class TrainingBatches(Protocol):
    """Batches that can be iterated again and again; ``ImageSource.batches()`` returns such."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __len__(self) -> int: ...

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration that of ``epoch`` (zero-based), so that a resumed training sees the same images."""


@dataclass(frozen=True)
class EpochProgress:
    """An epoch that was done.

    Args:
        epoch: One-based.
        epochs: In all.
        loss: Mean over the epoch's steps, with label smoothing.
        learning_rate: Of its last step.
        images_per_second: Of training alone, without evaluation.
        evaluation: On the validation batches, if there are any.
    """

    epoch: int
    epochs: int
    loss: float
    learning_rate: float
    images_per_second: float
    evaluation: EvaluationResult | None


@dataclass(frozen=True)
class FitResult:
    """A training that was done.

    Args:
        history: Per epoch, those before a resumption included.
    """

    history: tuple[EpochProgress, ...]

    @property
    def evaluation(self) -> EvaluationResult | None:
        """Of the last epoch."""
        return self.history[-1].evaluation if self.history else None


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's global generators, and put them back afterwards."""
    device = torch.device(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def fit(
    model: nn.Module,
    train_batches: TrainingBatches,
    validation_batches: Iterable[Batch] | None = None,
    *,
    recipe: Recipe,
    epochs: int,
    seed: int,
    device: torch.device | str = "cpu",
    callback: Callable[[EpochProgress], None] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> FitResult:
    """Train ``model`` in place; it ends on ``device``.

    Deterministic for a seed on one machine: whether it was interrupted and resumed or not, the weights are the same
    (bitwise on a CPU).

    Args:
        model: Maps inputs [B, C, H, W] to logits [B, classes].
        train_batches: Shuffled by themselves. A single image at the end of an epoch is left out where there are batch
            normalisations: it has no statistics.
        validation_batches: Evaluated after each epoch.
        recipe: Optimiser, schedule, loss, precision, compilation.
        epochs: In all; the schedule spans them.
        seed: Of dropout and stochastic depth.
        device: Where to train.
        callback: Told of each epoch when its checkpoint is written; what it raises ends the training.
        checkpoint: File that is written after each epoch.
        resume: Continue from ``checkpoint`` if that file exists; otherwise start, and overwrite it.

    Raises:
        TrainingDiverged: If the loss is not finite; on a GPU some steps later, but before anything is saved or told.
        ArchitectureError: If a weight is float16.
        DataError: If there are no training batches, or they are no pairs of tensors.
        PartialNetError: If the checkpoint is damaged or belongs to another training, or the device cannot do what the
            recipe asks for.
    """
    if len(train_batches) == 0:
        raise DataError("there is nothing to train on: no training batch (is the batch size too large?)")
    device = torch.device(device)
    check_weights(model)
    check_precision(recipe, device)
    model.to(device)
    if prefers_channels_last(device):
        model.to(memory_format=torch.channels_last)
    plan = Plan(recipe, epochs, len(train_batches), seed)
    state = _State(model, build_optimizer(model, recipe), Scaler(recipe, device), device)
    history = _restore(state, checkpoint, plan) if resume and checkpoint is not None else []
    forward = compiled(model, device) if recipe.compile and len(history) < epochs else model
    for epoch in range(len(history), epochs):
        loss, images_per_second = _train_epoch(state, forward, train_batches, plan, epoch)
        result = None if validation_batches is None else evaluate(model, validation_batches, device=device)
        learning_rate = float(state.optimizer.param_groups[0]["lr"])
        history.append(EpochProgress(epoch + 1, epochs, loss, learning_rate, images_per_second, result))
        if checkpoint is not None:
            save_checkpoint(checkpoint, plan, state.checkpoint(history))
        if callback is not None:
            callback(history[-1])
    return FitResult(tuple(history))


@dataclass(frozen=True)
class _State:
    """What a training moves: all but the schedule, which follows from the step."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: Scaler
    device: torch.device

    def checkpoint(self, history: Sequence[EpochProgress]) -> Checkpoint:
        return Checkpoint(
            len(history),
            self.model.state_dict(),
            self.optimizer.state_dict(),
            tuple(asdict(entry) for entry in history),
            self.scaler.state_dict(),
        )


def _restore(state: _State, path: Path, plan: Plan) -> list[EpochProgress]:
    if not path.exists():
        return []
    checkpoint = load_checkpoint(path, plan)
    try:
        state.model.load_state_dict(checkpoint.model)
        state.optimizer.load_state_dict(dict(checkpoint.optimizer))
    except (RuntimeError, ValueError) as error:
        raise PartialNetError(f"{path}: the checkpoint is of another network: {error}") from error
    state.scaler.load_state_dict(checkpoint.scaler)
    _log.info("continuing from %s after epoch %d of %d", path, checkpoint.epoch, plan.epochs)
    history = []
    for entry in checkpoint.history:
        result = entry["evaluation"]
        history.append(EpochProgress(**{**entry, "evaluation": None if result is None else EvaluationResult(**result)}))
    return history


class _EpochLoss:
    """The losses of an epoch's steps, of which the host learns when they are read; one that is not finite ends it."""

    def __init__(self, device: torch.device) -> None:
        self._readings = Readings(device)
        self._total = 0.0
        self._count = 0

    def add(self, step: int, loss: Tensor) -> None:
        """Note the loss of ``step``."""

        def take(numbers: Sequence[float]) -> None:
            if not math.isfinite(numbers[0]):
                raise TrainingDiverged(step, numbers[0])
            self._total += numbers[0]

        self._count += 1
        self._readings.add(loss.reshape(1), take)
        self._readings.read_if_due()

    def mean(self) -> float:
        """Return the mean over the steps, once all have been done."""
        self._readings.read()
        return self._total / self._count


def _train_epoch(
    state: _State, forward: nn.Module, batches: TrainingBatches, plan: Plan, epoch: int
) -> tuple[float, float]:
    """Return the mean loss and the images per second."""
    state.model.train()
    batches.set_epoch(epoch)
    steps = plan.epochs * plan.steps_per_epoch
    first = epoch * plan.steps_per_epoch
    losses, images, start = _EpochLoss(state.device), 0, time.perf_counter()
    # A seed per epoch: the state of the generators need not be kept for a resumption.
    with seeded(plan.seed * 1_000_003 + epoch, state.device):
        for step, batch in enumerate(batches, first):
            inputs, targets = batch_on(batch, state.device, "train_batches")
            if step > first and left_out(inputs, state.model):
                continue
            schedule_learning_rate(state.optimizer, step, steps, plan.recipe)
            losses.add(step, _step(state, forward, inputs, targets, plan.recipe))
            images += len(targets)
        mean = losses.mean()
    return mean, images / max(time.perf_counter() - start, 1e-9)


def _step(state: _State, forward: nn.Module, inputs: Tensor, targets: Tensor, recipe: Recipe) -> Tensor:
    state.optimizer.zero_grad(set_to_none=True)
    with enough_images(inputs, "train_batches"):
        logits = run_model(forward, inputs, recipe)
    loss = functional.cross_entropy(logits.float(), targets, label_smoothing=recipe.label_smoothing)
    state.scaler.backward(loss)
    state.scaler.step(state.optimizer, state.model.parameters(), recipe.clip_norm)
    return loss
