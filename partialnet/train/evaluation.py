"""Accuracy and loss of a network on data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from partialnet.errors import DataError
from partialnet.train.processes import Processes
from partialnet.transfer import batch_on

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class EvaluationResult:
    """The result of :func:`evaluate`.

    Args:
        top1: Fraction of images whose class has the largest logit.
        top5: Fraction of images whose class is among the five largest (among all, with fewer than five classes).
        loss: Mean cross entropy in nats, without label smoothing.
        n: Number of images.
    """

    top1: float
    top5: float
    loss: float
    n: int


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put ``model`` into evaluation mode inside the block, and restore the mode of each of its modules afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    device: torch.device | str = "cpu",
    processes: Processes | None = None,
) -> EvaluationResult:
    """Evaluate ``model``; its mode and its weights stay unchanged.

    Args:
        model: Network on ``device``, which maps inputs [B, C, H, W] to logits [B, classes].
        batches: Batches of inputs [B, C, H, W] and targets [B].
        device: Device to which the batches are moved.
        processes: Processes that have a part of the images each; their counts are summed, and all get the result.

    Raises:
        DataError: If there is no image, or a batch is not a pair of tensors.
    """
    device = torch.device(device)
    found: list[Tensor] = []
    n = 0
    with evaluation_mode(model), torch.inference_mode():
        for batch in batches:
            inputs, targets = batch_on(batch, device, "batches")
            logits = model(inputs).float()
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices == targets[:, None]
            loss = functional.cross_entropy(logits, targets, reduction="sum")
            # Read at the end, so that the device need not wait for the host between batches.
            found.append(torch.stack((best[:, 0].sum(), best.sum(), loss.double())))
            n += len(targets)
    sums = [sum(column) for column in zip(*torch.stack(found).tolist(), strict=True)] if found else [0.0, 0.0, 0.0]
    # Parts may differ in size, even be empty: only sums over all images are exact.
    counts = torch.tensor([*sums, n], dtype=torch.float64)
    if processes is not None:
        counts = processes.summed(counts.to(device))
    top1, top5, total, images = counts.tolist()
    if images == 0:
        raise DataError("there is nothing to evaluate on: the batches hold no image")
    return EvaluationResult(top1 / images, top5 / images, total / images, int(images))
