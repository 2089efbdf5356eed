"""Who may ask: tokens, cookies, other sites' pages, foreign host names."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from nas.errors import InputError
from nas.settings import Settings
from service.auth import CONTENT_SECURITY_POLICY
from service.settings import ServiceSettings
from tests.service.conftest import BEARER, TOKEN, Place
from tests.service.fixture_study import RUNNING
from tests.service.test_api import assert_error

STUDIES = "/api/v1/studies"


def sign_in(client: TestClient) -> None:
    """Give ``client`` the cookie, as a browser gets it."""
    assert client.get("/", params={"token": TOKEN}).status_code == 303


class TestToken:
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": f"Bearer {TOKEN}x"},
            {"Authorization": b"Bearer \xff\xfe"},
            {"Cookie": f"nas_session={TOKEN}"},
        ],
    )
    @pytest.mark.parametrize("path", [STUDIES, f"{STUDIES}/{RUNNING}", "/api/openapi.json", "/api/v1/none"])
    def test_nothing_of_the_api_is_open(self, anonymous: TestClient, path: str, headers: dict[str, str]) -> None:
        response = anonymous.get(path, headers=headers)
        assert "token" in assert_error(response, 401, "Unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"

    def test_bearer(self, anonymous: TestClient) -> None:
        assert anonymous.get(STUDIES, headers=BEARER).status_code == 200
        assert anonymous.get(STUDIES, headers={"Authorization": f"bearer  {TOKEN} "}).status_code == 200

    def test_the_api_takes_no_token_from_the_address(self, anonymous: TestClient) -> None:
        assert_error(anonymous.get(STUDIES, params={"token": TOKEN}), 401, "Unauthorized")

    def test_no_change_without_it(self, anonymous: TestClient, place: Place) -> None:
        for action in ("stop", "resume", "trials/0/exports"):
            assert_error(anonymous.post(f"{STUDIES}/{RUNNING}/{action}"), 401, "Unauthorized")
        assert len(place.store.jobs()) == 2

    def test_made_at_start_and_random(self) -> None:
        first, second = Settings(token=None).access_token(), Settings(token=None).access_token()
        assert first != second
        assert len(first) == 64

    @pytest.mark.parametrize("token", ["", "short", "with spaces in between", "ünicode-is-not-for-headers"])
    def test_a_poor_one_is_refused_at_start(self, token: str) -> None:
        with pytest.raises(InputError, match="NAS_TOKEN"):
            Settings(token=token).access_token()


class TestPages:
    def test_a_stranger_gets_the_login(self, anonymous: TestClient) -> None:
        response = anonymous.get("/studies/secret-name")
        assert response.status_code == 401
        assert "Access token" in response.text
        assert 'name="next" value="/studies/secret-name"' in response.text

    def test_the_address_with_the_token_leaves_a_cookie_and_is_cleaned(self, anonymous: TestClient) -> None:
        response = anonymous.get(f"/studies/{RUNNING}", params={"token": TOKEN, "x": "params"})
        assert (response.status_code, response.headers["location"]) == (303, f"/studies/{RUNNING}?x=params")
        cookie = response.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "Path=/" in cookie
        assert TOKEN not in cookie
        assert anonymous.get(f"/studies/{RUNNING}").status_code == 200
        assert anonymous.get(STUDIES).status_code == 200

    def test_a_wrong_token_in_the_address(self, anonymous: TestClient) -> None:
        response = anonymous.get("/", params={"token": "wrong"})
        assert response.status_code == 401
        assert "set-cookie" not in response.headers

    def test_never_to_another_site(self, anonymous: TestClient) -> None:
        for path in ("//evil.example/", "/%5C/evil.example", "//evil.example"):
            response = anonymous.get(f"http://localhost{path}", params={"token": TOKEN})
            assert response.headers["location"].startswith("/")
            assert response.headers["location"][1] not in "/\\"
        for target in ("//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil.example"):
            response = anonymous.post("/login", data={"token": TOKEN, "next": target})
            location = response.headers["location"]
            assert location.startswith("/")
            assert location[1] not in "/\\"

    def test_the_login_form(self, anonymous: TestClient) -> None:
        wrong = anonymous.post("/login", data={"token": "wrong", "next": "/x"})
        assert wrong.status_code == 401
        assert 'value="/x"' in wrong.text
        assert anonymous.post("/login", data={"token": "x" * 5000}).status_code == 413
        right = anonymous.post("/login", data={"token": f" {TOKEN}\n", "next": f"/studies/{RUNNING}"})
        assert (right.status_code, right.headers["location"]) == (303, f"/studies/{RUNNING}")
        assert anonymous.get("/").status_code == 200

    def test_texts_are_escaped(self, anonymous: TestClient) -> None:
        sign_in(anonymous)
        text = anonymous.get(f"/studies/{RUNNING}").text
        assert "&lt;b&gt;at equal cost&lt;/b&gt;" in text
        assert "<b>at equal cost" not in text
        assert "<b>" not in anonymous.get("/studies/<b>x").text

    def test_errors_are_pages(self, anonymous: TestClient) -> None:
        sign_in(anonymous)
        for path, status in (("/none", 404), ("/studies/none", 404), (f"/studies/{RUNNING}/trials/99", 404),
                             (f"/studies/{RUNNING}?x=speed", 400)):  # fmt: skip
            response = anonymous.get(path)
            assert response.status_code == status
            assert response.headers["content-type"].startswith("text/html")
            assert "Back to the studies" in response.text


class TestOtherSites:
    @pytest.mark.parametrize(
        ("headers", "allowed"),
        [
            ({"Origin": "http://localhost"}, True),
            ({"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}, True),
            ({"Sec-Fetch-Site": "same-origin"}, True),
            ({}, False),
            ({"Origin": "null"}, False),
            ({"Origin": "https://evil.example"}, False),
            ({"Origin": "http://localhost:9999"}, False),
            ({"Origin": "http://localhost.evil.example"}, False),
            ({"Sec-Fetch-Site": "cross-site"}, False),
            ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"}, False),
        ],
    )
    def test_a_cookie_alone_changes_nothing(
        self, anonymous: TestClient, place: Place, headers: dict[str, str], allowed: bool
    ) -> None:
        sign_in(anonymous)
        response = anonymous.post(f"{STUDIES}/{RUNNING}/stop", headers=headers)
        if allowed:
            assert response.status_code == 202
        else:
            assert_error(response, 403, "CrossSiteRequest")
        search = place.store.jobs(place.store.study(RUNNING).id)[0]
        assert (search.desired.value == "stopped") is allowed

    def test_a_bearer_needs_no_origin(self, anonymous: TestClient) -> None:
        assert anonymous.post(f"{STUDIES}/{RUNNING}/stop", headers=BEARER).status_code == 202

    @pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "192.168.0.1", "", "127.0.0.1.nip.io"])
    def test_foreign_host_names_are_refused(self, anonymous: TestClient, host: str) -> None:
        for path in (STUDIES, "/", "/static/style.css"):
            response = anonymous.get(path, headers={"Host": host, **BEARER})
            assert response.status_code == 421
        assert anonymous.get("/api/v1/healthz", headers={"Host": host}).status_code == 200

    @pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:1", "[::1]:8000", "LOCALHOST", "127.1.2.3"])
    def test_loopback_names_are_ours(self, anonymous: TestClient, host: str) -> None:
        assert anonymous.get(STUDIES, headers={"Host": host, **BEARER}).status_code == 200

    def test_further_names_are_configured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NAS_SERVICE_HOSTS", "nas.example, Other.example")
        settings = ServiceSettings()
        assert settings.allows("nas.example")
        assert settings.allows("other.example")
        assert not settings.allows("example")
        assert ServiceSettings(hosts=("*",)).allows("anything")


class TestHeaders:
    @pytest.mark.parametrize("path", ["/", STUDIES, "/api/v1/healthz", "/static/style.css", "/none", "/static/none"])
    def test_on_every_answer(self, anonymous: TestClient, path: str) -> None:
        headers = anonymous.get(path).headers
        assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"

    def test_caching(self, api: TestClient) -> None:
        assert api.get(STUDIES).headers["cache-control"] == "private, no-cache"
        assert api.get("/api/v1/queue").headers["cache-control"] == "no-store"
        assert api.get("/static/style.css").headers["cache-control"] == "no-cache"

    def test_static_files_do_not_climb(self, anonymous: TestClient) -> None:
        for path in ("/static/../auth.py", "/static/%2e%2e/views.py", "/static/..%2fviews.py"):
            assert anonymous.get(path).status_code in (401, 404)
