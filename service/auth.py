"""Access: tokens with scopes, sessions of browsers, and checks against requests from other sites.

The API accepts ``Authorization: Bearer ...`` or the cookie of a session. Pages accept a one-time link (``?link=...``),
which becomes a session, or a token entered in the form of the sign-in page. A cookie holds a random secret of its own,
so that it can end without the token. Middleware checks the scope of each request by its method, so no route can forget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, TypeVar
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from nas.errors import ForbiddenError, StoreError
from nas.store import Store
from nas.tokens import SESSION_SECONDS, digest
from nas.tokens import Scope as TokenScope
from service.errors import error_response, is_api, status_of
from service.guesses import Guesses
from service.head import is_head
from service.identity import Identities, Identity
from service.limits import Rates
from service.root_path import path_within, root_of
from service.settings import ServiceSettings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
PROBES = frozenset({"/api/v1/healthz", "/api/v1/readyz"})
PUBLIC = PROBES | {"/login"}
OF_ADMINS = ("/api/v1/tokens", "/tokens")
"""Paths that, with all below them, only the scope admin reaches, by any method."""
FORM_BYTES = 4096
_TOO_MANY = "too many wrong tokens from this address are being checked; try again in some seconds"
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Access:
    """Refuses requests under foreign host names, without a token, beyond its scope, or from a page of another site."""

    def __init__(self, app: ASGIApp, *, identities: Identities, settings: ServiceSettings) -> None:
        self.app = app
        self.identities = identities
        self.settings = settings
        self.reads, self.changes = Rates(settings.rate), Rates(settings.change_rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope)
        try:
            answer = await self._refuse(request)
        except StoreError as error:
            answer = error_response(request, status_of(error), type(error).__name__, str(error))
        await (answer or self.app)(scope, receive, send)

    async def _refuse(self, request: Request) -> Response | None:
        """Return the response that ends the request here, or None to let it pass."""
        path = path_within(request.scope)
        if path in PROBES:  # supervisors request it under any host name
            return None
        if not self.settings.allows(_host(request)):
            detail = f"unknown host name {_host(request)!r}; NAS_SERVICE_HOSTS lists further names of this service"
            return error_response(request, 421, "HostNotAllowed", detail)
        if path in PUBLIC or path.startswith("/static/"):
            return None
        bearer = _bearer(request) if is_api(path) else None
        if bearer is None and not is_api(path) and request.method == "GET" and "link" in request.query_params:
            return await self._follow(request)
        found = await self._of_bearer(request, bearer) if bearer is not None else await self._of_cookie(request)
        if not isinstance(found, Identity):
            return found
        if bearer is None and request.method not in SAFE_METHODS and not same_origin(request, self.settings.origins):
            return error_response(request, 403, "CrossSiteRequest", "a page of another site sent this request")
        request.state.identity = found
        request.state.bearer = bearer
        return self._beyond_scope(request, found) or self._too_often(request, found)

    async def _of_bearer(self, request: Request, secret: str) -> Identity | Response:
        guesses, address, key = _guesses(request), _address(request), digest(secret)
        if not guesses.was_right(address, key) and not await guesses.wait(address):
            return error_response(request, 429, "LimitError", _TOO_MANY, headers={"Retry-After": "5"})
        found = await self.identities.of_token(_store(request), secret)
        if found is None:
            guesses.wrong(address)
            return _unauthorized(request, "the token is wrong, or was revoked, or has expired")
        guesses.right(address, key)
        return found

    async def _of_cookie(self, request: Request) -> Identity | Response:
        secret = request.cookies.get(self.identities.cookie_name)
        # Cookies are not slowed down: they hold 256 random bits, and a tab that is left open keeps sending an old one.
        found = None if secret is None else await self.identities.of_cookie(_store(request), secret)
        if found is None:
            begun = "the session has ended" if secret is not None else "the access token is missing"
            return _unauthorized(request, f"{begun}; a token or a one-time link (nas token link) is needed")
        return found

    async def _follow(self, request: Request) -> Response:
        rest = urlencode([item for item in parse_qsl(request.url.query) if item[0] != "link"])
        # A target that begins with "//host" would lead to another site.
        target = "/" + request.url.path.lstrip("/\\") + ("?" + rest if rest else "")
        guesses, address = _guesses(request), _address(request)
        if is_head(request.scope):  # previews of links must not use them up
            return _unauthorized(request, "open the link in a browser", target)
        if not await guesses.wait(address):
            return error_response(request, 429, "LimitError", _TOO_MANY, headers={"Retry-After": "5"})
        secret = await self.identities.follow(_store(request), request.query_params["link"])
        if secret is None:
            guesses.wrong(address)
            if isinstance(await self._of_cookie(request), Identity):
                return RedirectResponse(target, 303)  # the browser that used the link comes back with it
            detail = "the link in the address works once and for some minutes; nas token link makes a new one"
            return _unauthorized(request, detail, target)
        return _signed_in(request, self.identities, self.settings, secret, target)

    def _beyond_scope(self, request: Request, identity: Identity) -> Response | None:
        path = path_within(request.scope)
        needed = TokenScope.READ if request.method in SAFE_METHODS else TokenScope.WRITE
        needed = TokenScope.ADMIN if is_of_admins(path) else needed
        if identity.scope.allows(needed) or path == "/logout":
            return None
        detail = f"{identity.name} has the scope {identity.scope}, but {request.method} needs the scope {needed}"
        return error_response(request, 403, "ForbiddenError", detail)

    def _too_often(self, request: Request, identity: Identity) -> Response | None:
        rates = self.reads if request.method in SAFE_METHODS else self.changes
        seconds = rates.take(identity.name)
        if not seconds:
            return None
        what = "requests" if rates is self.reads else "changes"
        detail = (
            f"{identity.name} may send {rates.rate:g} {what} per second in the mean; "
            f"try again in {seconds:.2g} s, and send fewer"
        )
        return error_response(
            request, 429, "LimitError", detail, headers={"Retry-After": str(max(1, math.ceil(seconds)))}
        )


def is_of_admins(path: str) -> bool:
    """Return whether only the scope admin reaches a path."""
    return any(path == place or path.startswith(f"{place}/") for place in OF_ADMINS)


async def read_form(request: Request) -> dict[str, str] | None:
    """Return the fields of a form, each with its last value; None if it is too long."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES:
            return None
    return {key: values[-1] for key, values in parse_qs(body.decode("utf-8", "replace")).items()}


