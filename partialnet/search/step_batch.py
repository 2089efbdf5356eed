"""What a step of a search runs on, and the losses that it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from partialnet.train.precision import Scaler


@dataclass
class StepLoss:
    """The losses of a step, which the host knows only after reading them (``partialnet.train.readings``).

    Args:
        total: Objective that was minimised.
        task: Task part of the objective.
        order: Part that is 0 exactly at deployable levels, before the penalty.
        complexity: Factor on the task loss.
        known: Whether the losses have been read.
    """

    total: float = 0.0
    task: float = 0.0
    order: float = 0.0
    complexity: float = 1.0
    known: bool = False

    def fill(self, total: float, task: float, order: float = 0.0, complexity: float = 1.0) -> None:
        """Set the losses that were read."""
        self.total, self.task, self.order, self.complexity, self.known = total, task, order, complexity, True


@dataclass(frozen=True)
class StepBatch:
    """A batch, and the functions that run the network on it at the present levels.

    Args:
        inputs: Inputs of the network.
        targets: Targets of the loss.
        forward: Function of inputs that returns outputs.
        loss: Function of (outputs, targets) that returns a scalar.
        scaler: Scaler of gradients; None if they are not scaled.
        share: Share of this process in the batch, by which ``loss`` is weighted.
    """

    inputs: Tensor
    targets: Tensor
    forward: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    scaler: Scaler | None = None
    share: float = 1.0

    def task(self) -> Tensor:
        """Return the loss of the network at the present levels."""
        return self.loss(self.forward(self.inputs), self.targets)

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of ``loss``, scaled if there is a scaler."""
        if self.scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            self.scaler.backward(loss)
