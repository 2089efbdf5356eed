"""``nas serve``: where it listens, what it prints, how it stops."""

from __future__ import annotations

import re
import signal
import socket
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

import pytest

from nas.commands.serve import DEFAULT_PORT, address, is_loopback, listen
from nas.errors import InputError
from nas.store import Store
from tests.nas.commands.conftest import start
from tests.nas.store.makers import study


def test_the_next_free_port_is_taken():
    with listen("127.0.0.1", None) as first, listen("127.0.0.1", None) as second:
        assert first.getsockname()[1] != second.getsockname()[1]
        assert first.getsockname()[1] >= DEFAULT_PORT


def test_answers_are_sent_without_delay_on_each_connection():
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_a_port_that_was_asked_for_is_not_replaced():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port}"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80/?link=t"),
        ("::1", "http://[::1]:80/?link=t"),
        ("0.0.0.0", "http://localhost:80/?link=t"),
        ("nas.example.org", "http://nas.example.org:80/?link=t"),
    ],
)
def test_addresses(host, url):
    assert address(host, 80, "t") == url
    assert address(host, 80, None, encrypted=True) == url.replace("http:", "https:").partition("?")[0]


def test_loopback():
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.0.2.1", "a.example")] == [
        True, True, True, False, False, False
    ]  # fmt: skip


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
def test_the_printed_address_opens_and_ctrl_c_stops(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        made = study(store)
    service = start(["serve", "--no-worker", "--port", "0"], tmp_path)
    line = service.wait_for("open http")
    found = re.search(r"(http://127\.0\.0\.1:\d+)/\?link=(nas_[\w-]{43})$", line.strip())
    assert found is not None
    base, link = found.groups()
    assert status(f"{base}/api/v1/studies") == 401
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    for url in (f"{base}/?link={link}", f"{base}/api/v1/studies"):
        with browser.open(url, timeout=20) as answer:
            assert answer.status == 200
    assert status(f"{base}/?link={link}") == 401
    live = urllib.request.Request(f"{base}/api/v1/studies/{made.id}/events", headers={"Accept": "text/event-stream"})
    with browser.open(live, timeout=20) as events:
        assert events.readline().startswith(b"retry:")
        began = time.monotonic()
        code, out, err = service.interrupt()
        assert time.monotonic() - began < 4  # the stream has ended by itself, and not by the limit of the server
    assert code == 0
    assert link not in out + err.replace(line, "")
    assert "Traceback" not in err


@dataclass(frozen=True)
class Closed:
    """A service for others whose terminal is closed beside a request that never ends: what it said and took."""

    address: str
    code: int
    errors: str
    seconds: float


@pytest.fixture(scope="module")
def closed(tmp_path_factory) -> Closed:
    folder = tmp_path_factory.mktemp("closed")
    service = start(["serve", "--no-worker", "--port", "0", "--host", "0.0.0.0"], folder)
    address = service.wait_for("open http")
    port = re.search(r":(\d+)/", address)[1]
    with socket.create_connection(("127.0.0.1", int(port))) as connection:
        connection.sendall(b"POST /api/v1/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
        began = time.monotonic()
        service.process.send_signal(signal.SIGHUP)
        code, _, errors = service.finish()
    return Closed(address, code, errors, time.monotonic() - began)


@pytest.mark.slow
def test_a_service_for_others_is_warned_of(closed):
    assert "localhost" in closed.address
    assert "0.0.0.0 is reachable from other machines" in closed.errors


@pytest.mark.slow
def test_it_ends_at_a_closed_terminal_beside_a_request_that_never_ends(closed):
    assert (closed.code, "Traceback" in closed.errors) == (0, False), closed.errors
    assert closed.seconds < 60
