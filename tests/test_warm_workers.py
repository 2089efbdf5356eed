"""Forks of the warm process are workers of their own."""

from __future__ import annotations

import os

import pytest

from tests.warm_workers import draw_own_identities

pytestmark = pytest.mark.ray


def identity(number: int) -> bytes:
    """Return the identity of the first object of a fork with this number."""
    from ray._raylet import ObjectID

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            draw_own_identities(number)
            os.write(writing, ObjectID.from_random().binary())
            os._exit(0)
        finally:  # else a second pytest would go on
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        return stream.read()


def test_forks_draw_different_identities() -> None:
    from ray._raylet import UniqueID

    UniqueID.from_random()  # the generator has a state, which forks inherit
    assert identity(1) == identity(1)  # so this is what the number must change
    assert len({identity(number) for number in range(1, 5)}) == 4
