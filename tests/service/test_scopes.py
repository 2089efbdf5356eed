"""Every route without a token, with a wrong one and with one that is too weak; whose studies a token may change."""

from __future__ import annotations

import re

import pytest
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from nas.tokens import Scope
from service.auth import PUBLIC, SAFE_METHODS, is_of_admins
from tests.service.conftest import BEARER, Place
from tests.service.fixture_study import FINISHED, RUNNING, definition
from tests.service.test_api import assert_error

VALUES = {"study_ref": RUNNING, "number": "0", "job_id": "00000000-0000-0000-0000-000000000000",
          "training_ref": "00000000"}  # fmt: skip


def guarded(place: Place) -> list[tuple[str, str]]:
    """Return method and path of each route that needs a token, with values for its parameters."""
    found = []
    for route in iter_route_contexts(place.app.routes):
        path = re.sub(r"{(\w+)(:\w+)?}", lambda part: VALUES.get(part[1], "x"), route.path or "")
        if path not in PUBLIC and not path.startswith("/static"):
            found += [(method, path) for method in sorted(route.methods or ())]
    return found


def bearer(place: Place, name: str, scope: Scope) -> dict[str, str]:
    """Return the header of a new token."""
    return {"Authorization": f"Bearer {place.store.create_token(name, scope)[1]}"}


def test_every_route_refuses_whoever_has_no_token_or_a_wrong_one(anonymous: TestClient, place: Place) -> None:
    routes = guarded(place)
    assert len(routes) > 20
    _, revoked = place.store.create_token("gone", Scope.ADMIN)
    place.store.revoke_token("gone")
    session = place.store.open_session(place.store.create_token("other", Scope.ADMIN)[0])[1]
    place.app.state.guesses.delay = lambda _: 0.0
    bad = ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {revoked}"},
           {"Authorization": f"Bearer {session}"}, {"Cookie": f"nas_{'0' * 12}={session}"})  # fmt: skip
    for method, path in routes:
        for headers in bad:
            answer = anonymous.request(method, path, headers=headers)
            assert answer.status_code == 401, (method, path, headers, answer.text)
    assert len(place.store.jobs()) == 2


def test_every_changing_route_refuses_a_reader(anonymous: TestClient, place: Place) -> None:
    reader = bearer(place, "reader", Scope.READ)
    changing = [entry for entry in guarded(place) if entry[0] not in SAFE_METHODS and entry[1].startswith("/api")]
    assert len(changing) >= 6
    for method, path in changing:
        detail = assert_error(anonymous.request(method, path, headers=reader), 403, "ForbiddenError")
        needed = Scope.ADMIN if is_of_admins(path) else Scope.WRITE
        assert detail == f"reader has the scope read, but {method} needs the scope {needed}"
    assert len(place.store.jobs()) == 2


def test_every_reading_route_is_open_to_a_reader(anonymous: TestClient, place: Place) -> None:
    reader = bearer(place, "reader", Scope.READ)
    reading = [path for method, path in guarded(place) if method == "GET" and path.startswith("/api")]
    for path in reading:
        expected = (403,) if is_of_admins(path) else (200, 400, 404, 422)
        assert anonymous.get(path, headers=reader).status_code in expected, path


def test_a_writer_changes_only_its_own_studies(anonymous: TestClient, place: Place) -> None:
    alice, bob = bearer(place, "alice", Scope.WRITE), bearer(place, "bob", Scope.WRITE)
    made = anonymous.post("/api/v1/studies", json=definition("mine").to_dict(), headers=alice).json()["study"]
    assert made["created_by"] == "alice"
    changing = [
        (method, path.replace(RUNNING, "mine"))
        for method, path in guarded(place)
        if method not in SAFE_METHODS and f"/studies/{RUNNING}" in path and not path.endswith(("/exports", "/clone"))
    ]
    assert len(changing) >= 4
    for method, path in changing:
        detail = assert_error(anonymous.request(method, path, headers=bob), 403, "ForbiddenError")
        assert "created by alice" in detail
    by_command = anonymous.post(f"/api/v1/studies/{RUNNING}/stop", headers=alice)
    assert "created by a command" in assert_error(by_command, 403, "ForbiddenError")
    assert anonymous.post("/api/v1/studies/mine/pause", headers=alice).status_code == 202
    assert anonymous.post("/api/v1/studies/mine/resume", headers=bearer(place, "root", Scope.ADMIN)).status_code == 202
    assert anonymous.post("/api/v1/studies/mine/stop", headers=BEARER).status_code == 202


def test_a_writer_exports_what_others_found(anonymous: TestClient, place: Place) -> None:
    alice = bearer(place, "alice", Scope.WRITE)
    assert anonymous.post(f"/api/v1/studies/{FINISHED}/trials/3/exports", headers=alice).status_code == 202


@pytest.mark.parametrize("scope", [Scope.WRITE, Scope.ADMIN])
def test_searches_at_once_are_limited(anonymous: TestClient, place: Place, scope: Scope) -> None:
    place.app.state.service.searches = 1
    alice = bearer(place, "alice", scope)
    assert anonymous.post("/api/v1/studies", json=definition("a").to_dict(), headers=alice).status_code == 201
    second = anonymous.post("/api/v1/studies", json=definition("b").to_dict(), headers=alice)
    assert "1 of its studies wait or run, which is the limit" in assert_error(second, 429, "LimitError")
    assert anonymous.post("/api/v1/studies/a/stop", headers=alice).status_code == 202
    assert anonymous.post("/api/v1/studies", json=definition("b").to_dict(), headers=alice).status_code == 201
