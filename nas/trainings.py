"""Trainings of one network outside of a search, and the actions that they allow. Loads neither torch nor ray.

Life of a training::

    queued -> running -> finished | stopped | failed
      ^  '-------|---------------------^     ^
      '----------'----- (resumed) -----------'

A stop, a signal or a fault leaves a checkpoint behind, from which a resumed training continues. A training that runs
reads as ``interrupted`` when the lease of its job has expired; the next worker continues it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from nas.candidate import Artifact
from nas.errors import ConflictError
from nas.jobs import DesiredState
from nas.metrics import Evaluation

STOPPED_ON_REQUEST = "stopped on request"
INTERRUPTED_BY_SIGNAL = "interrupted by a signal"


class TrainingState(StrEnum):
    """The states of a training."""

    QUEUED = "queued"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether no process trains and none will by itself."""
        return self in (TrainingState.FINISHED, TrainingState.STOPPED, TrainingState.FAILED)


class TrainingAction(StrEnum):
    """Actions on a training."""

    STOP = "stop"
    """Write a checkpoint and end."""
    RESUME = "resume"
    """Queue it again; it continues from its newest checkpoint."""
    RUN = "run"
    """Train in the present process, whether or not a job waits for a worker."""
    DELETE = "delete"
    """Forget the training, and delete its files."""


@dataclass(frozen=True)
class TrainingStep:
    """The result of an allowed action.

    Args:
        state: State of the training afterwards, where no process runs it.
        desired: Desired state of its job.
    """

    state: TrainingState
    desired: DesiredState


_WAITS = TrainingStep(TrainingState.QUEUED, DesiredState.RUNNING)
_RUNS = TrainingStep(TrainingState.RUNNING, DesiredState.RUNNING)
_STOPS = TrainingStep(TrainingState.STOPPED, DesiredState.STOPPED)
_GONE = TrainingStep(TrainingState.STOPPED, DesiredState.STOPPED)
_NOT_UNDER_WAY = "there is nothing to stop"
_UNDER_WAY = "only a stopped or failed one can resume"
_TAKEN_UP = "the next worker continues it by itself"
_DONE = "its package is ready; start another training with other settings"
_HELD = "another process trains it"
_STOP_FIRST = "stop it first"

_ACTIONS = (TrainingAction.STOP, TrainingAction.RESUME, TrainingAction.RUN, TrainingAction.DELETE)


def _row(*steps: TrainingStep | str) -> Mapping[TrainingAction, TrainingStep | str]:
    return MappingProxyType(dict(zip(_ACTIONS, steps, strict=True)))


TABLE: Mapping[TrainingState, Mapping[TrainingAction, TrainingStep | str]] = MappingProxyType(
    {  # in the order of _ACTIONS: stop, resume, run, delete
        TrainingState.QUEUED: _row(_STOPS, _UNDER_WAY, _RUNS, _STOP_FIRST),
        TrainingState.RUNNING: _row(_STOPS, _UNDER_WAY, _HELD, _STOP_FIRST),
        TrainingState.INTERRUPTED: _row(_STOPS, _TAKEN_UP, _RUNS, _STOP_FIRST),
        TrainingState.FINISHED: _row(_NOT_UNDER_WAY, _DONE, _DONE, _GONE),
        TrainingState.STOPPED: _row(_NOT_UNDER_WAY, _WAITS, _RUNS, _GONE),
        TrainingState.FAILED: _row(_NOT_UNDER_WAY, _WAITS, _RUNS, _GONE),
    }
)


def allows(state: TrainingState, action: TrainingAction) -> bool:
    """Return whether a training in ``state`` allows ``action``."""
    return isinstance(TABLE[state][action], TrainingStep)


def take(name: str, state: TrainingState, action: TrainingAction) -> TrainingStep:
    """Return the result of ``action``.

    Args:
        name: Name of the training, for the message.
        state: Present state of the training.
        action: Requested action.

    Raises:
        ConflictError: If the state forbids it; the message says why.
    """
    step = TABLE[state][action]
    if isinstance(step, str):
        raise ConflictError(f"training {name} is {state.value}: {step}")
    return step


