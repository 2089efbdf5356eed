"""Errors of this package, one root and its children; each knows the exit code of a command that ends with it.

NasError (1)
  InputError (2)        something the caller gave is wrong: what, where, the value, what would be right
    DefinitionError     a study definition
    NotFoundError       a study, trial, job or file that does not exist
    ConflictError       an action that the present state does not allow
  StoreError (1)        the database cannot be opened, is too old, or refused a write
    StaleLease          a write under a lease that has gone to another worker
  JobError (1)          a job that failed
  MemoryExhausted (1)   a training for which a device or the machine has no memory
"""

from __future__ import annotations

import traceback
from pathlib import Path

from partialnet.errors import PartialNetError


class NasError(Exception):
    """Root of all errors raised on purpose by ``nas`` and ``service``."""

    exit_code = 1


class InputError(NasError, ValueError):
    """Something the caller gave is wrong: the message says what, where, the value, and what would be right."""

    exit_code = 2


class DefinitionError(InputError):
    """A study definition that is not valid."""


class NotFoundError(InputError):
    """A study, trial, job or file that does not exist."""


class ConflictError(InputError):
    """An action that the present state does not allow."""


class StoreError(NasError):
    """The database cannot be opened, has the wrong schema, or refused a write."""


class StaleLease(StoreError):
    """A write under a lease of a job that has expired and gone to another worker, or has ended."""


class JobError(NasError):
    """A job that failed."""


class MemoryExhausted(NasError):
    """A training ran out of memory: the message says what was asked for, what was free, and what makes it smaller."""


def explain(error: BaseException | None) -> str:
    """Return an error as one reason: ours as they are, others with their type."""
    if error is None:
        return ""
    own = isinstance(error, (NasError, PartialNetError))
    return str(error) if own and str(error) else f"{type(error).__name__}: {error}"


def one_line(error: object) -> str:
    """Return what an error says in one line; its type if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def failure_reason(error: BaseException) -> str:
    """Return an unexpected error in one line, with the place that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    name, text = type(error).__name__, one_line(error)
    return f"{name}{where}" if text == name else f"{name}: {text}{where}"
