"""All faults of a definition at once: checks that concern several keys run although other keys are faulty."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

_STAND_INS: Mapping[str, Any] = MappingProxyType({"name": "unnamed"})
_PLACE = re.compile(r"(?:Value error, )?(?P<key>[a-z_]+)[.:]")


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
