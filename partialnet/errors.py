"""Errors of this package, one root and its children.

PartialNetError
  ArchitectureError   an architecture, a variant or a width that cannot be built
  BudgetError         a budget that is impossible for this network
  DataError           a data set that is missing or damaged
    DataChanged       a file that is no longer the one that was opened
    DataMissing       a data set, or its test images, that are not there at all
  PackageError        an exported folder that cannot be read
  TrainingDiverged    a loss that is not finite
"""

from __future__ import annotations


def printable(text: str) -> str:
    """Return ``text`` with what no encoding can write, such as bytes of a file's name in Latin-1, shown as escapes."""
    try:
        return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return text.encode(errors="backslashreplace").decode()


def is_text(text: str) -> bool:
    """Return whether ``text`` can be written as UTF-8: no for names of files whose bytes are in another encoding."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class PartialNetError(Exception):
    """Root of all errors that ``partialnet`` raises on purpose.

    The message is always valid text: escapes show bytes of file names that are not UTF-8.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class ArchitectureError(PartialNetError, ValueError):
    """An architecture, a variant, an option or a width that cannot be built."""


class BudgetError(PartialNetError, ValueError):
    """A budget that is impossible for this network."""


class DataError(PartialNetError):
    """A data set that is missing or damaged; the message names the path, the wanted files, and a remedy."""


class DataChanged(DataError):
    """A file of a data set that is no longer the one that was opened: nothing in it can be trusted, or skipped."""


class DataMissing(DataError):
    """A data set, or a part of it, that is nowhere: unlike a damaged one, one may do without it."""


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
