"""Searches for garbage in the process of a command."""

from __future__ import annotations

import gc

_NEW_OBJECTS = 50_000
_SEARCHES_OF_NEW_ONES = 500


def search_rarely() -> None:
    """Let Python search new objects for garbage as usual, and all objects only once for 25 million new ones.

    A command loads two million objects, which stay. Python would search all of them eight times meanwhile, which takes
    a second of processor time. Most garbage needs no search: it is freed when nothing refers to it.
    """
    gc.set_threshold(_NEW_OBJECTS, _SEARCHES_OF_NEW_ONES, 2)