def too_long(request: Request) -> Response:
    """Return the answer to a form that is too long."""
    return error_response(request, 413, "ContentTooLarge", f"a form has at most {FORM_BYTES} bytes")


async def may_stay(request: Request) -> bool:
    """Return whether the sender of a request may still have its answer, a stream: neither revoked nor expired."""
    identities: Identities = request.app.state.identities
    store, bearer = _store(request), getattr(request.state, "bearer", None)
    if bearer is not None:
        return await identities.of_token(store, bearer) is not None
    return await identities.of_cookie(store, request.cookies.get(identities.cookie_name, "")) is not None


def others_may(endpoint: Endpoint) -> Endpoint:
    """Mark a route below a study that does not change it, though its method does not say so."""
    endpoint.others_may = True  # type: ignore[attr-defined]
    return endpoint


async def check_owner(request: Request) -> None:
    """Refuse to change a study or training that another token created, unless the scope is admin.

    It is a dependency of all API routes.

    Raises:
        ForbiddenError: If the study or training is not the sender's own.
        NotFoundError: If there is no such study, job or training.
    """
    identity: Identity | None = getattr(request.state, "identity", None)
    if identity is None or request.method in SAFE_METHODS or identity.scope.allows(TokenScope.ADMIN):
        return
    reference, job = request.path_params.get("study_ref"), request.path_params.get("job_id")
    if (training := request.path_params.get("training_ref")) is not None:
        await run_in_threadpool(_check_trainer, _store(request), identity, training)
    if (reference or job) and not getattr(request.scope.get("endpoint"), "others_may", False):
        await run_in_threadpool(_check_owner, _store(request), identity, reference, job)


