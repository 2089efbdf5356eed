"""Tokens, one-time links and sessions of browsers: creates, finds and revokes them. Only digests are stored."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, func, or_, select
from sqlalchemy.orm import Session, aliased

from nas.errors import ConflictError, NotFoundError
from nas.store.base import Repository
from nas.store.tables import TokenTable
from nas.tokens import (
    ENVIRONMENT_NAME,
    LINK_SECONDS,
    SESSION_SECONDS,
    Scope,
    Token,
    TokenKind,
    check_token_name,
    digest,
    new_secret,
)


class Tokens(Repository):
    """Creates, finds and revokes the secrets that open the service."""

    def create_token(self, name: str, scope: Scope, *, seconds: float | None = None) -> tuple[Token, str]:
        """Create a token.

        Args:
            name: Unique name; that of a revoked token stays taken, since studies name their creators.
            scope: Rights that it gives.
            seconds: Time in seconds until it expires; None for no end.

        Returns:
            Token, and its secret, which cannot be read again.

        Raises:
            InputError: If the name is invalid.
            ConflictError: If the name is taken.
        """
        check_token_name(name)
        with self._write() as session:
            known = session.scalars(select(TokenTable).where(func.lower(TokenTable.name) == name.lower())).first()
            if known is not None:
                state = "and was revoked " if known.revoked_at is not None else ""
                raise ConflictError(f"there is a token named {known.name} {state}already; choose another name")
            return self._new(session, TokenKind.TOKEN, scope, name=name, seconds=seconds)

    def create_link(
        self, scope: Scope = Scope.ADMIN, *, token: str | None = None, seconds: float = LINK_SECONDS
    ) -> str:
        """Create a link, which signs in one browser, and return its secret.

        Args:
            scope: Rights of the browser; ``token`` replaces it.
            token: Name or id of the token in whose name the browser acts.
            seconds: Time in seconds until the link expires.

        Raises:
            NotFoundError: If there is no such token.
            ConflictError: If the token is revoked.
        """
        with self._write() as session:
            self._forget_expired(session)
            parent = None if token is None else self._named(session, token, (TokenKind.TOKEN,))
            if parent is not None and parent.revoked_at is not None:
                raise ConflictError(f"token {parent.name} is revoked: no browser can be signed in with it")
            scope = scope if parent is None else Scope(parent.scope)
            return self._new(session, TokenKind.LINK, scope, parent=parent, seconds=seconds)[1]

    def follow_link(self, secret: str, *, seconds: float = SESSION_SECONDS) -> tuple[Token, str] | None:
        """Replace a link by a session; None if it is unknown, was followed before, or has expired.

        Returns:
            Session and its secret.
        """
        with self._write() as session:
            found = self._valid(session, secret, (TokenKind.LINK,), None, lock=True)
            if found is None:
                return None
            link, parent = found
            scope = Scope(link.scope)
            session.delete(link)
            session.flush()
            return self._new(session, TokenKind.SESSION, scope, parent=parent, seconds=seconds)

    def open_session(self, token: Token, *, seconds: float = SESSION_SECONDS) -> tuple[Token, str]:
        """Open a session in the name of a token; it ends with the token.

        Raises:
            NotFoundError: If the token has vanished.
        """
        with self._write() as session:
            self._forget_expired(session)
            parent = session.get(TokenTable, token.id)
            if parent is None:
                raise NotFoundError(f"there is no token {token.name}")
            return self._new(session, TokenKind.SESSION, Scope(parent.scope), parent=parent, seconds=seconds)

    def environment_token(self, slow: str) -> Token:
        """Return the token that stands for ``NAS_TOKEN``, and record it if it is new.

        Args:
            slow: Slow digest of ``NAS_TOKEN`` (:func:`nas.tokens.slow_digest`).
        """
        with self._write() as session:
            row = session.scalars(select(TokenTable).where(TokenTable.digest == slow)).one_or_none()
            if row is None:
                row = TokenTable(
                    id=str(uuid.uuid4()), name=f"{ENVIRONMENT_NAME}-{slow[:8]}", digest=slow,
                    kind=TokenKind.ENVIRONMENT.value, scope=Scope.ADMIN.value, created_at=self._database.now(session),
                )  # fmt: skip
                session.add(row)
                session.flush()
            return _token_from(row, None)

    def identify(self, secret: str, kind: TokenKind, environment: str | None = None) -> Token | None:
        """Return the token of a secret; None if it is unknown, revoked or expired, or what it began with is.

        Args:
            secret: Secret of a request.
            kind: Kind that it must have.
            environment: Slow digest of the present ``NAS_TOKEN``; sessions of another one have ended.
        """
        with self._read() as session:
            found = self._valid(session, secret, (kind,), environment)
            return None if found is None else _token_from(*found)

    def tokens(self, *, everything: bool = False) -> list[Token]:
        """Return the tokens, newest first, with their numbers of sessions.

        Args:
            everything: Whether sessions, links and ``NAS_TOKEN`` are listed as well.
        """
        parent, child = aliased(TokenTable), aliased(TokenTable)
        with self._read() as session:
            now = self._database.now(session)
            alive = and_(
                child.kind == TokenKind.SESSION.value, child.revoked_at.is_(None), child.expires_at > now
            )
            sessions = select(func.count()).where(child.parent_id == TokenTable.id, alive)
            query = select(TokenTable, parent, sessions.correlate(TokenTable).scalar_subquery()).outerjoin(
                parent, parent.id == TokenTable.parent_id
            )
            if not everything:
                query = query.where(TokenTable.kind == TokenKind.TOKEN.value)
            query = query.order_by(TokenTable.created_at.desc(), TokenTable.name)
            return [_token_from(row, owner, count) for row, owner, count in session.execute(query)]

    def revoke_token(self, reference: str) -> Token:
        """Revoke a token, a link or a session, with all sessions that began with it.

        Args:
            reference: Name, id, or the first 6 or more characters of the id.

        Raises:
            NotFoundError: If nothing matches.
            ConflictError: If it is ``NAS_TOKEN``, which only the environment of the service can change.
        """
        with self._write() as session:
            row = self._named(session, reference, tuple(TokenKind))
            if row.kind == TokenKind.ENVIRONMENT.value:
                raise ConflictError(
                    f"{row.name} stands for NAS_TOKEN: change or remove NAS_TOKEN where the service is started"
                )
            if row.revoked_at is None:
                row.revoked_at = self._database.now(session)
                session.flush()
            parent = None if row.parent_id is None else session.get(TokenTable, row.parent_id)
            return _token_from(row, parent)

    def _new(
        self,
        session: Session,
        kind: TokenKind,
        scope: Scope,
        *,
        name: str | None = None,
        parent: TokenTable | None = None,
        seconds: float | None = None,
    ) -> tuple[Token, str]:
        secret, now, identifier = new_secret(), self._database.now(session), str(uuid.uuid4())
        row = TokenTable(
            id=identifier,
            name=name or f"{kind.value}-{identifier[:8]}",
            digest=digest(secret),
            kind=kind.value,
            scope=Scope(scope).value,
            parent_id=None if parent is None else parent.id,
            created_at=now,
            expires_at=None if seconds is None else now + timedelta(seconds=seconds),
        )
        session.add(row)
        session.flush()
        return _token_from(row, parent), secret

    def _valid(
        self,
        session: Session,
        secret: str,
        kinds: tuple[TokenKind, ...],
        environment: str | None,
        *,
        lock: bool = False,
    ) -> tuple[TokenTable, TokenTable | None] | None:
        query = select(TokenTable).where(
            TokenTable.digest == digest(secret), TokenTable.kind.in_([kind.value for kind in kinds])
        )
        row = session.scalars(query.with_for_update() if lock else query).one_or_none()
        now = self._database.now(session)
        if row is None or _over(row, now):
            return None
        parent = None if row.parent_id is None else session.get(TokenTable, row.parent_id)
        if parent is None:
            return None if row.parent_id is not None else (row, None)
        replaced = parent.kind == TokenKind.ENVIRONMENT.value and parent.digest != environment
        return None if replaced or _over(parent, now) else (row, parent)

    def _named(self, session: Session, reference: str, kinds: tuple[TokenKind, ...]) -> TokenTable:
        same: ColumnElement[bool] = or_(TokenTable.name == reference, TokenTable.id == reference)
        among = TokenTable.kind.in_([kind.value for kind in kinds])
        row = session.scalars(select(TokenTable).where(among, same).with_for_update()).first()
        if row is not None:
            return row
        if len(reference) >= 6 and set(reference) <= set("0123456789abcdef-"):
            rows = session.scalars(select(TokenTable).where(among, TokenTable.id.startswith(reference))).all()
            if len(rows) == 1:
                return rows[0]
        names = session.scalars(select(TokenTable.name).where(among, TokenTable.revoked_at.is_(None)).limit(8)).all()
        known = f"there are {', '.join(sorted(names))}" if names else "there is none yet; nas token create makes one"
        raise NotFoundError(f"there is no token {reference!r}; {known}")

    def _forget_expired(self, session: Session) -> None:
        """Delete sessions and links that have expired; otherwise each sign-in would leave a row for ever."""
        passing = TokenTable.kind.in_([TokenKind.SESSION.value, TokenKind.LINK.value])
        session.execute(delete(TokenTable).where(passing, TokenTable.expires_at < self._database.now(session)))


def _over(row: TokenTable, now: datetime) -> bool:
    return row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now)


def _token_from(row: TokenTable, parent: TokenTable | None, sessions: int = 0) -> Token:
    begun = row if parent is None else parent
    owner = ENVIRONMENT_NAME if begun.kind == TokenKind.ENVIRONMENT.value else begun.name
    return Token(
        id=row.id,
        name=row.name,
        kind=TokenKind(row.kind),
        scope=Scope(row.scope),
        owner=owner,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        sessions=sessions,
    )
