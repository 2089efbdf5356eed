"""Training of a network with a fixed architecture."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from partialnet.errors import DataError, PartialNetError
from partialnet.train.checkpoint import Checkpoint, Plan, Position, load_checkpoint, save_checkpoint
from partialnet.train.epoch_loss import EpochLoss
from partialnet.train.evaluation import Batch, EvaluationResult, evaluate
from partialnet.train.kept import KeptCheckpoints
from partialnet.train.norms import left_out
from partialnet.train.processes import Processes, own_statistics, reduce_statistics, statistics_of
from partialnet.train.readings import steps_between
from partialnet.train.recipe import Recipe
from partialnet.train.step import Stepper, drop_paths
from partialnet.transfer import batch_on

_log = logging.getLogger(__name__)


class TrainingBatches(Protocol):
    """Batches that can be iterated repeatedly, such as those of ``ImageSource.batches()``."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __len__(self) -> int: ...

    def set_epoch(self, epoch: int) -> None:
        """Start ``epoch`` (zero-based) at the next iteration, so that a resumed training sees the same images."""


@runtime_checkable
class PlacedBatches(Protocol):
    """Batches that can start within an epoch, and whose epochs may differ in length."""

    def seek(self, epoch: int, step: int) -> None:
        """Start at batch ``step`` of ``epoch`` (both zero-based) at the next iteration."""

    def steps_in(self, epoch: int) -> int:
        """Return the number of batches in ``epoch`` (zero-based)."""


@dataclass(frozen=True)
class EpochProgress:
    """A completed epoch.

    Args:
        epoch: One-based number of the epoch.
        epochs: Number of epochs in total.
        loss: Mean over the epoch's steps, with label smoothing.
        learning_rate: Learning rate of its last step.
        images_per_second: Speed of the training alone, without evaluation.
        evaluation: Scores on the validation batches, if there are any.
        average: Scores of the averaged weights, if the recipe has them.
    """

    epoch: int
    epochs: int
    loss: float
    learning_rate: float
    images_per_second: float
    evaluation: EvaluationResult | None
    average: EvaluationResult | None = None

    @property
    def best(self) -> EvaluationResult | None:
        """Scores of the weights that are kept: the averaged ones if there are any."""
        return self.average or self.evaluation


@dataclass(frozen=True)
class FitResult:
    """The result of a training.

    Args:
        history: Progress of all epochs, including those before a resumption.
        average: Network with the averaged weights, if the recipe has them.
    """

    history: tuple[EpochProgress, ...]
    average: nn.Module | None = None

    @property
    def evaluation(self) -> EvaluationResult | None:
        """Scores after the last epoch."""
        return self.history[-1].evaluation if self.history else None


