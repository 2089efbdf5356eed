"""The description of the API: what FastAPI derives from the routes, the common error, and how to sign in."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from nas.wire.bodies import ErrorBody
from service.schema_examples import add_examples


class Service(FastAPI):
    """The application, with a description that says how requests fail and how they sign in."""

    def openapi(self) -> dict[str, Any]:
        """Return the description; it is built once."""
        if self.openapi_schema is None:
            schema = super().openapi()
            parts = schema.setdefault("components", {})
            parts.setdefault("schemas", {})["ErrorBody"] = ErrorBody.model_json_schema(
                ref_template="#/components/schemas/{model}"
            )
            parts["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer", "description": "the token that the service printed"}
            }
            schema["security"] = [{"bearer": []}]
            add_examples(schema)
            self.openapi_schema = schema
        return self.openapi_schema
