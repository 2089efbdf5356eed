"""What the processes of a training on a cluster and its driver tell each other while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from partialnet.train.loop import EpochProgress

_ASK_SECONDS = 1.0
_TELL_SECONDS = 0.5


@dataclass(frozen=True)
class Message:
    """A message from the first process.

    Args:
        kind: Function of :class:`nas.training.standalone.Watch` that it is for.
        value: Argument of that function: a sentence, an epoch, or the number of steps since the last message.
    """

    kind: Literal["start", "note", "epoch", "steps"]
    value: str | EpochProgress | int


class Mailbox:
    """Messages, the request to stop, and the error that ends a training. Runs as an actor of Ray."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._stop = False
        self._error: BaseException | None = None

    def put(self, message: Message) -> None:
        """Add a message."""
        self._messages.append(message)

    def take(self) -> list[Message]:
        """Return the messages since the last call."""
        taken, self._messages = self._messages, []
        return taken

    def request_stop(self) -> None:
        """Ask the processes to write a checkpoint and stop."""
        self._stop = True

    def stop_requested(self) -> bool:
        """Return whether a stop is requested."""
        return self._stop

    def fail(self, error: BaseException) -> None:
        """Record an error that another start of the processes would meet again; the first one counts."""
        self._error = self._error or error

    def error(self) -> BaseException | None:
        """Return the recorded error."""
        return self._error


class Sender:
    """The first process's end of a mailbox; it seldom waits for an answer.

    Args:
        mailbox: Handle of the actor.
        clock: Function that returns seconds.
    """

    def __init__(self, mailbox: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._mailbox = mailbox
        self._clock = clock
        self._steps = 0
        self._told = self._asked = clock()

    def tell(self, kind: Literal["start", "note", "epoch"], value: str | EpochProgress) -> None:
        """Send a message, after the steps before it."""
        self._send_steps()
        self._mailbox.put.remote(Message(kind, value))

    def step(self) -> None:
        """Count a step; the number is sent twice a second."""
        self._steps += 1
        if self._clock() - self._told >= _TELL_SECONDS:
            self._send_steps()

    def _send_steps(self) -> None:
        if self._steps:
            self._mailbox.put.remote(Message("steps", self._steps))
        self._steps, self._told = 0, self._clock()

    def stop_requested(self) -> bool:
        """Return whether the driver asks for a stop; it is asked once a second."""
        import ray

        if self._clock() - self._asked < _ASK_SECONDS:
            return False
        self._asked = self._clock()
        return bool(ray.get(self._mailbox.stop_requested.remote()))
