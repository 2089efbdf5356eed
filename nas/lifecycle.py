"""The actions that a study allows: one table of state and action. Loads neither torch nor ray.

The store asks it inside its transactions; routes, pages and commands ask it before they offer or start something.

Life of a study::

    queued -> running -> finished | failed | stopped
      ^          |            |        |
      |          '-> paused   |        |
      '--------------'--------'--------'   (resumed; a finished one is extended)

A request, a signal (Ctrl-C) or a fault that concerns all trials (a full disk, damaged data) pauses a study, with the
reason beside it: its trials wait with their checkpoints. A stop ends it for good, with all of its trials. An ended
study whose failed trials are to run again is ``paused`` until its search resumes. A study that runs reads as
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
    PAUSE = "pause"
    """Pause the search; its unfinished trials wait with their checkpoints."""
    STOP = "stop"
    """End the search for good, and its unfinished trials with it."""
    EXTEND = "extend"
    """Add search trials to the plan, and queue the search."""


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
_PAUSES = Step(StudyState.PAUSED, DesiredState.PAUSED)
_STOPS = Step(StudyState.STOPPED, DesiredState.STOPPED)
_UNRUN = Step(StudyState.PAUSED, DesiredState.RUNNING)
_DONE = Refusal("; see `nas pareto {name}`")
_BUSY = Refusal(": only a paused or failed one without a search can resume")
_SEARCHED = Refusal(": its failed trials can run again when the search has ended or paused")
_TAKEN_UP = Refusal(": the next worker continues it by itself")
_ENDED = Refusal(": it was ended for good; its definition can be launched again")
_GOES_ON = Refusal(": trials can be added when its search has ended or paused")
NO_SEARCH = Refusal(": there is no search to stop")
NO_PAUSE = Refusal(": there is no search to pause")

_ACTIONS = (Action.QUEUE, Action.RESUME, Action.RETRY, Action.RUN, Action.PAUSE, Action.STOP, Action.EXTEND)


def _row(*steps: Step | Refusal) -> _Row:
    return MappingProxyType(dict(zip(_ACTIONS, steps, strict=True)))


TABLE: Mapping[StudyState, _Row] = MappingProxyType(
    {  # in the order of _ACTIONS: queue, resume, retry, run, pause, stop, extend
        StudyState.QUEUED: _row(_WAITS, _BUSY, _WAITS, _RUNS, _PAUSES, _STOPS, _GOES_ON),
        StudyState.RUNNING: _row(_WAITS, _BUSY, _SEARCHED, _RUNS, _PAUSES, _STOPS, _GOES_ON),
        StudyState.INTERRUPTED: _row(_TAKEN_UP, _TAKEN_UP, _RUNS, _RUNS, _PAUSES, _STOPS, _GOES_ON),
        StudyState.PAUSED: _row(_WAITS, _WAITS, _UNRUN, _RUNS, NO_PAUSE, _STOPS, _WAITS),
        StudyState.FAILED: _row(_WAITS, _WAITS, _UNRUN, _RUNS, NO_PAUSE, NO_SEARCH, _WAITS),
        StudyState.FINISHED: _row(_DONE, _DONE, _UNRUN, _DONE, NO_PAUSE, NO_SEARCH, _WAITS),
        StudyState.STOPPED: _row(_ENDED, _ENDED, _ENDED, _ENDED, NO_PAUSE, NO_SEARCH, _ENDED),
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


def follows_job(state: StudyState) -> bool:
    """Return whether a study in ``state`` follows its job to another state; one that ended by itself does not."""
    return state in _OPEN
