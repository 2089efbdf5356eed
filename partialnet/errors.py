"""Errors of this package, one root and its children.

PartialNetError
  ArchitectureError   an architecture, a variant or a width that cannot be built
    BudgetError         a budget that is impossible for this network
  DataError           a data set that is missing or damaged
  PackageError        an exported folder that cannot be read
  TrainingDiverged    a loss that is not finite
"""

from __future__ import annotations


class PartialNetError(Exception):
    """Root of all errors that ``partialnet`` raises on purpose."""


class ArchitectureError(PartialNetError, ValueError):
    """An architecture, a variant, an option or a width that cannot be built."""


class BudgetError(PartialNetError, ValueError):
    """A budget that is impossible for this network."""


class DataError(PartialNetError):
    """A data set that is missing or damaged; the message names the path, the wanted files, and a remedy."""


class PackageError(PartialNetError):
    """An exported folder that cannot be read, or whose files do not fit each other."""


class TrainingDiverged(PartialNetError, ArithmeticError):
    """A training whose loss is no longer finite.

    Attributes:
        step: Zero-based step of the loss.
        loss: Value of the loss.
    """

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"the training diverged: loss is {loss} at step {step}; lower the learning rate")
        self.step = step
        self.loss = loss

    def __reduce__(self) -> tuple[type[TrainingDiverged], tuple[int, float]]:
        return type(self), (self.step, self.loss)
