"""Numbers that the device computes and the host reads later, many steps at once.

A host that reads a number waits until the device has computed it, and meanwhile launches nothing. On a GPU, where the
launches of a small network are the bound, that would cost every step. So numbers wait on the device until somebody
needs them, or until those of ``STEPS`` steps are there, and come in one transfer. On a processor reading is free, and
every number is read at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

STEPS = 32

Take = Callable[[Sequence[float]], None]


def steps_between(device: torch.device) -> int:
    """Return how many steps' numbers wait on ``device`` before they are read."""
    return 1 if device.type == "cpu" else STEPS


class _Transfer(NamedTuple):
    numbers: Tensor
    arrived: torch.cuda.Event | None
    parts: list[tuple[int, Take]]


class Readings:
    """Numbers that wait on a device, and what is done with them on the host, in the order in which they came.

    Args:
        device: That computes them.

    Attributes:
        on_read: Called each time that numbers have been read.
    """

    def __init__(self, device: torch.device) -> None:
        self._steps = steps_between(device)
        self._waiting: list[tuple[Tensor, Take]] = []
        self._transfers: list[_Transfer] = []
        self._added = 0
        self.on_read: Callable[[], None] = lambda: None

    @property
    def immediate(self) -> bool:
        """Whether numbers are read as they come."""
        return self._steps == 1

    def add(self, numbers: Tensor, take: Take) -> None:
        """Keep ``numbers`` [n] until they are read, and give them to ``take`` then: at once where reading is free."""
        self._waiting.append((numbers.detach(), take))
        self._added += 1
        if self.immediate:
            self.read()

    def start(self) -> None:
        """Let all that waits set out for the host, which goes on meanwhile; :meth:`read` takes it."""
        if not self._waiting:
            return
        parts = [(len(numbers), take) for numbers, take in self._waiting]
        tensors = [numbers for numbers, _ in self._waiting]
        self._waiting = []
        self._transfers.append(_Transfer(*_send(tensors[0] if len(tensors) == 1 else torch.cat(tensors)), parts))

    def read(self) -> None:
        """Take all numbers that were added, waiting for the device if need be."""
        self.start()
        self._added = 0
        while self._transfers:
            transfer = self._transfers.pop(0)
            values, place = _receive(transfer), 0
            for count, take in transfer.parts:
                take(values[place : place + count])
                place += count
        self.on_read()

    def read_if_due(self) -> None:
        """Take all numbers if enough have gathered."""
        if self._added >= self._steps:
            self.read()


def _send(numbers: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Start the copy of ``numbers`` to the host; return it, and what says that it has arrived."""
    if numbers.device.type != "cuda":
        return numbers, None
    host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
    host.copy_(numbers, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record(torch.cuda.current_stream(numbers.device))
    return host, arrived


def _receive(transfer: _Transfer) -> list[float]:
    """Return the numbers on the host: the one place where a step may wait for the device."""
    if transfer.arrived is not None:
        transfer.arrived.synchronize()
    values: list[float] = transfer.numbers.tolist()
    return values
