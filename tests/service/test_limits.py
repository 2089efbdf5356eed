"""What a request may be: its size, its speed, its number; and how guesses are slowed down."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from nas.tokens import Scope
from service.app import create_app
from service.guesses import FREE_MISTAKES, LONGEST_WAIT, Guesses
from service.limits import BURST_SECONDS, Rates
from service.protocol import TimedProtocol
from service.settings import ServiceSettings
from tests.service.conftest import BEARER, TOKEN, Place, serve
from tests.service.test_api import assert_error

STUDIES = "/api/v1/studies"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class TestRates:
    @given(st.floats(0.5, 1000.0), st.lists(st.floats(0.0, 5.0), max_size=200))
    def test_never_more_than_the_rate_and_one_burst(self, rate: float, pauses: list[float]) -> None:
        clock = Clock()
        rates, allowed = Rates(rate, clock), 0
        for pause in pauses:
            clock.now += pause
            allowed += rates.take("alice") == 0.0
        assert allowed <= max(1.0, rate * BURST_SECONDS) + rate * sum(pauses) + 1e-6

    def test_the_told_time_is_right_and_tokens_do_not_share(self) -> None:
        clock = Clock()
        rates = Rates(0.1, clock)
        assert rates.take("alice") == 0.0
        wait = rates.take("alice")
        assert wait == pytest.approx(10.0)
        assert rates.take("bob") == 0.0
        clock.now += wait
        assert rates.take("alice") == 0.0

    def test_too_many_requests_get_429_with_what_would_be_right(self, place: Place) -> None:
        settings = ServiceSettings(worker=False, rate=0.2, change_rate=0.1)
        with TestClient(create_app(place.settings, settings), base_url="http://localhost") as client:
            answers = [client.get(STUDIES, headers=BEARER) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [200, 200, 429]
            assert "0.2 requests per second" in assert_error(answers[2], 429, "LimitError")
            assert int(answers[2].headers["retry-after"]) in range(1, 6)
            changes = [client.post(f"{STUDIES}/none/stop", headers=BEARER).status_code for _ in range(2)]
            assert changes == [404, 429]
            other = {"Authorization": f"Bearer {place.store.create_token('alice', Scope.READ)[1]}"}
            assert client.get(STUDIES, headers=other).status_code == 200


class TestGuesses:
    def test_the_wait_grows_and_ends_and_is_of_one_address(self) -> None:
        clock = Clock()
        guesses = Guesses(clock)
        delays = []
        for _ in range(20):
            delays.append(guesses.delay("192.0.2.1"))
            guesses.wrong("192.0.2.1")
        assert delays[:FREE_MISTAKES] == [0.0] * FREE_MISTAKES
        assert delays == sorted(delays)
        assert delays[-1] == LONGEST_WAIT
        assert guesses.delay("192.0.2.2") == 0.0
        clock.now += 301
        assert guesses.delay("192.0.2.1") == 0.0

    def test_many_addresses_together_are_slowed_as_well(self) -> None:
        guesses = Guesses(Clock())
        for number in range(120):
            guesses.wrong(f"192.0.2.{number}")
        assert guesses.delay("198.51.100.1") > 0

    def test_a_network_of_ipv6_is_one_address(self) -> None:
        guesses = Guesses(Clock())
        for number in range(10):
            guesses.wrong(f"2001:db8::{number:x}")
        assert guesses.delay("2001:db8::ffff") > 0
        assert guesses.delay("2001:db8:1::1") == 0

    def test_few_wait_at_once(self) -> None:
        guesses = Guesses()
        guesses.delay = lambda _: 0.05  # type: ignore[method-assign]

        async def flood() -> list[bool]:
            return await asyncio.gather(*(guesses.wait("192.0.2.1") for _ in range(30)))

        allowed = asyncio.run(flood())
        assert 0 < sum(allowed) < 30
        assert asyncio.run(guesses.wait("192.0.2.1"))

    def test_the_right_token_is_not_locked_out(self, anonymous: TestClient, place: Place) -> None:
        assert anonymous.get(STUDIES, headers=BEARER).status_code == 200
        place.app.state.guesses.wait = waited = _Waits()
        for _ in range(FREE_MISTAKES + 3):
            assert anonymous.get(STUDIES, headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert place.app.state.guesses.delay("testclient") > 0
        before = waited.count
        assert anonymous.get(STUDIES, headers=BEARER).status_code == 200  # it was right before, and does not wait
        assert waited.count == before
        other = {"Authorization": f"Bearer {place.store.create_token('alice', Scope.READ)[1]}"}
        assert anonymous.get(STUDIES, headers=other).status_code == 200  # a new one waits, and is let in
        assert waited.count == before + 1

    def test_each_door_counts_guesses(self, anonymous: TestClient, place: Place) -> None:
        anonymous.get(STUDIES, headers={"Authorization": "Bearer wrong"})
        anonymous.get("/", params={"link": "wrong"})
        anonymous.post("/login", data={"token": "wrong"}, headers={"Origin": "http://localhost"})
        assert place.app.state.guesses._mistakes["testclient"][0] == 3
        anonymous.get("/", headers={"Cookie": f"{place.app.state.identities.cookie_name}=old"})
        assert place.app.state.guesses._mistakes["testclient"][0] == 3
        place.app.state.guesses.wait = _Waits(allowed=False)
        for answer in (
            anonymous.get(STUDIES, headers={"Authorization": "Bearer wrong"}),
            anonymous.get("/", params={"link": "wrong"}),
            anonymous.post("/login", data={"token": TOKEN}, headers={"Origin": "http://localhost"}),
        ):
            assert answer.status_code == 429
            assert answer.headers["retry-after"] == "5"


class _Waits:
    """Takes the place of a wait, and counts."""

    def __init__(self, *, allowed: bool = True) -> None:
        self.count, self.allowed = 0, allowed

    async def __call__(self, _address: str) -> bool:
        self.count += 1
        return self.allowed


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    """Open a connection to a server."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        yield connection


