"""Tensors on their way to a device, without making the host wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from partialnet.errors import DataError


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Move ``tensor`` while the host goes on: to a GPU from pinned memory, since only then the copy does not block."""
    device = torch.device(device)
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def on_host(tensor: Tensor) -> Tensor:
    """Return ``tensor`` itself where the host reads it freely, else a copy for the host, which waits for the device."""
    return tensor if tensor.device.type == "cpu" else tensor.detach().cpu()


def prefers_channels_last(device: torch.device) -> bool:
    """Return whether networks are trained in channels-last layout on ``device``.

    Tensor cores want it; on a processor it made training no faster.
    """
    return device.type == "cuda"


def channels_last(tensor: Tensor) -> Tensor:
    """Return ``tensor`` in channels-last layout if it is a batch of maps [B, C, H, W], else as it is."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def batch_on(batch: Any, device: torch.device, name: str) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of a batch on ``device``, maps in the layout that the device prefers.

    Args:
        batch: What a loader yields.
        device: Where to.
        name: Of the argument that it comes from, for messages.

    Raises:
        DataError: If it is not a pair of tensors; says what it is.
    """
    inputs, targets = check_pair(batch, name)
    inputs, targets = to_device(inputs, device), to_device(targets, device)
    return (channels_last(inputs) if prefers_channels_last(device) else inputs), targets


def check_pair(batch: Any, name: str) -> tuple[Tensor, Tensor]:
    """Return the inputs and targets of a batch.

    Raises:
        DataError: If it is not a pair of tensors; says what it is.
    """
    pair = isinstance(batch, (tuple, list)) and len(batch) == 2
    if pair and all(isinstance(part, Tensor) for part in batch):
        return batch[0], batch[1]
    raise DataError(
        f"{name} yields {_described(batch)}, but must yield pairs of tensors (inputs, targets); wrap the loader in a "
        "generator function or a class that picks them"
    )


def _described(batch: Any) -> str:
    if isinstance(batch, Mapping):
        keys = ", ".join(map(repr, list(batch)[:5]))
        return f"a {type(batch).__name__} with {keys}" if keys else f"an empty {type(batch).__name__}"
    if isinstance(batch, (tuple, list)):
        return f"a {type(batch).__name__} of {', '.join(type(part).__name__ for part in batch[:5]) or 'nothing'}"
    return f"a {type(batch).__name__}"
