"""The only renderer of errors: JSON of one shape under ``/api``, a page everywhere else.

The shape is a problem of RFC 9457 (``application/problem+json``): ``error`` names the class, ``detail`` is text for
people, ``faults`` has one line for each fault of a definition, and ``request_id`` names the request in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from nas.errors import (
    ConflictError,
    DefinitionError,
    ForbiddenError,
    InputError,
    LimitError,
    NasError,
    NotFoundError,
    StoreError,
    as_name,
)
from nas.wire.bodies import ErrorBody
from service.root_path import path_within

log = logging.getLogger(__name__)

STATUSES: Mapping[type[NasError], int] = MappingProxyType(
    {
        DefinitionError: 422,
        NotFoundError: 404,
        ConflictError: 409,
        LimitError: 429,
        ForbiddenError: 403,
        InputError: 400,
        StoreError: 503,
        NasError: 500,
    }
)


def is_api(path: str) -> bool:
    """Return whether ``path`` belongs to the API, whose answers are JSON."""
    return path == "/api" or path.startswith("/api/")


def error_response(
    request: Request,
    status: int,
    error: str,
    detail: str,
    *,
    faults: tuple[str, ...] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Render one error as JSON or as a page, depending on the path."""
    if is_api(path_within(request.scope)):
        body = ErrorBody(
            title=HTTPStatus(status).phrase,
            status=status,
            error=error,
            detail=detail,
            faults=faults,
            request_id=request.scope.get("state", {}).get("request_id"),
        )
        content = body.model_dump(mode="json")
        return JSONResponse(content, status, dict(headers or {}), media_type="application/problem+json")
    context = {"status": status, "phrase": HTTPStatus(status).phrase, "detail": detail}
    response: Response = request.app.state.templates.TemplateResponse(
        request, "error.html", context, status_code=status, headers=dict(headers or {})
    )
    return response


def status_of(error: NasError) -> int:
    """Return the HTTP status of ``error``: that of the nearest class in :data:`STATUSES`."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def _on_nas_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, NasError)
    faults = error.faults if isinstance(error, DefinitionError) else ()
    status = status_of(error)
    if status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error)
    return error_response(request, status, type(error).__name__, str(error), faults=faults)


def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    names = {404: "NotFoundError", 405: "MethodNotAllowed", 413: "ContentTooLarge", 415: "UnsupportedMediaType"}
    detail = error.detail
    if error.status_code == 404 and detail == "Not Found":
        detail = f"there is nothing at {request.url.path}"
    headers = error.headers
    if error.status_code == 405:
        allowed = _allowed_methods(request)
        detail = f"{request.method} is not possible at {request.url.path}; possible is {', '.join(allowed)}"
        headers = {**(headers or {}), "Allow": ", ".join(allowed)}
    name = names.get(error.status_code, HTTPStatus(error.status_code).phrase.replace(" ", ""))
    return error_response(request, error.status_code, name, detail, headers=headers)


def _allowed_methods(request: Request) -> list[str]:
    """Return the methods that the routes allow at this path; the router itself names only those of the first route."""
    possible = ("GET", "POST", "PUT", "PATCH", "DELETE")
    routes = request.app.router.routes
    taken = [
        method
        for method in possible
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]
    return ["GET", "HEAD", *taken[1:]] if taken[:1] == ["GET"] else taken


def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = tuple(
        f"{as_name('.'.join(str(part) for part in item['loc']))}: {item['msg']} (got {item.get('input')!r:.100})"
        for item in error.errors()
    )
    return error_response(request, 422, "InputError", "\n".join(faults), faults=faults)


def _on_crash(request: Request, _error: Exception) -> Response:
    # The log holds the reason; the response must not reveal anything about the machine.
    request_id = request.scope.get("state", {}).get("request_id", "")  # this is outside of what adds it
    detail = "the service failed; its log says why"
    return error_response(request, 500, "InternalError", detail, headers={"X-Request-ID": request_id})


def _on_disconnect(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # which nobody receives


def install_handlers(app: FastAPI) -> None:
    """Register a handler for each way in which a request can fail."""
    app.add_exception_handler(NasError, _on_nas_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_crash)
