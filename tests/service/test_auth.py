"""Who may ask: tokens, cookies, other sites' pages, foreign host names."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from nas.errors import InputError
from nas.settings import Settings
from nas.tokens import Scope
from service.app import create_app
from service.headers import CONTENT_SECURITY_POLICY
from service.identity import Identities
from service.settings import ServiceSettings
from tests.service.conftest import BEARER, TOKEN, Place
from tests.service.fixture_study import RUNNING
from tests.service.test_api import assert_error

STUDIES = "/api/v1/studies"


OWN = {"Origin": "http://localhost"}


def sign_in(client: TestClient, place: Place, **link: object) -> None:
    """Give ``client`` the cookie, as a browser gets it."""
    secret = place.store.create_link(**link)  # type: ignore[arg-type]
    assert client.get("/", params={"link": secret}).status_code == 303


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

    def test_no_address_holds_a_token(self, anonymous: TestClient, place: Place) -> None:
        for name in ("token", "link"):
            assert_error(anonymous.get(STUDIES, params={name: TOKEN}), 401, "Unauthorized")
            assert anonymous.get("/", params={name: TOKEN}).status_code == 401
        assert_error(anonymous.get(STUDIES, params={"link": place.store.create_link()}), 401, "Unauthorized")

    def test_no_change_without_it(self, anonymous: TestClient, place: Place) -> None:
        for action in ("stop", "resume", "trials/0/exports"):
            assert_error(anonymous.post(f"{STUDIES}/{RUNNING}/{action}"), 401, "Unauthorized")
        assert len(place.store.jobs()) == 2

    def test_there_is_none_by_default(self) -> None:
        assert Settings(token=None).checked_token() is None

    @pytest.mark.parametrize("token", ["", "short", "with spaces in between", "ünicode-is-not-for-headers"])
    def test_a_poor_one_is_refused_at_start(self, token: str) -> None:
        with pytest.raises(InputError, match="NAS_TOKEN"):
            Settings(token=token).checked_token()


class TestPages:
    def test_a_stranger_gets_the_login(self, anonymous: TestClient) -> None:
        response = anonymous.get("/studies/secret-name")
        assert response.status_code == 401
        assert "Access token" in response.text
        assert 'name="next" value="/studies/secret-name"' in response.text

    def test_a_link_leaves_a_cookie_once_and_the_address_is_cleaned(self, anonymous: TestClient, place: Place) -> None:
        query = {"link": place.store.create_link(), "x": "params"}
        assert anonymous.head(f"/studies/{RUNNING}", params=query).status_code == 401  # a preview does not use it up
        response = anonymous.get(f"/studies/{RUNNING}", params=query)
        assert (response.status_code, response.headers["location"]) == (303, f"/studies/{RUNNING}?x=params")
        cookie = response.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        assert "Secure" not in cookie
        assert query["link"] not in cookie
        assert anonymous.get(f"/studies/{RUNNING}").status_code == 200
        assert anonymous.get(STUDIES).status_code == 200
        again = anonymous.get("/", params=query)  # the history of the browser that used it
        assert (again.status_code, again.headers["location"]) == (303, "/?x=params")
        anonymous.cookies.clear()
        stranger = anonymous.get("/", params=query)
        assert stranger.status_code == 401
        assert "once" in stranger.text
        assert "set-cookie" not in stranger.headers

    def test_the_cookie_is_for_tls_only_where_there_is_tls(self, place: Place) -> None:
        with TestClient(place.app, base_url="https://localhost", follow_redirects=False) as client:
            answer = client.get("/", params={"link": place.store.create_link()})
        assert "Secure" in answer.headers["set-cookie"]

    def test_never_to_another_site(self, anonymous: TestClient, place: Place) -> None:
        for path in ("//evil.example/", "/%5C/evil.example", "//evil.example"):
            response = anonymous.get(f"http://localhost{path}", params={"link": place.store.create_link()})
            assert response.headers["location"].startswith("/")
            assert response.headers["location"][1] not in "/\\"
        for target in ("//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil.example"):
            response = anonymous.post("/login", data={"token": TOKEN, "next": target}, headers=OWN)
            location = response.headers["location"]
            assert location.startswith("/")
            assert location[1] not in "/\\"

    def test_the_login_form(self, anonymous: TestClient, place: Place) -> None:
        wrong = anonymous.post("/login", data={"token": "wrong", "next": "/x"}, headers=OWN)
        assert wrong.status_code == 401
        assert 'value="/x"' in wrong.text
        assert anonymous.post("/login", data={"token": "x" * 5000}, headers=OWN).status_code == 413
        for headers in ({}, {"Origin": "https://evil.example"}):
            assert anonymous.post("/login", data={"token": TOKEN}, headers=headers).status_code == 403
        _, secret = place.store.create_token("alice", Scope.WRITE)
        for token, owner in ((TOKEN, "NAS_TOKEN"), (secret, "alice")):
            anonymous.cookies.clear()
            right = anonymous.post("/login", data={"token": f" {token}\n", "next": f"/studies/{RUNNING}"}, headers=OWN)
            assert (right.status_code, right.headers["location"]) == (303, f"/studies/{RUNNING}")
            assert token not in right.headers["set-cookie"]
            assert f"session of {owner} " in anonymous.get("/").text

    def test_signing_out_ends_the_session_itself(self, anonymous: TestClient, place: Place) -> None:
        sign_in(anonymous, place)
        cookies = dict(anonymous.cookies)
        assert anonymous.post("/logout").status_code == 403  # not by a page of another site
        assert anonymous.get(STUDIES).status_code == 200
        assert anonymous.post("/logout", headers=OWN).status_code == 303
        assert dict(anonymous.cookies) == {}
        anonymous.cookies.update(cookies)
        assert anonymous.get(STUDIES).status_code == 401
        assert "session has ended" in anonymous.get("/").text

    def test_a_reader_signs_out_as_well(self, anonymous: TestClient, place: Place) -> None:
        sign_in(anonymous, place, scope=Scope.READ)
        assert anonymous.post("/logout", headers=OWN).status_code == 303

    def test_revocation_ends_a_session(self, anonymous: TestClient, place: Place) -> None:
        _, secret = place.store.create_token("alice", Scope.READ)
        sign_in(anonymous, place, token="alice")
        bearer = {"Authorization": f"Bearer {secret}"}
        assert anonymous.get("/").status_code == 200
        assert anonymous.get(STUDIES, headers=bearer).status_code == 200
        place.store.revoke_token("alice")
        place.app.state.identities.fresh_seconds = 0.0  # a second has passed
        assert anonymous.get("/").status_code == 401
        assert anonymous.get(STUDIES, headers=bearer).status_code == 401

    def test_another_nas_token_ends_the_sessions_of_the_old_one(self, anonymous: TestClient, place: Place) -> None:
        assert anonymous.post("/login", data={"token": TOKEN}, headers=OWN).status_code == 303
        settings = place.settings.model_copy(update={"token": SecretStr("another-token-of-16")})
        with TestClient(create_app(settings, ServiceSettings(worker=False)), base_url="http://localhost") as other:
            other.cookies.update(dict(anonymous.cookies))
            assert other.get(STUDIES).status_code == 401

    def test_two_services_of_one_host_have_cookies_of_their_own(self) -> None:
        names = {Identities(None, f"sqlite:///{name}.db").cookie_name for name in ("a", "b", "./a")}
        assert len(names) == 2

    def test_texts_are_escaped(self, anonymous: TestClient, place: Place) -> None:
        sign_in(anonymous, place)
        text = anonymous.get(f"/studies/{RUNNING}").text
        assert "&lt;b&gt;at equal cost&lt;/b&gt;" in text
        assert "<b>at equal cost" not in text
        assert "<b>" not in anonymous.get("/studies/<b>x").text

    def test_errors_are_pages(self, anonymous: TestClient, place: Place) -> None:
        sign_in(anonymous, place)
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
        sign_in(anonymous, place)
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
