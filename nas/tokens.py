"""Access tokens of the service: scopes, secrets and their digests. Loads neither torch nor ray.

A secret holds 256 random bits, so the store keeps a plain SHA-256 of it. A slow hash protects passwords, which can be
guessed; these secrets cannot, and each request has to check one. ``NAS_TOKEN`` may be chosen by a person: the store
keeps a slow hash of it only, and only while a browser is signed in with it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from nas.errors import InputError

ENVIRONMENT_NAME = "NAS_TOKEN"
LINK_SECONDS = 15 * 60.0
SESSION_SECONDS = 14 * 24 * 3600.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
_RESERVED = re.compile(r"nas_token|session-|link-", re.IGNORECASE)


class Scope(StrEnum):
    """What a token allows; each scope includes those before it."""

    READ = "read"
    """Look at everything."""
    WRITE = "write"
    """Create studies, and change one's own."""
    ADMIN = "admin"
    """Change everything."""

    def allows(self, needed: Scope) -> bool:
        """Return whether a token of this scope may do what needs the scope ``needed``."""
        order = list(Scope)
        return order.index(self) >= order.index(needed)


class TokenKind(StrEnum):
    """Kinds of secrets."""

    TOKEN = "token"  # noqa: S105  the name of a kind
    """Created by command; it is sent with each request."""
    LINK = "link"
    """Part of an address; it signs in one browser, once, within minutes."""
    SESSION = "session"
    """Cookie of a browser that is signed in."""
    ENVIRONMENT = "environment"
    """``NAS_TOKEN``, the parent of the sessions that began with it."""


@dataclass(frozen=True)
class Token:
    """A token as the store knows it, without its secret.

    Args:
        id: UUID of the token.
        name: Unique name; sessions and links are named after their ids.
        kind: Kind of the secret.
        scope: Rights that it gives.
        owner: Name that studies record as their creator: that of the token which a session began with.
        created_at: Creation in UTC.
        expires_at: End of its validity in UTC; None for no end.
        revoked_at: Revocation in UTC; None for one that was not revoked.
        sessions: Number of browsers that are signed in with it.
    """

    id: str
    name: str
    kind: TokenKind
    scope: Scope
    owner: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    sessions: int = 0


def new_secret() -> str:
    """Return a new secret of 256 random bits; its prefix lets scanners of source code recognise it."""
    return f"nas_{secrets.token_urlsafe(32)}"


def digest(secret: str) -> str:
    """Return what the store keeps of a random secret."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


@lru_cache(maxsize=2)  # a process has one NAS_TOKEN, and asks at each sign-in
def slow_digest(secret: str) -> str:
    """Return what the store keeps of a secret that a person may have chosen; takes about 50 ms."""
    salt = b"nas environment token"  # one for all, since all processes must find the same row
    return hashlib.scrypt(secret.encode("utf-8", "replace"), salt=salt, n=2**14, r=8, p=1, dklen=32).hex()


def check_token_name(name: str) -> str:
    """Return ``name`` if a token may have it.

    Raises:
        InputError: If it has other characters, is too long, or looks like the name of a session.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"a token's name is up to 64 letters, digits and '_ . @ -', but got {name!r}")
    if _RESERVED.match(name):
        raise InputError(f"a token cannot be named {name!r}: session-..., link-... and NAS_TOKEN have a meaning")
    return name
