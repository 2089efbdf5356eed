"""Strict JSON in texts and files: a repeated key is refused, of which the standard library silently keeps the last."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from partialnet.files import whole_file


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text; bytes may be in UTF-8, UTF-16 or UTF-32, as :mod:`json` takes them.

    Raises:
        ValueError: If it is invalid JSON, or an object at any depth has a key twice; the message names the key.
    """
    return json.loads(text, object_pairs_hook=unique_keys)


def read_json(path: Path, fault: Callable[[str], Exception]) -> Any:
    """Return the value of a JSON file.

    Args:
        path: Path of the file.
        fault: Function that makes the error to raise from a message, which names the file; for a file that cannot be
            read or is invalid JSON.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise fault(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise fault(f"{path}: is not JSON ({error})") from error


def write_json(value: Any, path: Path) -> None:
    """Write a JSON file for people and programs, whole or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    with whole_file(path) as fresh:
        fresh.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


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
