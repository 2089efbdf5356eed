"""Examples of bodies and errors for the description of the API; a test checks that they are valid."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from nas.definition.example import EXAMPLE
from nas.definition.text import parse_yaml


def definition_content() -> dict[str, Any]:
    """Return the types of a launch's body with an example of each, for the description of the API."""
    return {
        "application/json": {
            "schema": {"type": "object", "description": "a study definition; nas/README.md lists its keys"},
            "example": parse_yaml(EXAMPLE),
        },
        "application/yaml": {
            "schema": {"type": "string", "description": "a study definition as YAML"},
            "example": EXAMPLE,
        },
    }


_ERRORS: Mapping[int, tuple[str, str, str]] = MappingProxyType({
    400: ("InputError", "a value is invalid", "query: unknown parameter 'limt'; known: limit, after"),
    401: ("Unauthorized", "the token is missing, wrong or revoked", "the token is wrong"),
    403: ("CrossSiteRequest", "the request is not allowed", "a page of another site sent this request"),
    404: ("NotFoundError", "there is no such thing", "there is no study 'digit'; did you mean digits?"),
    405: ("MethodNotAllowed", "the method is not possible here", "PUT is not possible at /api/v1/jobs"),
    408: ("RequestTimeout", "the body was not whole in time", "the body was not whole within 30 s"),
    409: ("ConflictError", "the present state forbids it", "study digits is finished: there is no search to pause"),
    413: ("ContentTooLarge", "the body is too long", "a definition has at most 65536 bytes"),
    415: ("UnsupportedMediaType", "the type of the body is unknown", "send application/json or application/yaml"),
    421: ("HostNotAllowed", "the service does not answer under this host name", "unknown host name 'example.org'"),
    422: ("DefinitionError", "the body or a parameter is invalid", "definition: sweeep: unknown key"),
    429: ("LimitError", "too many requests, or too many searches", "laptop may send 10 changes per second"),
    500: ("InternalError", "the service failed", "the service failed; its log says why"),
    503: ("StoreError", "the database or the storage fails", "nas.db: the database failed: disk I/O error"),
})  # fmt: skip


def error_responses() -> dict[int | str, dict[str, Any]]:
    """Return the answers to requests that fail, by status, for the description of the API."""


    return {
        status: {
            "description": meaning,
            "content": {
                "application/problem+json": {
                    "schema": {"$ref": "#/components/schemas/ErrorBody"},
                    "example": {
                        "type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "error": error,
                        "detail": detail, "faults": [detail] if status == 422 else [],
                        "request_id": "5f0c3b1e9d2a4c77",
                    },
                }
            },
        }
        for status, (error, meaning, detail) in _ERRORS.items()
    }  # fmt: skip
