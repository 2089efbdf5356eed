"""Selection of the device for a training or an evaluation."""

from __future__ import annotations

import torch

from partialnet.errors import PartialNetError

DEVICES = ("cpu", "cuda")


def select_device(name: str | None = None) -> torch.device:
    """Return the device with the name ``name`` (``"cpu"``, ``"cuda"``, ``"cuda:1"``), or the GPU if there is one.

    Raises:
        PartialNetError: If there is no such device; the message lists the known ones.
    """
    available = torch.cuda.is_available()
    if name is None:
        return torch.device("cuda" if available else "cpu")
    kind, _, index = name.partition(":")
    if kind not in DEVICES or (index and (not index.isdigit() or kind == "cpu")):
        raise PartialNetError(f"unknown device {name!r}; known: cpu, cuda, cuda:<index>")
    if kind == "cuda" and not available:
        raise PartialNetError(f"device {name!r} was requested, but torch sees no CUDA GPU here; use cpu")
    if index and int(index) >= torch.cuda.device_count():
        raise PartialNetError(f"device {name!r} was requested, but torch sees {torch.cuda.device_count()} GPU(s)")
    return torch.device(name)
