"""Bodies of tokens: those of a list, the request for a new one, its secret. Loads neither torch nor ray."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field

from nas.tokens import Scope, Token, TokenKind
from nas.wire.bodies import Body

MOST_DAYS = 36500


class TokenRequest(BaseModel):
    """Request for a new token.

    Args:
        name: Name of the token: whose it is, or what for.
        scope: Rights that it gives.
        days: Days until it expires; absent for no end.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=200)
    scope: Scope = Scope.READ
    days: float | None = Field(None, ge=0.001, le=MOST_DAYS, allow_inf_nan=False)

    @property
    def seconds(self) -> float | None:
        """Seconds until it expires."""
        return None if self.days is None else self.days * 24 * 3600.0


class TokenBody(Body):
    """A token, a session of a browser, or an unused link; never its secret.

    Args:
        kind: Kind of the secret: ``token``, ``session``, ``link`` or ``environment``.
        scope: Rights that it gives.
        owner: Name that studies record as their creator.
        sessions: Number of browsers that are signed in with it.
        valid: Whether it opens the service now.
    """

    id: str
    name: str
    kind: TokenKind
    scope: Scope
    owner: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    sessions: int
    valid: bool


class TokenList(Body):
    """Tokens, the newest first."""

    tokens: tuple[TokenBody, ...]
    count: int


class NewTokenBody(Body):
    """A new token.

    Args:
        secret: Secret of the token, which cannot be read again.
    """

    token: TokenBody
    secret: str


def token_from(token: Token) -> TokenBody:
    """Build the body of a token."""
    ended = token.expires_at is not None and token.expires_at <= datetime.now(UTC)
    return TokenBody(**vars(token), valid=token.revoked_at is None and not ended)