@dataclass(frozen=True)
class TrainingSource:
    """The network that a training starts from.

    Args:
        study_id: Id of the study whose trial found it; None for a package, or if the study was deleted.
        study: Name of the study at that time.
        number: Number of the trial.
        position: Index of the network within the trial.
        architecture_id: Hash of the architecture; None for a package that no worker has read yet.
        architecture: Content of its ``architecture.json``; None for such a package.
        package: Name of the package's folder under a data root.
        weights: First weights from the trial; None for random ones, and for a package.
        returns: Whether the score goes back to the network of the trial.
    """

    study_id: str | None = None
    study: str | None = None
    number: int | None = None
    position: int | None = None
    architecture_id: str | None = None
    architecture: Mapping[str, Any] | None = None
    package: str | None = None
    weights: Artifact | None = None
    returns: bool = False

    @property
    def text(self) -> str:
        """Text that names the network for people."""
        if self.package is not None:
            return f"package {self.package}"
        return f"{self.study} trial {self.number}" + (f".{self.position}" if self.position else "")


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training.

    Args:
        package: Stored zip of the network, with averaged weights if the recipe averages them.
        last: Stored zip of the network with the last weights, if those of the package are averaged.
        evaluations: Scores of the package, of kind ``retrained``.
        notes: Notes for people, such as a new classifier or missing test images.
    """

    package: Artifact
    last: Artifact | None = None
    evaluations: tuple[Evaluation, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Training:
    """A training, as the store keeps it.

    Args:
        id: UUID of the training.
        source: Network that it starts from.
        definition: Request with all its settings, as
            :meth:`nas.definition.requested_training.RequestedTraining.resolved` returns it.
        recipe: Name of the recipe with its changes, which makes scores comparable.
        data: Data set in words, such as ``digits``.
        model: Name of the model; None for a package that no worker has read yet.
        seed: Seed of the training.
        epochs: Number of epochs in total.
        done: Number of completed epochs.
        state: Present state.
        reason: Reason why it stopped or failed, or why it waits.
        best_top1: Best validation top-1 so far, as a fraction.
        result: Result of a finished training.
        job_id: Id of its newest job.
        created_by: Name of the token that created it; None for a command.
        version: Number that grows with each change.
        created_at: Time of creation in UTC.
        started_at: First start in UTC.
        ended_at: Time of the end in UTC.
        stopping: Whether a stop was requested and its process has not obeyed yet.
    """

    id: str
    source: TrainingSource
    definition: Mapping[str, Any]
    recipe: str
    data: str
    model: str | None
    seed: int
    epochs: int
    done: int = 0
    state: TrainingState = TrainingState.QUEUED
    reason: str | None = None
    best_top1: float | None = None
    result: TrainingResult | None = None
    job_id: str | None = None
    created_by: str | None = None
    version: int = 0
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    stopping: bool = False

    @property
    def folder(self) -> str:
        """URI of its files within the storage."""
        return f"trainings/{self.id}"

    @property
    def package_name(self) -> str:
        """Name of the folder in the zip file of its package."""
        source = self.source
        origin = source.package if source.package is not None else f"{source.study}-trial-{source.number}"
        return f"{origin}-trained-{self.id[:8]}"


@dataclass(frozen=True)
class TrainingQuery:
    """A query for a page of trainings, newest first.

    Args:
        limit: Largest number of trainings.
        after: Mark of the previous page's end.
        states: States of the trainings; empty for all.
        study_id: Study whose trial they start from; None for all.
        number: Number of that trial; None for all.
        architecture: Id of the architecture that they train, or its beginning; None for all.
        recipe: Recipe; None for all.
    """

    limit: int = 100
    after: str | None = None
    states: tuple[TrainingState, ...] = field(default=())
    study_id: str | None = None
    number: int | None = None
    architecture: str | None = None
    recipe: str | None = None