HEAD = f"POST {STUDIES} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n".encode()


class TestHalfSentRequests:
    def test_a_head_that_does_not_end_is_closed(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(TimedProtocol, "head_seconds", 0.3)
        with serve(place.app, http=TimedProtocol) as url:
            for begun in (b"", b"GET / HTTP/1.1\r\nHost: loc", HEAD[:-2]):
                with connected(url) as connection:
                    connection.sendall(begun)
                    began = time.monotonic()
                    assert _rest(connection) == b""
                    assert time.monotonic() - began < 10
            with connected(url) as connection:  # the second request of a connection has a clock of its own
                whole = b"GET /api/v1/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
                for _ in range(2):
                    connection.sendall(whole)
                    answer = b""
                    while b'"worker"' not in answer:
                        answer += connection.recv(10_000)
                    time.sleep(0.4)  # longer than a head may take: the clock stands while nothing begins
                connection.sendall(whole[:20])
                assert _rest(connection) == b""

    def test_a_body_that_does_not_end_is_answered(self, place: Place) -> None:
        app = create_app(place.settings, ServiceSettings(worker=False, body_seconds=0.3))
        with serve(app) as url, connected(url) as connection:
            kind = b"Content-Type: application/yaml\r\nContent-Length: 100\r\n\r\nname: "
            connection.sendall(HEAD + kind)
            answer = _rest(connection)
        assert b"408 Request Timeout" in answer
        assert b"not whole within 0.3 s" in answer


def _rest(connection: socket.socket) -> bytes:
    """Read until the server closes."""
    received = b""
    try:
        while chunk := connection.recv(10_000):
            received += chunk
    except ConnectionResetError:
        pass
    return received


class TestSizes:
    @pytest.mark.parametrize("told", [True, False])
    def test_a_long_body_is_refused_on_every_route(self, place: Place, told: bool) -> None:
        app = create_app(place.settings, ServiceSettings(worker=False, body_bytes=1000))
        content = b"#" * 1001
        sent = content if told else iter([content[:600], content[600:]])
        with TestClient(app, base_url="http://localhost", headers=BEARER) as client:
            kind = {"Content-Type": "application/yaml"}
            answer = client.post(STUDIES, content=sent, headers=kind)
            assert "at most 1,000 bytes" in assert_error(answer, 413, "ContentTooLarge")
            stop = client.post(f"{STUDIES}/none/stop", content=content)
            assert_error(stop, 413, "ContentTooLarge")
