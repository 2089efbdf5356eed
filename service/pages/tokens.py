"""The page of the tokens, for the scope admin: list, create, revoke."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from nas.definition.words import first_in_words
from nas.errors import NasError
from nas.store import Store
from nas.tokens import Scope, TokenKind
from nas.wire.tokens import TokenRequest, token_from
from service.auth import read_form, too_long
from service.deps import StoreDep
from service.errors import status_of
from service.pages.rendering import render
from service.root_path import root_of

router = APIRouter(include_in_schema=False, default_response_class=Response)


@router.get("/tokens")
def tokens_page(request: Request, store: StoreDep) -> Response:
    """All tokens and sessions, and a form that creates a token."""
    return _page(request, store, {})


@router.post("/tokens")
async def create(request: Request, store: StoreDep) -> Response:
    """Create a token, and show its secret: the only time that it can be read."""
    fields = await read_form(request)
    if fields is None:
        return too_long(request)
    return await run_in_threadpool(_created, request, store, fields)


def _created(request: Request, store: Store, fields: dict[str, str]) -> Response:
    given = {name: fields[name].strip() for name in ("name", "scope", "days") if fields.get(name, "").strip()}
    try:
        asked = TokenRequest.model_validate({"name": "", **given})
        token, secret = store.create_token(asked.name, asked.scope, seconds=asked.seconds)
    except ValidationError as error:
        return _page(request, store, {"fault": first_in_words(error), "given": given}, 400)
    except NasError as error:
        return _page(request, store, {"fault": str(error), "given": given}, status_of(error))
    return _page(request, store, {"made": token_from(token), "secret": secret}, 201)


@router.post("/tokens/{token_id}/revoke")
def revoke(request: Request, token_id: str, store: StoreDep) -> Response:
    """Revoke a token, and show the list."""
    try:
        store.revoke_token(token_id)
    except NasError as error:
        return _page(request, store, {"fault": str(error)}, status_of(error))
    return RedirectResponse(f"{root_of(request.scope)}/tokens", 303)


def _page(request: Request, store: Store, told: dict[str, Any], status: int = 200) -> Response:
    found = [token_from(token) for token in store.tokens(everything=True)]
    context = {
        "tokens": [token for token in found if token.kind in (TokenKind.TOKEN, TokenKind.ENVIRONMENT)],
        "browsers": [token for token in found if token.valid and token.kind is TokenKind.SESSION],
        "links": sum(token.valid and token.kind is TokenKind.LINK for token in found),
        "scopes": list(Scope),
        **told,
    }
    response = render(request, "tokens.html", context)
    response.status_code = status
    return response
