"""What a training will take, from a few of its steps: memory, speed, hours. Writes nothing."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from nas.definition.training import TrainRequest
from nas.training.data import open_splits, teacher_for
from nas.training.device import memory_explained
from nas.training.scoring import EVALUATION_BATCH
from nas.training.standalone import batches_of, build_model
from partialnet.data import Workers
from partialnet.train import evaluate
from partialnet.train.evaluation import Batch
from partialnet.train.step import Stepper, drop_paths
from partialnet.transfer import batch_on

_WARM_UP = 2


@dataclass(frozen=True)
class Forecast:
    """What a training will take.

    Args:
        epochs: Number of epochs.
        steps: Number of steps in all epochs.
        images: Number of training images in all epochs.
        measured_steps: Number of measured steps.
        images_per_second: Training images per second, over all processes.
        evaluated_per_second: Evaluated images per second, over all processes.
        memory_bytes: Largest memory in use: of the GPU, or of the process without one.
        hours: Time of all steps and evaluations.
    """

    epochs: int
    steps: int
    images: int
    measured_steps: int
    images_per_second: float
    evaluated_per_second: float
    memory_bytes: int
    hours: float


def forecast(
    request: TrainRequest,
    data_roots: Sequence[Path],
    *,
    device: torch.device | str = "cpu",
    processes: int = 1,
    steps: int = 10,
    workers: Workers | None = None,
) -> Forecast:
    """Take the first steps of a training and predict the whole.

    Several processes are taken to be as fast as one with its part of a batch, each: on GPUs, or on enough processors.

    Args:
        request: Architecture, data, recipe and seed of the training.
        data_roots: Folders to search for data sets.
        device: Device of the training.
        processes: Number of processes that would share each batch.
        steps: Number of steps to measure, after two that warm up; fewer if an epoch has fewer.
        workers: Threads or processes that decode and augment image files; None for threads, as many as CPUs, at most 8.

    Raises:
        DataError: If the data set is missing or damaged, or has no batch.
        PartialNetError: If the recipe is impossible here.
        MemoryExhausted: If the device has no memory left; the message says what makes the training smaller.
    """
    device = torch.device(device)
    splits = open_splits(request, data_roots, workers)
    model, _ = build_model(request, splits)
    batches = batches_of(request, splits, device, (0, processes))
    smaller = {"batch_size": request.batch_size, "image_size": request.data.size}
    with memory_explained(device, smaller), drop_paths(model, request.recipe.drop_path):
        stepper = Stepper(model, request.recipe, device, teacher=teacher_for(request.recipe, splits))
        taken, seconds, images = _measure(stepper, batches, steps)
        validation = splits.validation.batches(EVALUATION_BATCH, device=device)
        evaluated = processes * _evaluated_per_second(model, validation, device)
    total_steps = sum(batches.steps_in(epoch) for epoch in range(request.epochs))
    total_images = sum(batches.images_in(epoch) for epoch in range(request.epochs))
    speed = processes * images / max(seconds, 1e-9)
    networks = 2 if request.recipe.ema_decay > 0 else 1
    hours = (total_images / speed + request.epochs * networks * len(splits.validation) / evaluated) / 3600
    return Forecast(
        request.epochs, total_steps, total_images, taken, speed, evaluated, _memory(device), hours
    )


def _measure(stepper: Stepper, batches: Iterable[Batch], wanted: int) -> tuple[int, float, int]:
    """Return the number of measured steps, their seconds, and their images."""
    stepper.model.train()
    moments, counts = [], []
    for step, batch in enumerate(islice(batches, _WARM_UP + wanted)):
        inputs, targets = batch_on(batch, stepper.device, "train_batches")
        stepper.step(step, _WARM_UP + wanted, inputs, targets)
        _synchronize(stepper.device)
        moments.append(time.perf_counter())
        counts.append(len(targets))
    if len(moments) < 2:
        # One batch is an epoch: its time is not known without the warm-up, so it is taken again.
        started = moments[0]
        stepper.step(1, 2, inputs, targets)
        _synchronize(stepper.device)
        return 1, time.perf_counter() - started, counts[0]
    first = min(_WARM_UP, len(moments) - 1)
    return len(moments) - first, moments[-1] - moments[first - 1], sum(counts[first:])


def _evaluated_per_second(model: nn.Module, batches: Iterable[Batch], device: torch.device) -> float:
    evaluate(model, islice(batches, 1), device=device)
    started = time.perf_counter()
    return evaluate(model, islice(batches, 2), device=device).n / max(time.perf_counter() - started, 1e-9)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Linux counts kibibytes, macOS bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
