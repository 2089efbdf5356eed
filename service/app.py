"""The application: routes, pages, access, and a lifespan that opens the store and keeps the embedded worker alive."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import BaseRoute

from nas.artifacts import Artifacts
from nas.errors import NasError
from nas.scratch import sweep_leftovers
from nas.settings import Settings
from nas.store import Store
from service.answers import Answers, KeptAnswers
from service.auth import Access
from service.embedded import EmbeddedWorker
from service.errors import install_handlers
from service.event_hub import EventHub
from service.guesses import Guesses
from service.head import Head
from service.headers import SecurityHeaders
from service.identity import Identities
from service.launch_check import LaunchCheck
from service.limits import BodyLimits
from service.metrics import Metrics
from service.openapi import describe
from service.pages import add_pages, page_templates, zipped_plotly_js
from service.request_log import RequestLog, log_as_json
from service.root_path import RootPath
from service.routes import api_router
from service.routes.figures import front_figure
from service.settings import ServiceSettings

log = logging.getLogger(__name__)

LOADED_LATER = ("moocore", "scipy.special", "plotly.colors", "plotly.subplots", "plotly.graph_objs")
"""Libraries of fronts and figures: loaded beside the first requests, since a start would take half as long again."""
_LATER_SECONDS = 1.0
_TITLE, _VERSION = "Partial-ratio architecture search", "1"


def create_app(settings: Settings, service: ServiceSettings | None = None, *, warm: bool = False) -> FastAPI:
    """Build the application.

    Args:
        settings: Store, storage, data roots and ``NAS_TOKEN``; without it, only tokens and links of the store open
            the service.
        service: Settings of the service alone; None for those of the environment.
        warm: Whether plotly.js is compressed and a front is drawn soon after the start: the first one takes twice as
            long as the others.

    Raises:
        InputError: If the configured token is too short.
    """
    service = service or ServiceSettings()
    identities = Identities(settings.checked_token(), settings.database_url)
    app = Service(
        title=_TITLE,
        version=_VERSION,
        # The built-in documentation pages load scripts from elsewhere; the OpenAPI description itself is served.
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=_lifespan(settings, service, warm=warm),
    )
    app.state.identities = identities
    app.state.guesses = Guesses()
    app.state.service = service
    app.state.metrics = Metrics()
    app.state.stopping = False
    app.state.templates = page_templates()
    install_handlers(app)
    app.router.routes.extend(_routes())
    # The middleware added last is the outermost.
    app.add_middleware(KeptAnswers)
    app.add_middleware(BodyLimits, settings=service)
    app.add_middleware(Access, identities=identities, settings=service)
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Head)
    app.add_middleware(RequestLog, metrics=app.state.metrics)
    app.add_middleware(RootPath, root=service.root_path)
    return app


class Service(FastAPI):
    """The application, with the description of the API."""

    def openapi(self) -> dict[str, Any]:
        """Return the description, which all applications of a process share."""
        return _description()


@cache
def _description() -> dict[str, Any]:
    return describe(_TITLE, _VERSION, _routes())


@cache
def _routes() -> tuple[BaseRoute, ...]:
    """Build the routes, once for all applications of a process: what differs between these, they ask the request."""
    router = APIRouter()
    router.include_router(api_router())
    add_pages(router)
    return tuple(router.routes)


def _lifespan(
    settings: Settings, service: ServiceSettings, *, warm: bool
) -> Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        await run_in_threadpool(sweep_leftovers)
        app.state.store = await run_in_threadpool(Store.open, settings.database_url)
        app.state.artifacts = Artifacts(settings.storage)
        app.state.answers = Answers(app.state.store)
        app.state.hub = EventHub(app.state.store)
        checked = service.worker if service.check_launches is None else service.check_launches
        app.state.launch_check = LaunchCheck(settings.environment(), active=checked)
        app.state.worker = None
        if service.worker:
            app.state.worker = EmbeddedWorker(settings.environment(), stop_seconds=service.stop_seconds)
            app.state.worker.start()

        later = asyncio.create_task(_load_later(app.state.store if warm else None))

        def stop() -> None:
            later.cancel()
            app.state.stopping = True
            app.state.hub.close()

        try:
            # The server calls the first before it waits for connections, which listeners to events would keep open.
            yield {"before_close": stop, "loading": later}
        finally:
            stop()
            await asyncio.wait([later])  # it may be reading the store
            if app.state.worker is not None:
                await run_in_threadpool(app.state.worker.stop)
            await run_in_threadpool(app.state.store.close)

    return lifespan


async def _load_later(store: Store | None) -> None:
    await asyncio.sleep(_LATER_SECONDS)
    for name in LOADED_LATER:
        await run_in_threadpool(importlib.import_module, name)
    if store is not None:
        await run_in_threadpool(zipped_plotly_js)
        await run_in_threadpool(_draw_one, store)


def _draw_one(store: Store) -> None:
    try:
        front_figure("latest", store)
    except NasError:  # there is no study yet, or the first request for a front will say what is wrong
        log.debug("no front was drawn after the start", exc_info=True)
    except Exception:  # nobody waits for this task
        log.exception("no front was drawn after the start")


def create_app_from_environment() -> FastAPI:
    """Build the application from ``NAS_*`` and ``NAS_SERVICE_*``: the factory that ``nas serve`` names to the server.

    ``nas token link`` prints an address that signs in the first browser.
    """
    service = ServiceSettings()
    if service.log_requests:
        log_as_json()
    return create_app(Settings(), service, warm=True)
