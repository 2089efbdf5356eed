"""Messages of pydantic in words that need no knowledge of it. Loads neither torch nor ray."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from nas.errors import as_name

_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "dict_type": "must be a mapping of keys",
        "extra_forbidden": "unknown key",
        "finite_number": "must be a finite number",
        "float_type": "must be a number",
        "int_type": "must be an integer",
        "invalid_key": "a key must be a text",
        "missing": "is missing",
        "model_type": "must be a mapping of keys",
        "string_type": "must be a text",
        "too_long": "must have at most {max_length} entries, not {actual_length}",
        "too_short": "must have at least {min_length} entries, not {actual_length}",
        "tuple_type": "must be a list",
    }
)


def place_of(item: Mapping[str, Any]) -> str:
    """Return the place of a value, as names and numbers with dots between them; empty for the whole."""
    loc = [part for part in item["loc"] if part != "[key]" and not str(part).startswith("(")]
    if loc[-2:-1] and isinstance(loc[-2], int) and isinstance(loc[-1], str):
        loc.pop()  # the type of a union that was tried
    return as_name(".".join(map(str, loc)))


def in_words(item: Mapping[str, Any]) -> str:
    """Return the fault of a value, to follow its name, from one entry of ``ValidationError.errors()``."""
    words = _WORDS.get("invalid_key" if "[key]" in item["loc"] else item["type"])
    if words is not None:
        return words.format(**item.get("ctx", {}))
    message: str = item["msg"]
    return message.removeprefix("Value error, ").replace("Input should", "must", 1)


def first_in_words(error: ValidationError) -> str:
    """Return the first fault in one line: its place, and the fault."""
    item = error.errors()[0]
    return ": ".join(filter(None, (place_of(item), in_words(item))))
