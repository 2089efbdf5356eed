"""Accuracy and loss of a network on data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from partialnet.errors import DataError

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
        DataError: If there is no image.
    """
    top1 = top5 = n = 0
    loss = 0.0
    with evaluation_mode(model), torch.inference_mode():
        for inputs, targets in batches:
            inputs, targets = inputs.to(device), targets.to(device)
            logits = model(inputs).float()
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices == targets[:, None]
            top1 += int(best[:, 0].sum())
            top5 += int(best.sum())
            loss += float(functional.cross_entropy(logits, targets, reduction="sum"))
            n += len(targets)
    if n == 0:
        raise DataError("there is nothing to evaluate on: the batches hold no image")
    return EvaluationResult(top1 / n, top5 / n, loss / n, n)
