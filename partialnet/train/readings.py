"""Numbers that the device computes and the host reads later, many steps at once.

A host that reads a number waits until the device has computed it, and launches nothing meanwhile. On a GPU, where the
launches of a small network limit the speed, that would cost time in each step. So numbers wait on the device until they
are needed, or until those of ``STEPS`` steps have gathered, and one transfer brings them. On a processor a read costs
nothing, and each number is read at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

STEPS = 32

Take = Callable[[Sequence[float]], None]


def steps_between(device: torch.device) -> int:
    """Return the number of steps whose numbers wait on ``device`` before they are read."""
    return 1 if device.type == "cpu" else STEPS


class _Transfer(NamedTuple):
    numbers: Tensor
    arrived: torch.cuda.Event | None
    parts: list[tuple[int, Take]]


class Readings:
    """Numbers that wait on a device, and the functions that use them on the host, in the order of their arrival.

    Args:
        device: Device that computes them.

    Attributes:
        on_read: Function to call after numbers have been read.
        combine: Function of the numbers on the device that replaces them, such as their sum over several processes.
    """

    def __init__(self, device: torch.device) -> None:
        self._steps = steps_between(device)
        self._waiting: list[tuple[Tensor, Take]] = []
        self._transfers: list[_Transfer] = []
        self._added = 0
        self.on_read: Callable[[], None] = lambda: None
        self.combine: Callable[[Tensor], Tensor] = lambda numbers: numbers

    @property
    def immediate(self) -> bool:
        """Whether numbers are read at once."""
        return self._steps == 1

    def add(self, numbers: Tensor, take: Take) -> None:
        """Keep ``numbers`` [n] until they are read, and pass them to ``take`` then; at once if a read costs nothing."""
        self._waiting.append((self.combine(numbers.detach()), take))
        self._added += 1
        if self.immediate:
            self.read()

    def start(self) -> None:
        """Start the transfer of all waiting numbers to the host, which continues meanwhile; :meth:`read` receives it.
        """
        if not self._waiting:
            return
        parts = [(len(numbers), take) for numbers, take in self._waiting]
        tensors = [numbers for numbers, _ in self._waiting]
        self._waiting = []
        self._transfers.append(_Transfer(*_send(tensors[0] if len(tensors) == 1 else torch.cat(tensors)), parts))

    def read(self) -> None:
        """Process all added numbers; wait for the device if necessary."""
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
        """Process all numbers if enough have gathered."""
        if self._added >= self._steps:
            self.read()


def _send(numbers: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Start the copy of ``numbers`` to the host; return it, and the event of its arrival."""
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
