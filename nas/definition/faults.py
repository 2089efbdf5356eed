"""All faults of a definition at once: checks that concern several keys run although other keys are faulty."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import ValidationError

from nas.definition.model import WEIGHTS
from nas.definition.sections import FOLDER
from nas.definition.words import in_words, place_of

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
"""Pattern of the name of a study."""
_CHARACTERS: Mapping[str, str] = MappingProxyType(
    {
        WEIGHTS: "letters, digits, '-', '_' and '.', end with .safetensors, .pt, .pth or .bin",
        NAME: "at most 64 letters, digits, '-' and '_'", FOLDER: "letters, digits, '-', '_' and '.'",
    }
)
_STAND_INS: Mapping[str, Any] = MappingProxyType({"name": "unnamed"})
_PLACE = re.compile(r"(?:Value error, )?(?P<key>[a-z_]+)[.:]")
_PLACE_OF_TEXT = re.compile(r"(?P<key>[a-z_]+(?:\.[A-Za-z0-9_]+)*): (?P<rest>.*)", re.DOTALL)


class Fault(NamedTuple):
    """A fault of a definition."""

    key: str
    """Place in the definition, as names and numbers with dots between them; empty for the whole."""
    text: str
    """Statement of what is wrong, with the value, and of what would be right."""

    def __str__(self) -> str:
        return f"{self.key}: {self.text}" if self.key else self.text


def read_fault(line: str) -> Fault:
    """Return a fault from its line, which begins with its place if it has one."""
    found = _PLACE_OF_TEXT.fullmatch(line)
    return Fault("", line) if found is None else Fault(found["key"], found["rest"])


def described(items: Sequence[Mapping[str, Any]]) -> list[Fault]:
    """Return faults in words that need no knowledge of pydantic, from entries of ``ValidationError.errors()``."""
    found = []
    places = {item["loc"][:-1] for item in items}
    for item in items:
        if item["type"] == "too_short" and item["loc"] in places:
            continue  # only because its entries are wrong, which is said anyway
        text = in_words(item)
        value = item.get("input")
        if item["type"] == "string_pattern_mismatch":
            text = f"must consist of {_CHARACTERS[item['ctx']['pattern']]}, and begin with a letter or a digit"
        if item["type"] == "extra_forbidden":
            value = None
        shown = f" (got {value!r})" if isinstance(value, (str, int, float, bool)) else ""
        where = place_of(item)
        found.append(Fault(where, f"{text}{shown}") if where else read_fault(f"{text}{shown}"))
    return found


def all_faults(
    validate: Callable[[dict[str, Any]], object], data: Mapping[str, Any], found: ValidationError
) -> list[Mapping[str, Any]]:
    """Return the entries of ``ValidationError.errors()`` for all faults of a definition.

    A check of several keys does not run while one of the keys is faulty, and the first fault of such a check hides
    those of later ones. So what is faulty is left out, and the rest is checked again, as long as faults come up. A
    fault that names a key which was left out may be a consequence, and does not count.

    Args:
        validate: Function that checks a definition.
        data: Faulty definition.
        found: Faults of the first check.
    """
    faults: list[Mapping[str, Any]] = list(found.errors())
    left_out: set[str] = set()
    new = faults
    while True:
        keys = {key for item in new if (key := _key(item)) is not None} - left_out
        if not keys or "data" in keys | left_out:  # a study without data has nothing to compare with
            return faults
        left_out |= keys
        rest = {key: value for key, value in data.items() if key not in left_out}
        rest |= {key: value for key, value in _STAND_INS.items() if key in left_out}
        try:
            validate(rest)
        except ValidationError as error:
            new = [item for item in error.errors() if not _names(item, left_out)]
            faults += new
        else:
            return faults


def _key(item: Mapping[str, Any]) -> str | None:
    """Return the key of a definition that a fault is about."""
    if item["loc"]:
        return str(item["loc"][0])
    place = _PLACE.match(item["msg"])
    return None if place is None else place["key"]


def _names(item: Mapping[str, Any], keys: set[str]) -> bool:
    words = set(re.findall(r"[a-z_]+", item["msg"])) | set(map(str, item["loc"]))
    return not words.isdisjoint(keys)
