"""What may be done with a study: one table of state and action. No torch, no ray.

The store asks it inside its transactions; routes, pages and commands ask it before they offer or start something.

Life of a study::

    queued -> running -> finished | failed | stopped
      ^          |                     |        |
      |          '-> paused            |        |
      '--------------'-----------------'--------'   (resumed)

A study that runs reads as ``interrupted`` when the lease of its search has expired.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from nas.errors import ConflictError
from nas.jobs import DesiredState
from nas.study import StudyState


class Action(StrEnum):
    """What somebody wants of a study."""

    QUEUE = "queue"
    """Queue the search of a study that no job stands for yet."""
    RESUME = "resume"
    """Queue the search of an interrupted study again."""
    RUN = "run"
    """Search in the process at hand, whether a job waits for a worker or not."""
    STOP = "stop"
    """End the search; what has not ended can go on later."""


@dataclass(frozen=True)
class Step:
    """What an allowed action leads to.

    Args:
        state: State of the study afterwards; of a search under way once it has put its trials back.
        desired: What its job is to do.
    """

    state: StudyState
    desired: DesiredState


@dataclass(frozen=True)
class Refusal:
    """Why an action makes no sense: what follows on "study NAME is STATE"; ``{name}`` stands for the name."""

    reason: str


_Row = Mapping[Action, Step | Refusal]
_WAITS = Step(StudyState.QUEUED, DesiredState.RUNNING)
_RUNS = Step(StudyState.RUNNING, DesiredState.RUNNING)
_STOPS = Step(StudyState.STOPPED, DesiredState.STOPPED)
_DONE = Refusal("; see `nas pareto {name}`")
_BUSY = Refusal(": only a stopped or failed one without a search can go on")
_TAKEN_UP = Refusal(": the next worker goes on with it by itself")
NO_SEARCH = Refusal(": there is no search to stop")


def _row(*, queue: Step | Refusal, resume: Step | Refusal, run: Step | Refusal, stop: Step | Refusal) -> _Row:
    return MappingProxyType({Action.QUEUE: queue, Action.RESUME: resume, Action.RUN: run, Action.STOP: stop})


TABLE: Mapping[StudyState, _Row] = MappingProxyType(
    {
        StudyState.QUEUED: _row(queue=_WAITS, resume=_BUSY, run=_RUNS, stop=_STOPS),
        StudyState.RUNNING: _row(queue=_WAITS, resume=_BUSY, run=_RUNS, stop=_STOPS),
        StudyState.INTERRUPTED: _row(queue=_TAKEN_UP, resume=_TAKEN_UP, run=_RUNS, stop=_STOPS),
        StudyState.PAUSED: _row(queue=_WAITS, resume=_WAITS, run=_RUNS, stop=NO_SEARCH),
        StudyState.STOPPED: _row(queue=_WAITS, resume=_WAITS, run=_RUNS, stop=NO_SEARCH),
        StudyState.FAILED: _row(queue=_WAITS, resume=_WAITS, run=_RUNS, stop=NO_SEARCH),
        StudyState.FINISHED: _row(queue=_DONE, resume=_DONE, run=_DONE, stop=NO_SEARCH),
    }
)
_OPEN = (StudyState.QUEUED, StudyState.RUNNING, StudyState.PAUSED)


def allows(state: StudyState, action: Action) -> bool:
    """Return whether ``action`` makes sense for a study in ``state``."""
    return isinstance(TABLE[state][action], Step)


def take(name: str, state: StudyState, action: Action) -> Step:
    """Return what ``action`` leads to.

    Args:
        name: Name of the study.
        state: Where the study stands.
        action: What is wanted.

    Raises:
        ConflictError: If it makes no sense; says why.
    """
    step = TABLE[state][action]
    if isinstance(step, Refusal):
        raise refused(name, state, step)
    return step


def refused(name: str, state: StudyState, refusal: Refusal) -> ConflictError:
    """Return the error that says why an action makes no sense."""
    return ConflictError(f"study {name} is {state.value}{refusal.reason.format(name=name)}")


def standing(state: StudyState, *, held: bool) -> StudyState:
    """Return where a study stands whose search a process may hold, which says so in the study a little later."""
    return StudyState.RUNNING if held and state is not StudyState.FINISHED else state


def follows_job(state: StudyState, after: StudyState) -> bool:
    """Return whether a study in ``state`` goes to ``after`` with its job; one that ended by itself stays as it is."""
    given_back = after is StudyState.QUEUED and state is StudyState.STOPPED
    return state in _OPEN or given_back
