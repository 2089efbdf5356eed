"""Marks of where a page ended, as text for addresses: the next page begins behind them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

from nas.errors import InputError

_TOO_LARGE = 2**63  # for a column of either database


def encode_mark(values: Sequence[Any]) -> str:
    """Return the mark of JSON values."""
    text = json.dumps(list(values), separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_mark(mark: str) -> list[Any]:
    """Return the values of a mark.

    Raises:
        InputError: If it is damaged.
    """
    try:
        text = base64.b64decode(mark + "=" * (-len(mark) % 4), altchars=b"-_", validate=True)
        values = json.loads(text)
    except (binascii.Error, ValueError, RecursionError):
        raise damaged(mark) from None
    if not isinstance(values, list) or any(isinstance(value, int) and abs(value) >= _TOO_LARGE for value in values):
        raise damaged(mark)
    return values


def decode_place(mark: str) -> tuple[int, str]:
    """Return number and id of the entry that a page ended with.

    Raises:
        InputError: If the mark is damaged.
    """
    match decode_mark(mark):
        case [int(number), str(identifier)] if not isinstance(number, bool) and "\x00" not in identifier:
            return number, identifier
    raise damaged(mark)


def damaged(mark: str) -> InputError:
    """Return the error of a damaged mark."""
    return InputError(f"after: {mark[:40]!r} is not the mark of a page; use the one that a page ended with")
