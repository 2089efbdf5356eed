"""A clock for probes that only a test moves: what they measure is then known exactly, on a loaded machine too."""

from __future__ import annotations

import time

import pytest


class Clock:
    """Stands for ``time.perf_counter_ns``."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def __deepcopy__(self, _: object) -> Clock:
        return self  # copies of a network that moves it move the same one

    def advance(self, ms: float) -> None:
        """Let ``ms`` milliseconds pass."""
        self.now += round(ms * 1e6)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which probes measure in this test."""
    made = Clock()
    monkeypatch.setattr(time, "perf_counter_ns", made)
    return made
