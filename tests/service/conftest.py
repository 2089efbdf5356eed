"""A service on a store of its own, in process and over a real socket."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from nas.artifacts import Artifacts
from nas.settings import Settings
from nas.store import Store
from service.app import create_app
from service.settings import ServiceSettings
from tests.service.fixture_study import finished_study, running_study
from tests.waiting import wait_for

TOKEN = "0123456789abcdef-test-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@dataclass(frozen=True)
class Place:
    """Where a service of a test keeps its things; ``store`` is the test's own connection to the same database."""

    settings: Settings
    store: Store
    artifacts: Artifacts
    app: FastAPI


@contextmanager
def place_in(folder: Path) -> Iterator[Place]:
    """Make a service in ``folder``, on the database that lies there or an empty one."""
    settings = Settings(
        database_url=f"sqlite:///{folder / 'nas.db'}", storage=str(folder / "storage"), token=TOKEN, data_roots=()
    )
    with Store.open(settings.database_url) as store:
        app = create_app(settings, ServiceSettings(worker=False))
        yield Place(settings, store, Artifacts(settings.storage), app)


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database that holds a finished and a running study: filled once, copied for each test."""
    folder = tmp_path_factory.mktemp("filled")
    with Store.open(f"sqlite:///{folder / 'nas.db'}") as store:
        finished_study(store)
        running_study(store)
    return folder


@pytest.fixture
def place(tmp_path: Path, filled: Path) -> Iterator[Place]:
    """A service on a store with the studies ``digits-fixture`` (finished) and ``running``."""
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    with place_in(tmp_path) as made:
        yield made


@pytest.fixture
def api(place: Place) -> Iterator[TestClient]:
    """A client in process that carries the token."""
    with TestClient(
        place.app,
        base_url="http://localhost",
        headers=BEARER,
        raise_server_exceptions=False,
        follow_redirects=False,
    ) as client:
        yield client


@pytest.fixture
def anonymous(place: Place) -> Iterator[TestClient]:
    """A client in process without the token."""
    with TestClient(
        place.app, base_url="http://localhost", raise_server_exceptions=False, follow_redirects=False
    ) as client:
        yield client


@contextmanager
def serve(app: ASGIApp, **options: Any) -> Iterator[str]:
    """Run ``app`` on a free port of this machine; yield its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    wait_for(lambda: server.started or not thread.is_alive())
    assert server.started, "the server did not start"
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), "the server did not stop"


def stripping_proxy(root: str, targets: list[str]) -> Starlette:
    """Return a proxy that serves the first of ``targets`` below ``root``: without it, and under the target's own host.

    Args:
        root: Sub-path, without a slash at its end.
        targets: Addresses; may be filled in later.
    """
    dropped = {"content-length", "content-encoding", "transfer-encoding", "connection"}

    async def forward(request: Request) -> Response:
        path = request.url.path.removeprefix(root)
        headers = {name: value for name, value in request.headers.items() if name not in ("host", "connection")}
        async with httpx.AsyncClient(base_url=targets[0], trust_env=False) as client:
            query = f"?{request.url.query}" if request.url.query else ""
            answer = await client.request(
                request.method, path + query, content=await request.body(), headers=headers, timeout=60
            )
        response = Response(answer.content, answer.status_code)
        response.raw_headers = [
            (name, value) for name, value in answer.headers.raw if name.decode().lower() not in dropped
        ] + [(b"content-length", str(len(answer.content)).encode())]
        return response

    return Starlette(routes=[Route(f"{root}/{{rest:path}}", forward, methods=["GET", "POST"])])
