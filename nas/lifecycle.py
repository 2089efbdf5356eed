"""The actions that a study allows: one table of state and action. Loads neither torch nor ray.

The store asks it inside its transactions; routes, pages and commands ask it before they offer or start something.

Life of a study::

    queued -> running -> finished | failed | stopped
      ^          |                     |        |
      |          '-> paused            |        |
      '--------------'-----------------'--------'   (resumed)

A fault that concerns all trials (a full disk, damaged data) pauses a study, with the fault as its reason. An ended
study whose failed trials are to run again is ``stopped`` until its search resumes. A study that runs reads as
``interrupted`` when the lease of its search has expired.
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
    """Actions on a study."""

    QUEUE = "queue"
    """Queue the search of a study that has no job yet."""
    RESUME = "resume"
    """Queue the search of an interrupted study again."""
    RETRY = "retry"
    """Put the failed trials back, so that the next search runs them again."""
    RUN = "run"
    """Search in the present process, whether or not a job waits for a worker."""
    STOP = "stop"
    """End the search; unfinished trials can be resumed later."""


@dataclass(frozen=True)
class Step:
    """The result of an allowed action.

    Args:
        state: State of the study afterwards; for a running search, the state after its trials have been put back.
        desired: Desired state of its job.
    """

    state: StudyState
    desired: DesiredState


@dataclass(frozen=True)
class Refusal:
    """Reason of a refused action, which continues "study NAME is STATE"; ``{name}`` stands for the name."""

    reason: str


_Row = Mapping[Action, Step | Refusal]
_WAITS = Step(StudyState.QUEUED, DesiredState.RUNNING)
_RUNS = Step(StudyState.RUNNING, DesiredState.RUNNING)
_STOPS = Step(StudyState.STOPPED, DesiredState.STOPPED)
_DONE = Refusal("; see `nas pareto {name}`")
_BUSY = Refusal(": only a stopped or failed one without a search can resume")
_UNRUN = Step(StudyState.STOPPED, DesiredState.RUNNING)
_SEARCHED = Refusal(": its failed trials can run again when the search has ended or paused")
_TAKEN_UP = Refusal(": the next worker continues it by itself")
NO_SEARCH = Refusal(": there is no search to stop")


def _row(
    *, queue: Step | Refusal, resume: Step | Refusal, retry: Step | Refusal, run: Step | Refusal, stop: Step | Refusal
) -> _Row:
    actions = {Action.QUEUE: queue, Action.RESUME: resume, Action.RETRY: retry, Action.RUN: run, Action.STOP: stop}
    return MappingProxyType(actions)


TABLE: Mapping[StudyState, _Row] = MappingProxyType(
    {
        StudyState.QUEUED: _row(queue=_WAITS, resume=_BUSY, retry=_WAITS, run=_RUNS, stop=_STOPS),
        StudyState.RUNNING: _row(queue=_WAITS, resume=_BUSY, retry=_SEARCHED, run=_RUNS, stop=_STOPS),
        StudyState.INTERRUPTED: _row(queue=_TAKEN_UP, resume=_TAKEN_UP, retry=_RUNS, run=_RUNS, stop=_STOPS),
        StudyState.PAUSED: _row(queue=_WAITS, resume=_WAITS, retry=_UNRUN, run=_RUNS, stop=_STOPS),
        StudyState.STOPPED: _row(queue=_WAITS, resume=_WAITS, retry=_UNRUN, run=_RUNS, stop=NO_SEARCH),
        StudyState.FAILED: _row(queue=_WAITS, resume=_WAITS, retry=_UNRUN, run=_RUNS, stop=NO_SEARCH),
        StudyState.FINISHED: _row(queue=_DONE, resume=_DONE, retry=_UNRUN, run=_DONE, stop=NO_SEARCH),
    }
)
_OPEN = (StudyState.QUEUED, StudyState.RUNNING, StudyState.INTERRUPTED, StudyState.PAUSED)


def allows(state: StudyState, action: Action) -> bool:
    """Return whether a study in ``state`` allows ``action``."""
    return isinstance(TABLE[state][action], Step)


def take(name: str, state: StudyState, action: Action) -> Step:
    """Return the result of ``action``.

    Args:
        name: Name of the study.
        state: Present state of the study.
        action: Requested action.

    Raises:
        ConflictError: If the state forbids it; the message says why.
    """
    step = TABLE[state][action]
    if isinstance(step, Refusal):
        raise refused(name, state, step)
    return step


def refused(name: str, state: StudyState, refusal: Refusal) -> ConflictError:
    """Return the error that explains why an action is refused."""
    return ConflictError(f"study {name} is {state.value}{refusal.reason.format(name=name)}")


def standing(state: StudyState, *, held: bool) -> StudyState:
    """Return the state of a study whose search a process may hold; the study itself shows that a little later."""
    return StudyState.RUNNING if held and state is not StudyState.FINISHED else state


def follows_job(state: StudyState, after: StudyState) -> bool:
    """Return whether a study in ``state`` follows its job to ``after``; one that ended by itself does not."""
    given_back = after is StudyState.QUEUED and state is StudyState.STOPPED
    return state in _OPEN or given_back
