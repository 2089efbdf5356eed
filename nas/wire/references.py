"""Names of networks across studies: ``STUDY:TRIAL``, or ``STUDY:TRIAL.NETWORK``. Loads neither torch nor ray."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Self

from nas.errors import InputError

FEWEST, MOST = 2, 8
"""Numbers of networks that can be compared side by side."""
_REFERENCE = re.compile(r"(?P<study>[^:]{1,100}):(?P<number>\d{1,9})(?:\.(?P<position>\d{1,6}))?")


class NetworkRef(NamedTuple):
    """A network of a trial of a study.

    Args:
        study: Id or name of the study.
        number: Number of the trial.
        position: Index of the network within the trial; None if it has only one.
    """

    study: str
    number: int
    position: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the reference of a text such as ``digits:12`` or ``digits:0.3``.

        Raises:
            InputError: If it is invalid.
        """
        found = _REFERENCE.fullmatch(text.strip())
        if found is None:
            raise InputError(
                f"trial: {text[:80]!r} names no trial; give STUDY:NUMBER, or STUDY:NUMBER.NETWORK for one of several "
                "networks, such as digits:12 or digits:0.3"
            )
        position = found["position"]
        return cls(found["study"], int(found["number"]), None if position is None else int(position))

    @property
    def name(self) -> str:
        """Name within the study: ``12``, or ``0.3``."""
        return str(self.number) if self.position is None else f"{self.number}.{self.position}"

    def __str__(self) -> str:
        return f"{self.study}:{self.name}"


def parse_references(texts: Sequence[str]) -> tuple[NetworkRef, ...]:
    """Return the references of a comparison.

    Raises:
        InputError: If one is invalid or given twice, or there are too few or too many.
    """
    found = tuple(NetworkRef.parse(text) for text in texts)
    if not FEWEST <= len(found) <= MOST:
        raise InputError(f"trial: {FEWEST} to {MOST} trials can be compared, but {len(found)} are given")
    twice = next((ref for ref in found if found.count(ref) > 1), None)
    if twice is not None:
        raise InputError(f"trial: {twice} is given twice")
    return found
