"""What all pages need to answer a request."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from starlette.responses import Response

from nas.tokens import Scope
from service.identity import Identity


def render(request: Request, name: str, context: dict[str, Any]) -> Response:
    """Render the template ``name``."""
    response: Response = request.app.state.templates.TemplateResponse(request, name, context)
    return response


def may_change(creator: str | None, identity: Identity) -> bool:
    """Return whether a reader may change a study or training.

    Args:
        creator: Name of the token that created it; None for a command.
        identity: Reader of the page.
    """
    own = creator == identity.name and identity.scope.allows(Scope.WRITE)
    return own or identity.scope.allows(Scope.ADMIN)
