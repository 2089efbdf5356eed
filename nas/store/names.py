"""Names of studies: what they are made of, and which are free."""

from __future__ import annotations

import re

from sqlalchemy import select
from sqlalchemy.orm import Session

from nas.errors import InputError
from nas.store.tables import StudyTable

RESERVED = "latest"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def check_name(name: str) -> str:
    """Return ``name`` if a study can have it.

    Raises:
        InputError: If it has other characters, or is too long.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"a study's name is up to 64 letters, digits, '-' and '_', but got {name!r}")
    return name


def is_taken(session: Session, name: str) -> bool:
    """Return whether a study has ``name``, or it is reserved."""
    taken = session.scalar(select(StudyTable.id).where(StudyTable.name == name))
    return name == RESERVED or taken is not None


def free_name(session: Session, name: str) -> str:
    """Return ``name``, or with the first free number behind it if it is taken."""
    prefix = name.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
    taken = set(session.scalars(select(StudyTable.name).where(StudyTable.name.like(f"{prefix}%", escape="\\"))))
    if name not in taken and name != RESERVED:
        return name
    suffix = 2
    while f"{name}-{suffix}" in taken:
        suffix += 1
    return f"{name}-{suffix}"
