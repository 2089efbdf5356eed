"""Who sends a request: the tokens and sessions of the store, and ``NAS_TOKEN``."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from nas.store import Store
from nas.store.database import parse_url, sqlite_path
from nas.tokens import ENVIRONMENT_NAME, Scope, Token, TokenKind, digest, slow_digest

_KNOWN = 1000


@dataclass(frozen=True)
class Identity:
    """The sender of a request.

    Args:
        name: Name of its token, which studies record as their creator.
        scope: Rights of the sender.
        session: Id of the session of a browser; None for a token.
    """

    name: str
    scope: Scope
    session: str | None = None


class Identities:
    """Finds the sender of a request by its secret; an answer of the store is good for a second.

    Args:
        environment: ``NAS_TOKEN``; None if it is not set.
        database_url: URL of the store: the cookies of two services on one host need different names.
        clock: Clock in seconds.

    Attributes:
        fresh_seconds: Time in seconds for which an answer of the store is good; revocation takes no longer.
    """

    fresh_seconds = 1.0

    def __init__(
        self, environment: str | None, database_url: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._environment = environment
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Token]] = OrderedDict()
        path = sqlite_path(parse_url(database_url))
        place = database_url if path is None else str(Path(path).absolute())
        self.cookie_name = f"nas_{hashlib.sha256(place.encode()).hexdigest()[:12]}"

    @property
    def slow(self) -> str | None:
        """Slow digest of ``NAS_TOKEN``."""
        return None if self._environment is None else slow_digest(self._environment)

    def is_environment(self, secret: str) -> bool:
        """Return whether ``secret`` is ``NAS_TOKEN``; takes the same time for all secrets of one length."""
        known = self._environment
        return known is not None and hmac.compare_digest(secret.encode("utf-8", "replace"), known.encode())

    async def of_token(self, store: Store, secret: str) -> Identity | None:
        """Return the identity of a token; None for a wrong one."""
        if self.is_environment(secret):
            return Identity(ENVIRONMENT_NAME, Scope.ADMIN)
        found = await self._find(store, secret, TokenKind.TOKEN)
        return None if found is None else Identity(found.owner, found.scope)

    async def of_cookie(self, store: Store, secret: str) -> Identity | None:
        """Return the identity of a browser's session; None if there is none or it has ended."""
        found = await self._find(store, secret, TokenKind.SESSION)
        return None if found is None else Identity(found.owner, found.scope, found.id)

    async def _find(self, store: Store, secret: str, kind: TokenKind) -> Token | None:
        key = digest(secret)
        entry = self._known.get(key)
        if entry is not None and self._clock() - entry[0] < self.fresh_seconds:
            return entry[1] if entry[1].kind is kind else None
        found = await run_in_threadpool(self._identify, store, secret, kind)
        self._known.pop(key, None)
        if found is not None:
            self._known[key] = (self._clock(), found)
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        return found

    def _identify(self, store: Store, secret: str, kind: TokenKind) -> Token | None:
        return store.identify(secret, kind, self.slow if kind is TokenKind.SESSION else None)

    async def sign_in(self, store: Store, secret: str) -> str | None:
        """Open a session for a browser whose user entered a token; return its secret, None for a wrong token."""
        return await run_in_threadpool(self._sign_in, store, secret)

    def _sign_in(self, store: Store, secret: str) -> str | None:
        if self.is_environment(secret):
            assert self.slow is not None
            return store.open_session(store.environment_token(self.slow))[1]
        token = store.identify(secret, TokenKind.TOKEN)
        return None if token is None else store.open_session(token)[1]

    async def follow(self, store: Store, secret: str) -> str | None:
        """Replace a one-time link by a session; return its secret, None if the link is not valid (any more)."""
        found = await run_in_threadpool(store.follow_link, secret)
        return None if found is None else found[1]

    async def sign_out(self, store: Store, secret: str) -> None:
        """End the session of a cookie."""
        identity = await self.of_cookie(store, secret)
        if identity is not None and identity.session is not None:
            self._known.pop(digest(secret), None)
            await run_in_threadpool(store.revoke_token, identity.session)
