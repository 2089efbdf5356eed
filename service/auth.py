"""Access: a token as Jupyter's, a cookie after the first visit, and checks against requests from other sites.

Pages accept ``?token=...`` once, set a cookie and redirect to the clean address. The API accepts ``Authorization:
Bearer ...`` or the cookie. The cookie holds a keyed hash, never the token. Its name depends on the token, so that
several services on one host do not overwrite each other's cookies.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import error_response, is_api
from service.root_path import path_within, root_of
from service.settings import ServiceSettings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
PROBES = frozenset({"/api/v1/healthz", "/api/v1/readyz"})
PUBLIC = PROBES | {"/login"}
LOGIN_BYTES = 4096

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = (
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    # Not no-referrer: browsers would then send "Origin: null" with our own requests.
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)


class SecurityHeaders:
    """Adds the security headers to each response, and forbids caching of all but static files."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS:
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class Tokens:
    """Compares the token or cookie of a request with the one token, in constant time."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self.cookie_value = hmac.new(self._token, b"nas session", "sha256").hexdigest()
        self.cookie_name = "nas_" + hmac.new(self._token, b"nas cookie name", "sha256").hexdigest()[:12]

    def is_token(self, given: str) -> bool:
        """Return whether ``given`` is the token."""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token)

    def has_cookie(self, request: Request) -> bool:
        """Return whether the request carries the cookie of a signed-in browser."""
        given = request.cookies.get(self.cookie_name, "")
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.cookie_value.encode())

    def sign_in(self, request: Request, target: str) -> Response:
        """Return a redirect to ``target`` that sets the cookie."""
        response = RedirectResponse(target, 303)
        secure = request.url.scheme == "https"
        path = root_of(request.scope) or "/"
        response.set_cookie(
            self.cookie_name, self.cookie_value, httponly=True, samesite="strict", secure=secure, path=path
        )
        return response


class Access:
    """Refuses requests under foreign host names, without the token, or from a page of another site."""

    def __init__(self, app: ASGIApp, *, tokens: Tokens, settings: ServiceSettings) -> None:
        self.app = app
        self.tokens = tokens
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope)
        answer = self._refuse(request)
        await (answer or self.app)(scope, receive, send)

    def _refuse(self, request: Request) -> Response | None:
        """Return the response that ends the request here, or None to let it pass."""
        path = path_within(request.scope)
        if path in PROBES:  # supervisors request it under any host name
            return None
        if not self.settings.allows(_host(request)):
            detail = f"unknown host name {_host(request)!r}; NAS_SERVICE_HOSTS lists further names of this service"
            return error_response(request, 421, "HostNotAllowed", detail)
        if path in PUBLIC or path.startswith("/static/"):
            return None
        if is_api(path):
            bearer = _bearer(request)
            if bearer is not None:
                return None if self.tokens.is_token(bearer) else _unauthorized(request, "the token is wrong")
        elif request.method == "GET" and "token" in request.query_params:
            return self._sign_in_by_query(request)
        if not self.tokens.has_cookie(request):
            return _unauthorized(request, "the access token is missing; the service printed it in its URL at start")
        if request.method not in SAFE_METHODS and not same_origin(request, self.settings.origins):
            return error_response(request, 403, "CrossSiteRequest", "a page of another site sent this request")
        return None

    def _sign_in_by_query(self, request: Request) -> Response:
        if not self.tokens.is_token(request.query_params["token"]):
            return _unauthorized(request, "the token in the address is wrong; the service may have been restarted")
        rest = urlencode([item for item in parse_qsl(request.url.query) if item[0] != "token"])
        # A target that begins with "//host" would lead to another site.
        target = "/" + request.url.path.lstrip("/\\") + ("?" + rest if rest else "")
        return self.tokens.sign_in(request, target)


async def login(request: Request, tokens: Tokens) -> Response:
    """Sign in with the token of a form (``token``, and ``next``: a path of this service)."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LOGIN_BYTES:
            return error_response(request, 413, "ContentTooLarge", f"a login has at most {LOGIN_BYTES} bytes")
    fields = {key: values[-1] for key, values in parse_qs(body.decode("utf-8", "replace")).items()}
    target = fields.get("next", f"{root_of(request.scope)}/")
    if not tokens.is_token(fields.get("token", "").strip()):
        return _unauthorized(request, "this is not the token of this service", target)
    return tokens.sign_in(request, "/" + target.lstrip("/\\"))


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


def _bearer(request: Request) -> str | None:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else None


def _host(request: Request) -> str:
    host = request.headers.get("host", "")
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
