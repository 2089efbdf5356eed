"""One step of the training of a fixed network: the same with one process or several, whatever the recipe holds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from timm.layers import DropPath
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from partialnet.errors import PartialNetError
from partialnet.train.compilation import SHAPES, KnownShapes, compiled
from partialnet.train.norms import enough_images
from partialnet.train.optimizer import build_optimizer, schedule_learning_rate
from partialnet.train.precision import Scaler, check_precision, check_weights, run_model
from partialnet.train.processes import Processes
from partialnet.train.recipe import Recipe
from partialnet.transfer import prefers_channels_last


class Stepper:
    """Takes the steps of one training in place.

    Args:
        model: Network to train; it moves to ``device``.
        recipe: Optimiser, schedule, loss and precision.
        device: Device of the training.
        teacher: Network to distil from, if the recipe names one.
        processes: Processes that share each batch.
        most: Largest number of processes that may share a batch, if their number may change; see :func:`fit`.
        uneven: Whether processes may have different numbers of images; it is the same in all of them.

    Attributes:
        model: Network with the present weights.
        optimizer: Optimiser of its weights.
        scaler: Scaler of its gradients.
        average: Network with the moving average of the weights, if the recipe wants one.

    Raises:
        ArchitectureError: If a weight is float16.
        PartialNetError: If the device does not support the recipe, or a teacher is missing.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        device: torch.device,
        *,
        teacher: nn.Module | None = None,
        processes: Processes | None = None,
        most: int | None = None,
        uneven: bool = False,
    ) -> None:
        check_weights(model)
        check_precision(recipe, device)
        if bool(recipe.teacher) != (teacher is not None):
            raise PartialNetError(f"recipe.teacher is {recipe.teacher!r}; give a teacher if, and only if, it names one")
        self.model = model.to(device)
        self.recipe = recipe
        self.device = device
        self._processes = processes or Processes()
        # Fewer processes take their larger shares in more passes, each as large as a share of all of them.
        self._passes = recipe.accumulation * (1 if most is None else math.ceil(most / self._processes.count))
        self._uneven = (uneven or most is not None) and self._processes.several
        wanted = prefers_channels_last(device) if recipe.channels_last is None else recipe.channels_last
        self._layout = torch.channels_last if wanted else torch.contiguous_format
        if wanted:
            model.to(memory_format=torch.channels_last)
        self._average = None
        if recipe.ema_decay > 0:
            self._average = ModelEmaV3(model, recipe.ema_decay, use_warmup=recipe.ema_warmup)
        self._teacher = None if teacher is None else teacher.to(device).eval().requires_grad_(False)
        self.optimizer = build_optimizer(model, recipe)
        self.scaler = Scaler(recipe, device)
        self._forward: nn.Module | None = None
        # Each size of images has batches of at most two sizes, where they are divided unevenly.
        self._shapes = KnownShapes(SHAPES + 2 * len(recipe.sizes))

    @property
    def average(self) -> nn.Module | None:
        """Network with the moving average of the weights."""
        average: nn.Module | None = None if self._average is None else self._average.module
        return average

    def step(self, index: int, steps: int, inputs: Tensor, targets: Tensor) -> Tensor:
        """Take step ``index`` (zero-based) of ``steps`` and return its loss.

        Args:
            index: Index of the step, which decides the learning rate.
            steps: Number of steps in the whole training.
            inputs: Inputs [B, C, H, W] on the device.
            targets: Classes, int64 [B], or probabilities, float32 [B, classes].
        """
        schedule_learning_rate(self.optimizer, index, steps, self.recipe)
        self.optimizer.zero_grad(set_to_none=True)
        inputs = inputs.contiguous(memory_format=self._layout) if inputs.ndim == 4 else inputs
        parts = list(zip(inputs.chunk(self._passes), targets.chunk(self._passes), strict=True))
        weight = self._weight(len(targets))
        total: Tensor | None = None
        for place, (part, wanted) in enumerate(parts):
            with self._quiet(place < len(parts) - 1):
                # Parts count by their images, so that an uneven division changes nothing.
                share = weight * (len(wanted) / len(targets))
                loss = self._loss(part, wanted)
                self.scaler.backward(loss * share)
            total = loss.detach() * share if total is None else total + loss.detach() * share
        assert total is not None
        self.scaler.step(self.optimizer, self.model.parameters(), self.recipe.clip_norm)
        if self._average is not None:
            self._average.update(self.model, step=index + 1)
        return total

    def _weight(self, images: int) -> Tensor | float:
        """Return the weight of this process's images in the mean over processes: above 1 if it has more than others."""
        if not self._uneven:
            return 1.0
        total = self._processes.summed(torch.tensor(float(images), device=self.device))
        return images * self._processes.count / total

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        if self.recipe.compile:
            self._shapes.meet(inputs.shape)
        with enough_images(inputs, "train_batches"):
            logits = run_model(self._runner(), inputs, self.recipe).float()
        loss = functional.cross_entropy(logits, targets, label_smoothing=self.recipe.label_smoothing)
        if self._teacher is None:
            return loss
        with torch.no_grad():
            taught = run_model(self._teacher, inputs, self.recipe).float()
        share = self.recipe.distillation
        return (1 - share) * loss + share * divergence(logits, taught, self.recipe.temperature)

    def _runner(self) -> nn.Module:
        """Return the network as it runs in a step: distributed and compiled, with the same parameters."""
        if self._forward is None:
            forward = self.model
            if self._processes.several:
                devices = [self.device] if self.device.type == "cuda" else None
                with warnings.catch_warnings():
                    # Its successor would send the first process's buffers to all at the start.
                    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
                    # Each process updates its statistics; `statistics` says how they meet.
                    forward = DistributedDataParallel(forward, device_ids=devices, broadcast_buffers=False)
            self._forward = compiled(forward, self.device, self._shapes.limit) if self.recipe.compile else forward
        return self._forward

    def _quiet(self, more: bool) -> AbstractContextManager[Any]:
        """Return a context that leaves gradients in this process while ``more`` of the batch is to come."""
        forward = self._runner() if self._processes.several and more else None
        quiet = getattr(forward, "no_sync", None)
        return nullcontext() if quiet is None else quiet()


def divergence(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Return the mean divergence of the outputs [B, classes] from a teacher's, both at ``temperature``.

    It is scaled by the square of the temperature, which keeps the size of its gradients.
    """
    mine, other = ((values / temperature).log_softmax(1) for values in (logits, taught))
    return functional.kl_div(mine, other, reduction="batchmean", log_target=True) * temperature**2


@contextmanager
def drop_paths(model: nn.Module, rate: float | None) -> Iterator[None]:
    """Give the blocks of ``model`` stochastic depth inside the block, growing from 0 to ``rate``; None changes nothing.

    Raises:
        PartialNetError: If the network has no blocks with an attribute ``drop_path``.
    """
    if rate is None:
        yield
        return
    blocks: list[Any] = [block for block in model.modules() if isinstance(getattr(block, "drop_path", None), nn.Module)]
    if not blocks and rate > 0:
        raise PartialNetError(f"drop_path is {rate}, but {type(model).__name__} has no paths to drop; leave it out")
    before = [block.drop_path for block in blocks]
    for place, block in enumerate(blocks):
        share = rate * place / max(1, len(blocks) - 1)
        block.drop_path = DropPath(share) if share > 0 else nn.Identity()
    try:
        yield
    finally:
        for block, path in zip(blocks, before, strict=True):
            block.drop_path = path
