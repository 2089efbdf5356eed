"""Errors of this package, one root and its children; each carries the command's exit code.

NasError (1)
  InputError (2)        invalid input: place, fault, value, what would be right
    DefinitionError     a study definition
    NotFoundError       a study, trial, job or file that does not exist
    ConflictError       an action that the present state does not allow
      LeaseInDoubt      an expired lease whose holder may live
      LimitError        more than the service allows at once
    ForbiddenError      an action that the scope of a token does not allow
  StoreError (1)        the database cannot be opened, is too old, or refused a write
    StaleLease          a write under a lease that another worker has taken
    StoreLost           the database's file was deleted or replaced while it was in use
  JobError (1)          a job that failed
  CommonFault (1)       a fault that concerns all trials: a full disk, a storage that cannot be written, damaged data
    ClusterFault        a Ray cluster that is away or cannot run the trials
  MemoryExhausted (1)   a training for which a device or the machine has no memory
"""

from __future__ import annotations

import traceback
from pathlib import Path

from partialnet.errors import PartialNetError


class NasError(Exception):
    """Root of all errors that ``nas`` and ``service`` raise on purpose."""

    exit_code = 1


class InputError(NasError, ValueError):
    """Invalid input of the caller: the message gives the place, the fault, the value, and what would be right."""

    exit_code = 2


class DefinitionError(InputError):
    """An invalid study definition: each line of the message is a fault."""

    @property
    def faults(self) -> tuple[str, ...]:
        """The faults, one line each."""
        return tuple(line for line in str(self).split("\n") if line.strip())


class NotFoundError(InputError):
    """A study, trial, job or file that does not exist."""


class ConflictError(InputError):
    """An action that the present state does not allow."""


class LeaseInDoubt(ConflictError):
    """An expired lease whose holder may live and get to renew it: the caller looks again soon."""


class LimitError(ConflictError):
    """More than the service allows at once, or within a time: the message says what would be right."""


class ForbiddenError(InputError):
    """An action that the scope of a token does not allow: the message says which one does."""


class StoreError(NasError):
    """The database cannot be opened, has the wrong schema, or refused a write."""


class StaleLease(StoreError):
    """A write under a job's lease that expired and went to another worker, or that has ended."""


class StoreLost(StoreError):
    """The file of a database was deleted or replaced while it was in use: nothing more can be read or written."""


class JobError(NasError):
    """A job that failed."""


class CommonFault(NasError):
    """A fault that concerns all trials of a study, such as a full disk: the message gives it in one sentence."""


class ClusterFault(CommonFault):
    """A Ray cluster that is away, refuses this client, or cannot run the trials at present."""


class MemoryExhausted(NasError):
    """A training ran out of memory: the message gives the request, the free memory, and keys that make it smaller."""


def explain(error: BaseException | None) -> str:
    """Return an error as one reason: our own errors as text, others with their type."""
    if error is None:
        return ""
    own = isinstance(error, (NasError, PartialNetError))
    return str(error) if own and str(error) else f"{type(error).__name__}: {error}"


def as_name(value: object) -> str:
    """Return a name from elsewhere, such as a file's, so that it stays in its place: control codes become escapes."""
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def one_line(error: object) -> str:
    """Return the message of an error in one line; its type if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


def failure_reason(error: BaseException) -> str:
    """Return an unexpected error in one line, with the place that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    name, text = type(error).__name__, one_line(error)
    return f"{name}{where}" if text == name else f"{name}: {text}{where}"
