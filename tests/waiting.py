"""Wait for something that another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_LONGEST_PAUSE = 0.1


def wait_for(condition: Callable[[], T], seconds: float = 240.0) -> T:
    """Return the first value of ``condition`` that is true.

    Args:
        condition: What is asked again and again.
        seconds: Far more than it takes on a loaded machine: whoever waits so long has found a fault.

    Raises:
        AssertionError: If it does not become true in time.
    """
    deadline = time.monotonic() + seconds
    pause = 0.01
    while not (value := condition()):
        assert time.monotonic() < deadline, f"it did not happen within {seconds:g} s"
        time.sleep(pause)
        pause = min(_LONGEST_PAUSE, 1.5 * pause)  # asking costs processor time that what is awaited needs
    return value