def _check_trainer(store: Store, identity: Identity, ref: str) -> None:
    training = store.training(ref)
    if training.created_by != identity.name:
        by = "a command" if training.created_by is None else training.created_by
        raise ForbiddenError(
            f"training {training.id[:8]} was created by {by}: {identity.name} has the scope {identity.scope}, which "
            f"changes only its own trainings; the scope admin changes all"
        )


def _check_owner(store: Store, identity: Identity, reference: str | None, job: str | None) -> None:
    reference = store.job(str(job)).study_id if reference is None else reference
    if reference is None:
        return
    study = store.study(reference)
    if study.created_by != identity.name:
        by = "a command" if study.created_by is None else study.created_by
        raise ForbiddenError(
            f"study {study.name} was created by {by}: {identity.name} has the scope {identity.scope}, which changes "
            f"only its own studies; the scope admin changes all"
        )


async def login(request: Request, identities: Identities, settings: ServiceSettings) -> Response:
    """Sign in with the token of a form (``token``, and ``next``: a path of this service)."""
    if not same_origin(request, settings.origins):  # else a foreign page could sign a browser in as somebody else
        return error_response(request, 403, "CrossSiteRequest", "a page of another site sent this form")
    fields = await read_form(request)
    if fields is None:
        return too_long(request)
    target = fields.get("next", f"{root_of(request.scope)}/")
    guesses, address = _guesses(request), _address(request)
    if not await guesses.wait(address):
        return error_response(request, 429, "LimitError", _TOO_MANY, headers={"Retry-After": "5"})
    secret = await identities.sign_in(_store(request), fields.get("token", "").strip())
    if secret is None:
        guesses.wrong(address)
        return _unauthorized(request, "this is not a token of this service", target)
    return _signed_in(request, identities, settings, secret, "/" + target.lstrip("/\\"))


async def logout(request: Request, identities: Identities) -> Response:
    """End the session of the browser, and show the sign-in page."""
    secret = request.cookies.get(identities.cookie_name)
    if secret is not None:
        await identities.sign_out(_store(request), secret)
    response = RedirectResponse(f"{root_of(request.scope)}/", 303)
    response.delete_cookie(identities.cookie_name, path=root_of(request.scope) or "/")
    return response


def _signed_in(
    request: Request, identities: Identities, settings: ServiceSettings, secret: str, target: str
) -> Response:
    response = RedirectResponse(target, 303)
    encrypted = request.url.scheme == "https" or any(origin.startswith("https:") for origin in settings.origins)
    response.set_cookie(
        identities.cookie_name,
        secret,
        max_age=int(SESSION_SECONDS),
        httponly=True,
        samesite="strict",
        secure=encrypted,
        path=root_of(request.scope) or "/",
    )
    return response


def same_origin(request: Request, others: Collection[str] = ()) -> bool:
    """Return whether a page of this very service sent the request, according to the browser's headers.

    Absent headers count as no: each browser sends ``Origin`` with requests that change something.

    Args:
        request: Request to check.
        others: Origins under which a proxy serves this, besides the one in the ``Host`` header.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return False
    origin = request.headers.get("origin")
    if origin is None:
        return site is not None
    if origin.lower() in others:
        return True
    return urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()


def _unauthorized(request: Request, detail: str, target: str | None = None) -> Response:
    if is_api(path_within(request.scope)):
        return error_response(request, 401, "Unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
    context = {"detail": detail, "next": target or request.url.path}
    response: Response = request.app.state.templates.TemplateResponse(request, "login.html", context, status_code=401)
    return response


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


def _guesses(request: Request) -> Guesses:
    guesses: Guesses = request.app.state.guesses
    return guesses


def _address(request: Request) -> str:
    return "" if request.client is None else request.client.host


def _bearer(request: Request) -> str | None:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else None


def _host(request: Request) -> str:
    host = request.headers.get("host", "")
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
