"""Training of a network whose architecture is fixed."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from partialnet.errors import DataError, PartialNetError, TrainingDiverged
from partialnet.train.checkpoint import Checkpoint, Plan, load_checkpoint, save_checkpoint
from partialnet.train.evaluation import Batch, EvaluationResult, evaluate
from partialnet.train.optimizer import build_optimizer, schedule_learning_rate
from partialnet.train.recipe import Recipe

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
        train_batches: Shuffled by themselves.
        validation_batches: Evaluated after each epoch.
        recipe: Optimiser, schedule, loss.
        epochs: In all; the schedule spans them.
        seed: Of dropout and stochastic depth.
        device: Where to train.
        callback: Told of each epoch when its checkpoint is written; what it raises ends the training.
        checkpoint: File that is written after each epoch.
        resume: Continue from ``checkpoint`` if that file exists; otherwise start, and overwrite it.

    Raises:
        TrainingDiverged: If the loss is not finite.
        DataError: If there are no training batches.
        PartialNetError: If the checkpoint is damaged or belongs to another training.
    """
    if len(train_batches) == 0:
        raise DataError("there is nothing to train on: no training batch (is the batch size too large?)")
    model.to(device)
    plan = Plan(recipe, epochs, len(train_batches), seed)
    optimizer = build_optimizer(model, recipe)
    history = _restore(model, optimizer, checkpoint, plan) if resume and checkpoint is not None else []
    for epoch in range(len(history), epochs):
        loss, images_per_second = _train_epoch(model, train_batches, optimizer, plan, epoch, torch.device(device))
        result = None if validation_batches is None else evaluate(model, validation_batches, device=device)
        learning_rate = float(optimizer.param_groups[0]["lr"])
        history.append(EpochProgress(epoch + 1, epochs, loss, learning_rate, images_per_second, result))
        if checkpoint is not None:
            entries = tuple(asdict(entry) for entry in history)
            save_checkpoint(
                checkpoint, plan, Checkpoint(epoch + 1, model.state_dict(), optimizer.state_dict(), entries)
            )
        if callback is not None:
            callback(history[-1])
    return FitResult(tuple(history))


def _restore(
    model: nn.Module, optimizer: torch.optim.Optimizer, path: Path | None, plan: Plan
) -> list[EpochProgress]:
    if path is None or not path.exists():
        return []
    checkpoint = load_checkpoint(path, plan)
    try:
        model.load_state_dict(checkpoint.model)
        optimizer.load_state_dict(dict(checkpoint.optimizer))
    except (RuntimeError, ValueError) as error:
        raise PartialNetError(f"{path}: the checkpoint is of another network: {error}") from error
    _log.info("continuing from %s after epoch %d of %d", path, checkpoint.epoch, plan.epochs)
    history = []
    for entry in checkpoint.history:
        result = entry["evaluation"]
        history.append(EpochProgress(**{**entry, "evaluation": None if result is None else EvaluationResult(**result)}))
    return history


def _train_epoch(
    model: nn.Module,
    batches: TrainingBatches,
    optimizer: torch.optim.Optimizer,
    plan: Plan,
    epoch: int,
    device: torch.device,
) -> tuple[float, float]:
    """Return the mean loss and the images per second."""
    model.train()
    batches.set_epoch(epoch)
    steps = plan.epochs * plan.steps_per_epoch
    step = epoch * plan.steps_per_epoch
    total, images, start = 0.0, 0, time.perf_counter()
    # A seed per epoch: the state of the generators need not be kept for a resumption.
    with seeded(plan.seed * 1_000_003 + epoch, device):
        for inputs, targets in batches:
            schedule_learning_rate(optimizer, step, steps, plan.recipe)
            loss = _step(model, inputs.to(device), targets.to(device), optimizer, plan.recipe)
            if not math.isfinite(loss):
                raise TrainingDiverged(step, loss)
            total += loss
            images += len(targets)
            step += 1
    return total / plan.steps_per_epoch, images / max(time.perf_counter() - start, 1e-9)


def _step(
    model: nn.Module, inputs: Tensor, targets: Tensor, optimizer: torch.optim.Optimizer, recipe: Recipe
) -> float:
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        logits = model(inputs)
    loss = functional.cross_entropy(logits.float(), targets, label_smoothing=recipe.label_smoothing)
    loss.backward()  # type: ignore[no-untyped-call]
    if recipe.clip_norm > 0:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
    optimizer.step()
    return loss.item()
