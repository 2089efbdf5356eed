"""What all tests share: one thread a process, hypothesis without deadlines, and what is quick to fail first."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# Networks here are tiny: two threads wait for each other longer than they work, on a loaded machine several times as
# long. Read when torch is loaded, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A loaded machine makes single examples slow; a deadline would fail them at random.
settings.register_profile("default", deadline=None, max_examples=50)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

LATE = ("browser", "postgres", "ray", "slow")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what is quick first, so that a failure shows early."""
    items.sort(key=lambda item: max((1 + LATE.index(m.name) for m in item.iter_markers() if m.name in LATE), default=0))
