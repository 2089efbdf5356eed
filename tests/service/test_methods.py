"""Which methods an address answers: HEAD wherever GET, and 405 with all that is possible."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.pages import PLOTLY_PATH
from service.settings import ServiceSettings
from tests.service.conftest import BEARER, Place
from tests.service.fixture_study import RUNNING

PAGES = ("/", f"/studies/{RUNNING}", f"/studies/{RUNNING}/trials/0", "/static/style.css", "/none", PLOTLY_PATH)


def got(place: Place) -> list[str]:
    """Return an address for each route of the API that takes GET, by its own description."""
    search = place.store.jobs(place.store.study(RUNNING).id)[0]
    values = {"{study_ref}": RUNNING, "{number}": "0", "{job_id}": search.id}
    found = []
    for path, operations in place.app.openapi()["paths"].items():
        for name, value in values.items():
            path = path.replace(name, value)
        if "get" in operations:
            found.append(path)
    return found


def test_head_is_answered_wherever_get_is(api: TestClient, place: Place) -> None:
    addresses = [*got(place), "/api/openapi.json", *PAGES]
    assert len(addresses) > 15
    for address in addresses:
        full, head = api.get(address), api.head(address)
        assert head.status_code == full.status_code, address
        assert head.content == b""
        assert head.headers["content-type"] == full.headers["content-type"]
        assert head.headers["content-security-policy"]
        if "content-length" in full.headers and not address.endswith("/metrics"):  # its counts grow with each request
            assert head.headers["content-length"] == full.headers["content-length"], address


def test_head_needs_the_token_as_get_does(anonymous: TestClient) -> None:
    assert anonymous.head("/api/v1/healthz").status_code == 200
    for address in ("/", "/api/v1/studies", f"/studies/{RUNNING}"):
        assert anonymous.head(address).status_code == 401


def test_an_etag_is_known_again_by_any_process(api: TestClient, place: Place) -> None:
    app, known = create_app(place.settings, ServiceSettings(worker=False)), 0
    with TestClient(app, base_url="http://localhost", headers=BEARER) as other:
        for address in got(place):
            etag = api.get(address).headers.get("etag")
            for client in (api, other) if etag else ():
                again = client.get(address, headers={"If-None-Match": etag})
                assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag), address
                known += 1
    assert known > 30


@pytest.mark.parametrize(
    ("method", "address", "allowed"),
    [
        ("DELETE", "/api/v1/studies", "GET, HEAD, POST"),
        ("PUT", f"/api/v1/studies/{RUNNING}", "GET, HEAD, PATCH, DELETE"),
        ("GET", f"/api/v1/studies/{RUNNING}/stop", "POST"),
        ("HEAD", f"/api/v1/studies/{RUNNING}/stop", "POST"),
    ],
)
def test_what_is_not_possible_names_all_that_is(api: TestClient, method: str, address: str, allowed: str) -> None:
    response = api.request(method, address)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)


def test_the_description_lists_each_operation_once(place: Place) -> None:
    operations = [operation for methods in place.app.openapi()["paths"].values() for operation in methods]
    assert set(operations) == {"get", "post", "patch", "delete"}
