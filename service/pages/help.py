"""The pages that explain: words, how to begin, the command line, the client, and the reference of the API."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from nas.metrics import METRICS, EvaluationKind
from service.pages.reference import groups_of
from service.pages.rendering import render

router = APIRouter(include_in_schema=False, default_response_class=Response)


@router.get("/help")
def help_page(request: Request) -> Response:
    """Words, how to begin, commands, the client."""
    context = {"kinds": list(EvaluationKind), "metrics": METRICS, "address": str(request.base_url).rstrip("/")}
    return render(request, "help.html", context)


@router.get("/help/api")
def reference_page(request: Request) -> Response:
    """Reference of the API, from its own description."""
    groups = groups_of(request.app.openapi())
    errors = {answer.status: answer for routes in groups.values() for route in routes for answer in route.answers}
    shown = [answer for _, answer in sorted(errors.items()) if not answer.good]
    return render(request, "reference.html", {"groups": groups, "errors": shown})
