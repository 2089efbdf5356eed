"""Accuracy and loss of a network on data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from partialnet.errors import DataError
from partialnet.transfer import batch_on

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class EvaluationResult:
    """What :func:`evaluate` found.

    Args:
        top1: Fraction of images whose class has the largest logit.
        top5: Fraction of images whose class is among the five largest (among all, with fewer than five classes).
        loss: Mean cross entropy in nats, without label smoothing.
        n: Images.
    """

    top1: float
    top5: float
    loss: float
    n: int


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put ``model`` into evaluation mode, and afterwards each of its modules back into the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def evaluate(model: nn.Module, batches: Iterable[Batch], *, device: torch.device | str = "cpu") -> EvaluationResult:
    """Evaluate ``model``; its mode and its weights are as before afterwards.

    Args:
        model: On ``device``; maps inputs [B, C, H, W] to logits [B, classes].
        batches: Of inputs and of targets [B].
        device: Where the batches are moved.

    Raises:
        DataError: If there is no image, or a batch is no pair of tensors.
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
            # Read at the end: the device need not wait for the host between batches.
            found.append(torch.stack((best[:, 0].sum(), best.sum(), loss.double())))
            n += len(targets)
    if n == 0:
        raise DataError("there is nothing to evaluate on: the batches hold no image")
    top1, top5, total = (sum(column) for column in zip(*torch.stack(found).tolist(), strict=True))
    return EvaluationResult(top1 / n, top5 / n, total / n, n)
