"""A real browser at a service: one tab at one address, which shows the service of each test in turn.

A new tab, or the same service at another address, would compile the scripts of the figures again, which takes two
seconds of processor time.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI
from starlette.responses import HTMLResponse
from starlette.types import Message, Receive, Scope, Send

from nas.plots.save import find_browser
from tests.service.conftest import Place, place_in
from tests.service.fixture_study import FINISHED
from tests.waiting import wait_for

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = find_browser()

browser_marks = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian's package is `chromium-headless-shell`)"),
]
"""Marks of all tests that use the browser."""
TIMEOUT = 60_000  # the first page of a loaded machine took more than 20 s
"""Milliseconds: what this machine may take when it is busy."""
VIOLATIONS = "document.addEventListener('securitypolicyviolation', e => console.error('CSP ' + e.violatedDirective))"
SIZE = {"width": 1280, "height": 900}
BETWEEN = "/between-tests"


@dataclass
class Visit:
    """A signed-in browser page that records errors and requests."""

    page: Any
    url: str
    place: Place
    problems: list[str] = field(default_factory=list)
    refused: str = "no answer is refused"
    """What the browser reports of an answer that a test expects to be refused, such as ``status of 422``."""
    requests: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Go to ``path`` and wait until its figures are drawn."""
        self.page.goto(self.url + path)
        self.expect(".plot[aria-busy]").to_have_count(0)

    def marks(self) -> Any:
        """Return the trials' marks in the scatter."""
        return self.page.locator("#front .scatterlayer .trace path.point")

    def expect(self, selector: str) -> Any:
        """Return what waits for an element to become as asserted."""
        return sync_api.expect(self.page.locator(selector))

    def study(self, name: str = FINISHED) -> str:
        """Return the id of a study of the fixture."""
        return self.place.store.study(name).id


class Stage:
    """An application that passes requests on to the one that it shows, and answers itself between two of them.

    Answers of two services have the same marks: those that the present one has not given are kept from it. So the
    browser may keep the scripts of the figures, as it would at a single service.
    """

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self._shown: FastAPI | None = None
        self._marks: set[bytes] = set()
        self._answering = 0
        self._last: FastAPI | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._shown
        if app is None or scope["path"] == BETWEEN:
            await HTMLResponse("<!doctype html><link rel=icon href=data:,><title>Between tests</title>")(
                scope, receive, send
            )
            return
        headers = [header for header in scope["headers"] if header[0] != b"if-none-match" or header[1] in self._marks]

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._marks.update(value for name, value in message["headers"] if name == b"etag")
            await send(message)

        self._answering += 1
        try:
            await app({**scope, "headers": headers}, receive, note)
        finally:
            self._answering -= 1

    @contextmanager
    def showing(self, app: FastAPI) -> Iterator[None]:
        """Show ``app`` inside the block; who asked for something has left when the block ends."""
        with self._portal.wrap_async_context_manager(app.router.lifespan_context(app)):
            if app is not self._last:
                self._marks.clear()
            self._shown = self._last = app
            try:
                yield
                wait_for(lambda: not self._answering)
            finally:
                self._shown = None


@dataclass(frozen=True)
class Tab:
    """The browser's tab, the address that it visits, and what is shown there."""

    page: Any
    url: str
    stage: Stage

    @contextmanager
    def visit(self, place: Place) -> Iterator[Visit]:
        """Visit ``place``, signed in by a link; afterwards nothing may have gone wrong or left this machine."""
        made = Visit(self.page, self.url, place)
        heard = {
            "console": lambda message: message.type in ("error", "warning") and made.problems.append(message.text),
            "pageerror": lambda error: made.problems.append(str(error)),
            "request": lambda sent: made.requests.append(sent.url),
        }
        with self.stage.showing(place.app):
            for event, listener in heard.items():
                self.page.on(event, listener)
            try:
                # Not by the page, which would show the list of studies, as most tests do not.
                self.page.context.request.get(f"{self.url}/?link={place.store.create_link()}", max_redirects=0)
                yield made
            finally:
                self._forget()
                for event, listener in heard.items():
                    self.page.remove_listener(event, listener)
        assert [problem for problem in made.problems if made.refused not in problem] == []
        assert [sent for sent in made.requests if not sent.startswith((self.url, "data:", "blob:"))] == []

    def _forget(self) -> None:
        """Leave the page, and make the tab as good as new."""
        context = self.page.context
        context.set_offline(False)
        self.page.goto(self.url + BETWEEN)
        self.page.evaluate("sessionStorage.clear()")
        context.clear_cookies()
        self.page.set_viewport_size(SIZE)
        self.page.emulate_media(color_scheme="light")
        self.page.mouse.move(0, 0)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for all tests."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    sync_api.expect.set_options(timeout=TIMEOUT)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tab(chromium: Any) -> Iterator[Tab]:
    """One tab for all tests."""
    listener = socket.create_server(("127.0.0.1", 0))
    with start_blocking_portal() as portal:
        stage = Stage(portal)
        server = uvicorn.Server(uvicorn.Config(stage, log_level="warning", lifespan="off"))
        serving = portal.start_task_soon(server.serve, [listener])
        wait_for(lambda: server.started or serving.done())
        context = chromium.new_context(viewport=SIZE)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT)
        page.add_init_script(VIOLATIONS)
        yield Tab(page, f"http://127.0.0.1:{listener.getsockname()[1]}", stage)
        context.close()
        server.should_exit = True
        serving.result(60)


@pytest.fixture
def visit(tab: Tab, tmp_path: Path, filled: Path) -> Iterator[Visit]:
    """A visit of a service that the test may change."""
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    with place_in(tmp_path) as place, tab.visit(place) as made:
        yield made


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory, filled: Path) -> Iterator[Place]:
    """One place for all tests that only read."""
    folder = tmp_path_factory.mktemp("unchanged")
    shutil.copytree(filled, folder, dirs_exist_ok=True)
    with place_in(folder) as place:
        yield place


@pytest.fixture
def reader(tab: Tab, unchanged: Place) -> Iterator[Visit]:
    """A visit that changes nothing."""
    with tab.visit(unchanged) as made:
        yield made
