"""Tokens by the API and on their page: only admins, secrets once, revoked for good; no form from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from nas.tokens import Scope, TokenKind
from tests.service.conftest import BEARER, TOKEN, Place, serve
from tests.service.test_api import assert_error

OWN = {"Origin": "http://localhost"}


@pytest.fixture
def admin(anonymous: TestClient) -> TestClient:
    """A browser that is signed in with NAS_TOKEN."""
    assert anonymous.post("/login", data={"token": TOKEN}, headers=OWN).status_code == 303
    return anonymous


def test_a_token_is_created_listed_and_revoked(api: TestClient, place: Place) -> None:
    made = api.post("/api/v1/tokens", json={"name": "nightly", "scope": "write", "days": 90})
    assert made.status_code == 201
    body = made.json()
    with_it = {"Authorization": f"Bearer {body['secret']}"}
    assert api.get("/api/v1/studies", headers=with_it).status_code == 200
    listed = api.get("/api/v1/tokens").json()["tokens"]
    assert [(token["name"], token["scope"], token["valid"]) for token in listed] == [("nightly", "write", True)]
    assert body["secret"] not in api.get("/api/v1/tokens?everything=true").text
    revoked = api.delete("/api/v1/tokens/nightly").json()
    assert (revoked["valid"], revoked["revoked_at"] is None) == (False, False)
    place.app.state.identities.fresh_seconds = 0.0
    assert api.get("/api/v1/studies", headers=with_it).status_code == 401


@pytest.mark.parametrize(("body", "status", "words"), [
    ({"name": "no spaces"}, 400, "letters, digits"),
    ({"name": "taken"}, 409, "already"),
    ({"name": "a", "scope": "root"}, 422, "scope"),
    ({"name": "a", "days": 0}, 422, "days"),
    ({"name": "a", "day": 1}, 422, "day"),
])  # fmt: skip
def test_a_bad_request_creates_nothing(
    api: TestClient, place: Place, body: dict[str, object], status: int, words: str
) -> None:
    place.store.create_token("taken", Scope.READ)
    answer = api.post("/api/v1/tokens", json=body)
    assert answer.status_code == status
    assert words in answer.text
    assert len(place.store.tokens()) == 1


def test_only_admins_reach_tokens_by_any_method(anonymous: TestClient, place: Place) -> None:
    writer = {"Authorization": f"Bearer {place.store.create_token('writer', Scope.WRITE)[1]}"}
    for method, path in (("GET", ""), ("HEAD", ""), ("POST", ""), ("DELETE", "/writer"), ("GET", "/")):
        answer = anonymous.request(method, f"/api/v1/tokens{path}", headers=writer)
        assert answer.status_code == 403, (method, path)
    detail = assert_error(anonymous.get("/api/v1/tokens", headers=writer), 403, "ForbiddenError")
    assert detail == "writer has the scope write, but GET needs the scope admin"
    secret = place.store.open_session(place.store.tokens()[0])[1]
    cookie = {"Cookie": f"{place.app.state.identities.cookie_name}={secret}"}
    assert anonymous.get("/tokens", headers=cookie).status_code == 403
    assert "/tokens" not in anonymous.get("/", headers=cookie).text
    assert place.store.tokens()[0].revoked_at is None


def test_the_page_shows_a_secret_once(admin: TestClient, place: Place) -> None:
    made = admin.post("/tokens", data={"name": "alice", "scope": "read", "days": ""}, headers=OWN)
    assert made.status_code == 201
    found = re.search(r'id="secret" class="secret">(nas_[^<]+)<', made.text)
    assert found is not None
    assert made.headers["cache-control"] == "no-store"
    assert place.store.identify(found[1], TokenKind.TOKEN) is not None
    page = admin.get("/tokens").text
    assert "alice" in page
    assert "this browser" in page
    assert found[1] not in page
    token = place.store.tokens()[0]
    assert admin.post(f"/tokens/{token.id}/revoke", headers=OWN).headers["location"] == "/tokens"
    assert place.store.identify(found[1], TokenKind.TOKEN) is None


def test_the_page_keeps_what_was_entered_and_says_what_is_wrong(admin: TestClient, place: Place) -> None:
    answer = admin.post("/tokens", data={"name": "<b>x", "scope": "write", "days": "-1"}, headers=OWN)
    assert answer.status_code == 400
    assert "days" in answer.text
    assert 'value="&lt;b&gt;x"' in answer.text
    assert admin.post("/tokens", data={"name": "<b>x"}, headers=OWN).status_code == 400
    assert admin.post("/tokens", data={}, headers=OWN).status_code == 400
    assert admin.post("/tokens", content=b"name=" + b"x" * 5000, headers=OWN).status_code == 413
    assert admin.post("/tokens/nobody/revoke", headers=OWN).status_code == 404
    assert not place.store.tokens()


def test_no_form_of_another_site_is_followed(admin: TestClient, place: Place) -> None:
    token, _ = place.store.create_token("alice", Scope.READ)
    for headers in ({}, {"Origin": "https://evil.example"}, {**OWN, "Sec-Fetch-Site": "cross-site"}):
        for path in ("/tokens", f"/tokens/{token.id}/revoke"):
            assert admin.post(path, data={"name": "evil", "scope": "admin"}, headers=headers).status_code == 403
    assert [known.name for known in place.store.tokens()] == ["alice"]
    assert place.store.tokens()[0].revoked_at is None
    assert admin.get("/tokens", headers=BEARER).status_code == 200  # pages know the cookie alone


def test_the_command_does_the_same_at_a_service(
    nas: Callable[..., tuple[int, str, str]], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_TOKEN", TOKEN)
    with serve(place.app) as url:
        code, secret, err = nas("token", "create", "nightly", "--scope", "write", "--days", "9", "--server", url)
        assert code == 0, err
        assert place.store.identify(secret.strip(), TokenKind.TOKEN) is not None
        here = nas("token", "list", "--all", "--json", "--database", place.settings.database_url)
        assert nas("token", "list", "--all", "--json", "--server", url) == here
        assert nas("token", "revoke", "nightly", "--server", url)[0] == 0
        assert place.store.identify(secret.strip(), TokenKind.TOKEN) is None
        code, _, err = nas("token", "revoke", "none", "--server", url)
        assert (code, "there is no token 'none'" in err) == (2, True)
