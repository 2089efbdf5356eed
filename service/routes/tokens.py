"""Tokens: list, create, revoke; only the scope admin reaches these routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from nas.wire.tokens import NewTokenBody, TokenBody, TokenList, TokenRequest, token_from
from service.api_route import ApiRoute
from service.deps import StoreDep

router = APIRouter(tags=["tokens"], prefix="/tokens", route_class=ApiRoute)


@router.get("")
def list_tokens(
    store: StoreDep,
    everything: Annotated[bool, Query(description="whether sessions and unused links are listed as well")] = False,
) -> TokenList:
    """List the tokens, newest first, without their secrets."""
    found = tuple(map(token_from, store.tokens(everything=everything)))
    return TokenList(tokens=found, count=len(found))


@router.post("", status_code=201)
def create_token(body: TokenRequest, store: StoreDep) -> NewTokenBody:
    """Create a token; the answer alone holds its secret."""
    token, secret = store.create_token(body.name, body.scope, seconds=body.seconds)
    return NewTokenBody(token=token_from(token), secret=secret)


@router.delete("/{token_ref}")
def revoke_token(
    store: StoreDep,
    token_ref: Annotated[str, Path(max_length=100, description="name, id, or the beginning of the id (6 or more)")],
) -> TokenBody:
    """Revoke a token with all sessions that began with it, or one session or link: within a second, and for good."""
    return token_from(store.revoke_token(token_ref))
