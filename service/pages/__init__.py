"""Pages for people: templates rendered on the server, with small scripts that draw figures and refresh live parts."""

from __future__ import annotations

import gzip
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

import plotly
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from service.auth import login, logout
from service.pages import compare, filters, help, new_study, queue, studies, study, tokens, trainings, views
from service.root_path import root_of

HERE = Path(__file__).parent
PLOTLY_PATH = f"/static/plotly-{plotly.__version__}.min.js"
_STYLE_ID = re.compile(r'getElementById\("([0-9a-f]{64})"\)')
_YEAR = 365 * 24 * 3600


class _Static(StaticFiles):
    """Static files of this service: browsers revalidate them each time (by ETag), so that an upgrade shows at once."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "no-cache"
        return response


def plotly_js() -> Path:
    """Return the plotly.js that ships inside the plotly package."""
    spec = importlib.util.find_spec("plotly")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "package_data" / "plotly.min.js"


@cache
def zipped_plotly_js() -> bytes:
    """Return plotly.js compressed: once for a process, since it takes a quarter of a second."""
    return gzip.compress(plotly_js().read_bytes(), 5)


def inline_style_ids(script: Path) -> list[str]:
    """Return the ids of the style elements that plotly.js adds if they are missing.

    They style its maps, which these pages do not use, and the pages' policy forbids their inline styles.
    """
    return sorted(set(_STYLE_ID.findall(script.read_text(encoding="utf-8"))))


def _context(request: Request) -> dict[str, Any]:
    return {"root": root_of(request.scope), "identity": getattr(request.state, "identity", None)}


@cache
def page_templates() -> Jinja2Templates:
    """Return the templates of the pages, with what all of them use; all applications of a process share them."""
    templates = Jinja2Templates(
        directory=HERE / "templates", context_processors=[_context]
    )
    templates.env.filters.update(filters.FILTERS)
    templates.env.globals["plotly_path"] = PLOTLY_PATH
    templates.env.globals["plotly_style_ids"] = inline_style_ids(plotly_js())
    templates.env.trim_blocks = True
    templates.env.lstrip_blocks = True
    return templates


def add_pages(router: APIRouter) -> None:
    """Add the static files, the login and the pages to the outermost router."""

    @router.get(PLOTLY_PATH, include_in_schema=False)
    def plotly_script(request: Request) -> Response:
        # The version is in the path, so it never changes.
        headers = {"Cache-Control": f"public, max-age={_YEAR}, immutable", "Vary": "Accept-Encoding"}
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return FileResponse(plotly_js(), media_type="text/javascript", headers=headers)
        headers["Content-Encoding"] = "gzip"
        return Response(zipped_plotly_js(), media_type="text/javascript", headers=headers)

    @router.post("/login", include_in_schema=False)
    async def sign_in(request: Request) -> Response:
        return await login(request, request.app.state.identities, request.app.state.service)

    @router.post("/logout", include_in_schema=False)
    async def sign_out(request: Request) -> Response:
        return await logout(request, request.app.state.identities)

    router.mount("/static", _Static(directory=HERE / "static"), name="static")
    pages = (studies.router, new_study.router, help.router, views.router, compare.router, study.router)
    for page in (*pages, study.parts_router, trainings.router, queue.router, tokens.router):
        router.include_router(page)