class TrainingStopped(Exception):
    """A training that has written a checkpoint at its place and stopped, as requested."""


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's global generators inside the block, and restore them afterwards."""
    device = torch.device(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        seed_generators(seed)
        yield


def seed_generators(seed: int) -> None:
    """Seed torch's global generators, also those of accelerators.

    Where there is no accelerator, ``torch.manual_seed`` would write down the stack for each kind of them, which takes
    a large part of a small network's step.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


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
    checkpoint: Path | KeptCheckpoints | None = None,
    resume: bool = False,
    teacher: nn.Module | None = None,
    on_step: Callable[[], None] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
    most: int | None = None,
) -> FitResult:
    """Train ``model`` in place; it ends on ``device``.

    The result is deterministic for a seed on one machine: the weights are the same with or without an interruption
    (bitwise on a CPU). Within torch's process group, all processes call this function, each with its part of the
    batches; the first one writes checkpoints.

    Args:
        model: Network that maps inputs [B, C, H, W] to logits [B, classes].
        train_batches: Batches that shuffle themselves. A single image at the end of an epoch is left out if the network
            has batch normalisations, since it has no statistics.
        validation_batches: Batches that are evaluated after each epoch.
        recipe: Optimiser, schedule, loss, precision and compilation. Its augmentation, sizes of images and test crop
            belong to the batches.
        epochs: Number of epochs in total, which the schedule spans.
        seed: Seed of dropout and stochastic depth.
        device: Device of the training.
        callback: Function to call after each epoch's checkpoint is written; an exception that it raises ends the
            training.
        checkpoint: Path of the file that is written after each epoch, or a folder of checkpoints.
        resume: Whether to continue from ``checkpoint`` if that file exists; otherwise the training starts and
            overwrites it.
        teacher: Network to distil from, which the recipe names.
        on_step: Function to call after each step.
        stop: Function that returns whether to write a checkpoint and stop; called after each step, on a GPU after some.
        most: Largest number of processes, if their number may change between a checkpoint and its continuation. Fewer
            ones take their larger shares of a batch in more passes. Where a checkpoint within an epoch is from another
            number, dropout draws other numbers from there on. None refuses such a checkpoint.

    Raises:
        TrainingDiverged: If the loss is not finite; on a GPU some steps later, but before anything is saved or
        reported.
        TrainingStopped: If ``stop`` returned true; the checkpoint is written.
        ArchitectureError: If a weight is float16.
        DataError: If there are no training batches, or they are not pairs of tensors.
        PartialNetError: If the checkpoint is damaged or belongs to another training, or the device does not support the
            recipe.
    """
    if len(train_batches) == 0:
        raise DataError("there is nothing to train on: no training batch (is the batch size too large?)")
    device, processes = torch.device(device), Processes.current()
    plan = Plan(recipe, epochs, _steps_in(train_batches, 0), seed)
    stepper = Stepper(
        model, recipe, device, teacher=teacher, processes=processes, most=most, uneven=_are_uneven(train_batches)
    )
    run = _Run(stepper, train_batches, validation_batches, plan, processes, checkpoint, on_step, stop, most)
    if checkpoint is not None and resume:
        run.restore()
    elif isinstance(checkpoint, KeptCheckpoints) and processes.first:
        checkpoint.clear()
    with statistics_of(model, recipe.statistics, processes), drop_paths(model, recipe.drop_path):
        while len(run.history) < epochs:
            run.epoch()
            if callback is not None:
                callback(run.history[-1])
    return FitResult(tuple(run.history), stepper.average)


def _steps_in(batches: TrainingBatches, epoch: int) -> int:
    return batches.steps_in(epoch) if isinstance(batches, PlacedBatches) else len(batches)


def _are_uneven(batches: TrainingBatches) -> bool:
    """Return whether processes may have different numbers of images in any step, and not only in the last one."""
    return bool(getattr(batches, "uneven", False))


class _Run:
    """One training: its epochs, and its place for checkpoints."""

    def __init__(
        self,
        stepper: Stepper,
        batches: TrainingBatches,
        validation: Iterable[Batch] | None,
        plan: Plan,
        processes: Processes,
        checkpoint: Path | KeptCheckpoints | None,
        on_step: Callable[[], None],
        stop: Callable[[], bool],
        most: int | None,
    ) -> None:
        self.stepper = stepper
        self.batches = batches
        self.validation = validation
        self.plan = plan
        self.processes = processes
        self.checkpoint = checkpoint
        self.on_step = on_step
        self.stop = stop
        self.most = most
        self.history: list[EpochProgress] = []
        self._position: Position | None = None
        self._firsts = [0]
        for epoch in range(plan.epochs):
            self._firsts.append(self._firsts[-1] + _steps_in(batches, epoch))

    def epoch(self) -> None:
        """Run the next epoch, or the rest of it."""
        epoch, plan, device = len(self.history), self.plan, self.stepper.device
        losses, images_per_second = self._train(epoch)
        for network in (self.stepper.model, self.stepper.average):
            if network is not None:
                reduce_statistics(network, self.processes)
        try:
            scores, average = self._evaluate(self.stepper.model), self._evaluate(self.stepper.average)
        except TrainingStopped:
            self._save_within(self._firsts[epoch + 1] - self._firsts[epoch], losses)
            raise
        loss = losses.mean(self.processes)
        learning_rate = float(self.stepper.optimizer.param_groups[0]["lr"])
        speed = float(self.processes.summed(torch.tensor(images_per_second, device=device)))
        done = EpochProgress(epoch + 1, plan.epochs, loss, learning_rate, speed, scores, average)
        earlier = [entry.best.top1 for entry in self.history if entry.best is not None]
        best = done.best is not None and done.best.top1 > max(earlier, default=-1.0)
        self.history.append(done)
        self._position = None
        self._save(best=best)

    def _evaluate(self, network: nn.Module | None) -> EvaluationResult | None:
        if network is None or self.validation is None:
            return None
        return evaluate(network, self._stoppable(), device=self.stepper.device, processes=self.processes)

    def _stoppable(self) -> Iterator[Batch]:
        """Yield the validation batches until the training is to stop; several processes do not agree here, and wait."""
        assert self.validation is not None
        for batch in self.validation:
            if isinstance(self.checkpoint, KeptCheckpoints) and not self.processes.several and self.stop():
                raise TrainingStopped
            yield batch

    def _train(self, epoch: int) -> tuple[EpochLoss, float]:
        """Return the losses and the images per second of this process."""
        stepper, device, place = self.stepper, self.stepper.device, self._position
        stepper.model.train()
        first, steps = self._firsts[epoch], self._firsts[epoch + 1] - self._firsts[epoch]
        done = 0 if place is None else place.step
        losses = EpochLoss(device)
        images, start = 0, time.perf_counter()
        # A seed for each epoch, so that a resumption at its start needs no state of the generators.
        seed = self.plan.seed * 1_000_003 + epoch + self.processes.index * 1_000_000_007
        with seeded(seed, device):
            batches = self._from(epoch, done)
            if place is not None:
                losses.restore(place.loss[self.processes.index], done)
                if place.generators:
                    set_generators(place.generators[self.processes.index], device)
            for step, (inputs, targets) in self._taken(batches, done, steps):
                losses.add(first + step, stepper.step(first + step, self._firsts[-1], inputs, targets))
                images += len(targets)
                self.on_step()
                # The loss that an epoch ends with is read anyway, so nothing waits for it here.
                if step + 1 == steps or (step + 1) % steps_between(device) == 0:
                    self._pause(step + 1, losses)
            losses.total()
        return losses, images / max(time.perf_counter() - start, 1e-9)

    def _taken(self, batches: Iterator[Batch], done: int, steps: int) -> Iterator[tuple[int, Batch]]:
        """Yield steps and batches from step ``done`` on; one that is too small for one process, none takes."""
        device, processes = self.stepper.device, self.processes
        uneven = _are_uneven(self.batches)
        for step in count(done):
            batch = next(batches, None)
            pair = None if batch is None else batch_on(batch, device, "train_batches")
            short = pair is None or (step > 0 and left_out(pair[0], self.stepper.model))
            if processes.several and step < steps and (uneven or step + 1 == steps):
                [short] = processes.any(short, device=device)
            if pair is None:
                return
            if not short:
                yield step, pair

    def _from(self, epoch: int, step: int) -> Iterator[Batch]:
        if step >= self._firsts[epoch + 1] - self._firsts[epoch]:
            return iter(())
        if isinstance(self.batches, PlacedBatches):
            self.batches.seek(epoch, step)
            return iter(self.batches)
        self.batches.set_epoch(epoch)
        return islice(iter(self.batches), step, None)

    def _pause(self, step: int, losses: EpochLoss) -> None:
        """Write a checkpoint within the epoch if it is time or a stop is requested."""
        kept, device = self.checkpoint, self.stepper.device
        if not isinstance(kept, KeptCheckpoints):
            return
        due = kept.due and self.processes.first
        stop, due = self.processes.any(self.stop(), due, device=device)
        if not stop and not due:
            return
        self._save_within(step, losses)
        if stop:
            raise TrainingStopped

    def _save_within(self, step: int, losses: EpochLoss) -> None:
        sums = self.processes.gathered(losses.total())
        states = self.processes.gathered(generators(self.stepper.device))
        # The file has the network of the first process; the others' statistics are their own until the epoch's end.
        several = self.processes.several
        kept = self.processes.gathered(tuple(value.cpu() for value in self._statistics())) if several else []
        self._position = Position(step, tuple(sums), tuple(states), tuple(kept))
        self._save()

    def _statistics(self) -> list[Tensor]:
        return [*own_statistics(self.stepper.model), *own_statistics(self.stepper.average)]

    def _save(self, *, best: bool = False) -> None:
        if self.checkpoint is None:
            return
        path = self._write(self.checkpoint, best=best) if self.processes.first else None
        if isinstance(self.checkpoint, KeptCheckpoints):
            self.checkpoint.published(path)

    def _write(self, place: Path | KeptCheckpoints, *, best: bool) -> Path | None:
        stepper = self.stepper
        content = Checkpoint(
            len(self.history),
            stepper.model.state_dict(),
            stepper.optimizer.state_dict(),
            tuple(asdict(entry) for entry in self.history),
            stepper.scaler.state_dict(),
            {} if stepper.average is None else stepper.average.state_dict(),
            self._position,
        )
        if isinstance(place, KeptCheckpoints):
            return place.save(self.plan, content, best=best)
        save_checkpoint(place, self.plan, content)
        return place

    def restore(self) -> None:
        """Continue from the checkpoint, if there is one."""
        found = self._found()
        if found is None:
            return
        path, checkpoint = found
        stepper, place = self.stepper, checkpoint.position
        try:
            stepper.model.load_state_dict(checkpoint.model)
            stepper.optimizer.load_state_dict(dict(checkpoint.optimizer))
            if stepper.average is not None:
                stepper.average.load_state_dict(checkpoint.average)
        except (RuntimeError, ValueError) as error:
            raise PartialNetError(f"{path}: the checkpoint belongs to another network: {error}") from error
        stepper.scaler.load_state_dict(checkpoint.scaler)
        if place is not None and len(place.generators) != self.processes.count:
            if self.most is None:
                raise PartialNetError(
                    f"{path}: {len(place.generators)} processes wrote it within an epoch, but there are "
                    f"{self.processes.count} now; use as many, or remove it to continue from the end of an epoch"
                )
            place = place.shared_by(self.processes.count)
        self.history = [_progress(entry) for entry in checkpoint.history]
        self._position = place
        if place is not None and place.statistics:
            for value, own in zip(self._statistics(), place.statistics[self.processes.index], strict=True):
                value.copy_(own)
        where = "" if place is None else f", {place.step} steps into the next one"
        _log.info("continuing from %s after epoch %d of %d%s", path, checkpoint.epoch, self.plan.epochs, where)

    def _found(self) -> tuple[Path, Checkpoint] | None:
        if isinstance(self.checkpoint, KeptCheckpoints):
            return self.checkpoint.load(self.plan)
        assert self.checkpoint is not None
        return (self.checkpoint, load_checkpoint(self.checkpoint, self.plan)) if self.checkpoint.exists() else None


def _progress(entry: Mapping[str, Any]) -> EpochProgress:
    values = dict(entry)
    for key in ("evaluation", "average"):
        result = values.get(key)
        values[key] = None if result is None else EvaluationResult(**result)
    return EpochProgress(**values)


def generators(device: torch.device) -> tuple[Tensor, ...]:
    """Return the state of torch's generators that a step on ``device`` draws from."""
    states = [torch.random.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return tuple(states)


def set_generators(states: Sequence[Tensor], device: torch.device) -> None:
    """Set torch's generators to the ``states`` that :func:`generators` returned."""
    torch.random.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
