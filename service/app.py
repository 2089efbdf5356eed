"""The application: routes, pages, access, and a lifespan that opens the store and keeps the embedded worker."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from pydantic import SecretStr
from starlette.concurrency import run_in_threadpool
from starlette.middleware.gzip import GZipMiddleware

from nas.artifacts import Artifacts
from nas.scratch import sweep_leftovers
from nas.settings import Settings
from nas.store import Store
from service.auth import Access, SecurityHeaders, Tokens
from service.embedded import EmbeddedWorker
from service.errors import install_handlers
from service.head import Head
from service.pages import install_pages
from service.root_path import RootPath
from service.routes import api_router
from service.settings import ServiceSettings

log = logging.getLogger(__name__)


def create_app(settings: Settings, service: ServiceSettings | None = None) -> FastAPI:
    """Build the application.

    Args:
        settings: Store, storage, data roots and token; a token is made when there is none
            (``app.state.tokens`` compares with it).
        service: Of the service alone; from the environment if absent.

    Raises:
        InputError: If the configured token is too short.
    """
    service = service or ServiceSettings()
    tokens = Tokens(settings.access_token())
    app = FastAPI(
        title="Partial-ratio architecture search",
        version="1",
        # The built-in documentation pages load scripts from elsewhere; the description itself is served.
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=_lifespan(settings, service),
    )
    app.state.tokens = tokens
    install_handlers(app)
    app.include_router(api_router())
    install_pages(app)
    # The last one added is the outermost.
    app.add_middleware(Access, tokens=tokens, settings=service)
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Head)
    app.add_middleware(RootPath, root=service.root_path)
    return app


def _lifespan(
    settings: Settings, service: ServiceSettings
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(sweep_leftovers)
        app.state.store = await run_in_threadpool(Store.open, settings.database_url)
        app.state.artifacts = Artifacts(settings.storage)
        app.state.worker = None
        if service.worker:
            app.state.worker = EmbeddedWorker(settings.environment(), stop_seconds=service.stop_seconds)
            app.state.worker.start()
        try:
            yield
        finally:
            if app.state.worker is not None:
                await run_in_threadpool(app.state.worker.stop)
            await run_in_threadpool(app.state.store.close)

    return lifespan


def create_app_from_environment() -> FastAPI:
    """Build the application from ``NAS_*`` and ``NAS_SERVICE_*``: what ``nas serve`` hands to the server by name.

    Without ``NAS_TOKEN`` a token is made and told on standard error, since nobody could enter otherwise.
    """
    settings = Settings()
    if settings.token is None:
        token = settings.access_token()
        settings = settings.model_copy(update={"token": SecretStr(token)})
        sys.stderr.write(f"NAS_TOKEN is not set; sign in with ?token={token}\n")
    return create_app(settings)
