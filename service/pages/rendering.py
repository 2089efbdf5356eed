"""What all pages need to answer a request."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from starlette.responses import Response


def render(request: Request, name: str, context: dict[str, Any]) -> Response:
    """Render the template ``name``."""
    response: Response = request.app.state.templates.TemplateResponse(request, name, context)
    return response
