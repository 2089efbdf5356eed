"""Behind a proxy: below a sub-path that it takes off or leaves on, and under another host name than browsers show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from nas.errors import InputError
from nas.settings import check_origin, check_root_path
from service.app import create_app
from service.settings import ServiceSettings
from tests.service.conftest import BEARER, TOKEN, Place
from tests.service.fixture_study import FINISHED, RUNNING
from tests.service.test_api import assert_error

ROOT = "/team/nas"
ORIGIN = "https://nas.example.org"
STATIC = Path(__file__).parents[2] / "service" / "pages" / "static"


@pytest.fixture(params=["taken off", "left on"])
def proxied(request: pytest.FixtureRequest, place: Place) -> Iterator[tuple[TestClient, str]]:
    """A browser's client, and what is to stand before each path as the service sees it."""
    app = create_app(place.settings, ServiceSettings(worker=False, root_path=f"{ROOT}/", origins=(ORIGIN,)))
    with TestClient(app, base_url="http://localhost", follow_redirects=False) as client:
        yield client, "" if request.param == "taken off" else ROOT


def sent(client: TestClient, prefix: str, url: str) -> int:
    """Ask for an address as a browser shows it, through the proxy; return the status."""
    assert url.startswith(f"{ROOT}/"), url
    return client.get(prefix + url.removeprefix(ROOT)).status_code


def keep_cookie(client: TestClient, answer: httpx.Response) -> None:
    """Send the cookie with every request: where the sub-path is taken off, the client sees none of its paths."""
    client.cookies.set(*answer.headers["set-cookie"].partition(";")[0].split("="))


def test_every_link_stays_below_the_sub_path(proxied: tuple[TestClient, str], place: Place) -> None:
    client, prefix = proxied
    first = client.get(f"{prefix}/", params={"link": place.store.create_link(), "x": "1"})
    assert (first.status_code, first.headers["location"]) == (303, f"{ROOT}/?x=1")
    assert f"Path={ROOT};" in first.headers["set-cookie"]
    keep_cookie(client, first)
    seen = set()
    for page in ("/", f"/studies/{FINISHED}", f"/studies/{RUNNING}/trials/0", "/none"):
        text = client.get(prefix + page).text
        for url in re.findall(r'(?:href|src|action)="([^"#]*)"', text):
            seen.add(urljoin(f"{ROOT}{page}", url))
    assert len(seen) > 12
    seen.remove(f"{ROOT}/logout")  # by POST
    assert {url: status for url in seen if (status := sent(client, prefix, url)) not in (200,)} == {}


def test_the_login_leads_back(proxied: tuple[TestClient, str]) -> None:
    client, prefix = proxied
    page = client.get(f"{prefix}/studies/{RUNNING}")
    assert page.status_code == 401
    assert f'action="{ROOT}/login"' in page.text
    assert f'name="next" value="{ROOT}/studies/{RUNNING}"' in page.text
    sent = {"token": TOKEN, "next": f"{ROOT}/studies/{RUNNING}"}
    answer = client.post(f"{prefix}/login", data=sent, headers={"Origin": ORIGIN})
    assert answer.headers["location"] == f"{ROOT}/studies/{RUNNING}"
    answer = client.post(f"{prefix}/login", data={"token": TOKEN}, headers={"Origin": ORIGIN})
    assert answer.headers["location"] == f"{ROOT}/"


def test_the_api_and_its_description(proxied: tuple[TestClient, str]) -> None:
    client, prefix = proxied
    assert client.get(f"{prefix}/api/v1/studies", headers=BEARER).status_code == 200
    assert client.get(f"{prefix}/api/v1/healthz").status_code == 200
    assert_error(client.get(f"{prefix}/api/v1/none", headers=BEARER), 404, "NotFoundError")
    assert_error(client.get(f"{prefix}/api/v1/studies"), 401, "Unauthorized")
    assert client.get(f"{prefix}/api/openapi.json", headers=BEARER).json()["servers"] == [{"url": ROOT}]


def test_the_sub_path_itself_is_the_first_page(place: Place) -> None:
    with TestClient(create_app(place.settings, ServiceSettings(worker=False, root_path=ROOT))) as client:
        assert "Access token" in client.get(f"http://localhost{ROOT}").text


def test_scripts_name_each_other_and_the_api_relatively() -> None:
    for file in STATIC.glob("*.js"):
        text = file.read_text()
        assert not re.search(r"""(from|fetch\(|assign\(|href\s*=)\s*["'`]/""", text), file.name


@pytest.mark.parametrize(
    ("origin", "status"), [(ORIGIN, 202), (ORIGIN.upper(), 202), ("https://evil.example", 403), ("null", 403)]
)
def test_a_proxy_that_asks_under_another_name(proxied: tuple[TestClient, str], origin: str, status: int) -> None:
    client, prefix = proxied
    keep_cookie(client, client.post(f"{prefix}/login", data={"token": TOKEN}, headers={"Origin": ORIGIN}))
    assert client.post(f"{prefix}/api/v1/studies/{RUNNING}/stop", headers={"Origin": origin}).status_code == status
    cross = {"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"}
    assert client.post(f"{prefix}/api/v1/studies/{RUNNING}/stop", headers=cross).status_code == 403


@pytest.mark.parametrize("path", ["nas", "//evil.example", "/a//b", "/a b", '/a"onload=x', "/a/?x", "https://x"])
def test_what_is_no_sub_path_is_refused(path: str) -> None:
    with pytest.raises((InputError, ValidationError), match="must be a path such as /nas"):
        ServiceSettings(root_path=path)


@pytest.mark.parametrize("origin", ["nas.example.org", "https://nas.example.org/nas", "ftp://x", "*", "https://a b"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises((InputError, ValidationError), match="must be an address without a path"):
        ServiceSettings(origins=origin)


def test_what_is_one() -> None:
    assert [check_root_path(path, "x") for path in ("", "/", "/nas", "/a/b-c/")] == ["", "", "/nas", "/a/b-c"]
    assert check_origin("HTTPS://Nas.Example.org:8443/", "x") == "https://nas.example.org:8443"
    assert ServiceSettings(origins="https://a.example, http://[::1]:80").origins == ("https://a.example", "http://[::1]:80")
