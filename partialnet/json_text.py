"""Strict JSON: a repeated key is refused, of which the standard library silently keeps the last."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: If it is invalid JSON, or an object at any depth has a key twice; the message names the key.
    """
    return json.loads(text, object_pairs_hook=unique_keys)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of ``pairs``: a hook of :mod:`json`.

    Raises:
        ValueError: If a key occurs twice; the message names it.
    """
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} occurs twice in one object; keep one of them")
        found[key] = value
    return found
