"""``nas token``: creates, lists and revokes the tokens of the service, and prints one-time links."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from nas.commands.options import AsJson, Database, console, note, open_store, plain_table, say, settings_from
from nas.commands.remote import Server, open_client, server_of
from nas.commands.serve import link_query
from nas.formatting import format_moment
from nas.tokens import LINK_SECONDS, Scope, TokenKind
from nas.wire.tokens import NewTokenBody, TokenBody, TokenList, token_from

if TYPE_CHECKING:
    from nas.client import Client
    from nas.store import Store

_DAY = 24 * 3600.0


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the token: whose it is, or what for.")],
    scope: Annotated[
        Scope,
        typer.Option("--scope", help="read: look; write: create studies and change its own; admin: change everything."),
    ] = Scope.READ,
    days: Annotated[
        float | None, typer.Option("--days", metavar="N", min=0.001, max=36500, help="Days until it expires.")
    ] = None,
    database: Database = None,
    as_json: AsJson = False,
    server: Server = None,
) -> None:
    """Create a token and print its secret, which cannot be read again: the database keeps its digest only.

    Scripts send it (NAS_TOKEN, or nas.client.Client), and people enter it on the sign-in page.

    \b
    Examples:
      nas token create alice --scope write
      export NAS_TOKEN=$(nas token create nightly --scope write --days 90)
      nas token create bob --server https://nas.example.org
    """
    with _tokens(server, database, create=True) as source:
        made = source.create_token(name, scope, days=days)
    if as_json:
        print(json.dumps({**made.token.model_dump(mode="json"), "secret": made.secret}, indent=2))
        return
    print(made.secret)
    token = made.token
    until = "" if token.expires_at is None else f" until {format_moment(token.expires_at)}"
    note(f"token {token.name} has the scope {token.scope}{until}; keep its secret, it is not shown again")


def listed(
    everything: Annotated[
        bool, typer.Option("--all", help="List the sessions of browsers and unused links as well.")
    ] = False,
    database: Database = None,
    as_json: AsJson = False,
    server: Server = None,
) -> None:
    """List the tokens, newest first: never their secrets.

    \b
    Examples:
      nas token list
      nas token list --all
    """
    with _tokens(server, database) as source:
        found = source.tokens(everything=everything)
    tokens = found.tokens
    if as_json:
        print(json.dumps(found.model_dump(mode="json"), indent=2))
        return
    if not tokens:
        note("there are no tokens yet; create one: nas token create NAME --scope write")
        return
    table = plain_table("name", "kind", "scope", "state", "sessions", "created", "id", right=["sessions"])
    for token in tokens:
        table.add_row(
            token.name,
            token.kind.value if token.kind is not TokenKind.SESSION else f"session of {token.owner}",
            token.scope.value,
            _state(token),
            str(token.sessions or "-"),
            format_moment(token.created_at),
            token.id[:8],
        )
    console().print(table)


def revoke(
    reference: Annotated[str, typer.Argument(metavar="TOKEN", help="Name, or id (or its beginning).")],
    database: Database = None,
    as_json: AsJson = False,
    server: Server = None,
) -> None:
    """Revoke a token, with all sessions that began with it, or a single session; within a second for running services.

    \b
    Examples:
      nas token revoke alice
      nas token revoke session-1a2b3c4d
    """
    with _tokens(server, database) as source:
        token = source.revoke_token(reference)
    if as_json:
        print(json.dumps(token.model_dump(mode="json"), indent=2))
    else:
        note(f"{token.name} is revoked")


def link(
    token: Annotated[
        str | None, typer.Option("--token", metavar="NAME", help="Token in whose name the browser acts.")
    ] = None,
    scope: Annotated[Scope, typer.Option("--scope", help="What the browser may do, without --token.")] = Scope.ADMIN,
    url: Annotated[
        str, typer.Option("--url", metavar="URL", help="Address of the service.")
    ] = "http://localhost:8000",
    minutes: Annotated[
        float, typer.Option("--minutes", metavar="N", min=0.1, max=24 * 60, help="Minutes until it expires.")
    ] = LINK_SECONDS / 60,
    database: Database = None,
) -> None:
    """Print an address that signs in one browser, once, within minutes.

    \b
    Examples:
      nas token link
      nas token link --token alice --url https://nas.example.org
    """
    with open_store(settings_from(database), create=True) as store:
        secret = store.create_link(scope, token=token, seconds=minutes * 60)
    say(console(), f"{url.rstrip('/')}/{link_query(secret)}")


def _state(token: TokenBody) -> str:
    if token.revoked_at is not None:
        return f"revoked {format_moment(token.revoked_at)}"
    if token.expires_at is None:
        return "valid"
    verb = "expired" if token.expires_at <= datetime.now(UTC) else "valid until"
    return f"{verb} {format_moment(token.expires_at)}"


class _OfDatabase:
    """Answers of the database as those of a service."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create_token(self, name: str, scope: Scope, *, days: float | None = None) -> NewTokenBody:
        token, secret = self._store.create_token(name, scope, seconds=None if days is None else days * _DAY)
        return NewTokenBody(token=token_from(token), secret=secret)

    def tokens(self, *, everything: bool = False) -> TokenList:
        found = tuple(map(token_from, self._store.tokens(everything=everything)))
        return TokenList(tokens=found, count=len(found))

    def revoke_token(self, token: str) -> TokenBody:
        return token_from(self._store.revoke_token(token))


@contextmanager
def _tokens(server: str | None, database: str | None, *, create: bool = False) -> Iterator[Client | _OfDatabase]:
    settings = settings_from(database)
    url = server_of(server, database, settings)
    if url is None:
        with open_store(settings, create=create) as store:
            yield _OfDatabase(store)
        return
    with open_client(url, settings) as client:
        yield client
