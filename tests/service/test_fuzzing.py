"""Whatever is sent, the service does not fail: requests made from the API's own description, and broken definitions."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nas.wire.bodies import ErrorBody
from service.deps import parse_definition
from tests.service.conftest import BEARER, Place, place_in
from tests.service.fixture_study import FINISHED, RUNNING, definition, finished_study, running_study

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (the extra `dev`)")

FEW, MANY = 2, 300
# Each example shares one database on purpose: the state that others leave behind is part of the test.
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large,
          HealthCheck.filter_too_much, HealthCheck.large_base_example]  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, TestClient]]:
    """A service with a finished and a running study, and a client that carries the token."""
    with place_in(tmp_path_factory.mktemp("fuzzed")) as place:
        finished_study(place.store)
        running_study(place.store)
        place.app.state.service.change_rate = place.app.state.service.rate = 1e9
        with TestClient(
            place.app,
            base_url="http://localhost",
            headers=BEARER,
            raise_server_exceptions=False,
            follow_redirects=False,
        ) as client:
            place.app.state.hub.close()  # a stream of events ends at once; the client of tests waits for its end
            yield place, client


def check_answers(shared: tuple[Place, TestClient], examples: int) -> int:
    """Send requests made from the description to every operation; return their number."""
    place, client = shared
    schema = schemathesis.openapi.from_dict(place.app.openapi())
    sent = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(max_examples=examples, derandomize=examples == FEW, deadline=None, suppress_health_check=CHECKS)
        @given(case=operation.as_strategy(), reference=st.sampled_from([None, FINISHED, RUNNING]))
        def answers(case: Any, reference: str | None) -> None:
            nonlocal sent
            if reference is not None and "study_ref" in (case.path_parameters or {}):
                case.path_parameters["study_ref"] = reference
            _check(client, case)
            sent += 1

        answers()
    return sent


def _check(client: TestClient, case: Any) -> None:
    arguments = case.as_transport_kwargs(base_url="http://localhost")
    known = {"method", "url", "headers", "params", "data", "json", "files"}
    request = requests.Request(**{key: value for key, value in arguments.items() if key in known}).prepare()
    headers = {key: value for key, value in request.headers.items() if key.lower() != "content-length"}
    answer = client.request(request.method, request.url, content=request.body, headers={**headers, **BEARER})
    assert answer.status_code < 500, (request.method, request.url, request.body, answer.text)
    if answer.status_code >= 400 and answer.headers.get("content-type") == "application/json":
        assert ErrorBody.model_validate_json(answer.content).detail


def test_no_request_of_the_description_makes_the_service_fail(shared: tuple[Place, TestClient]) -> None:
    assert check_answers(shared, FEW) > 25


@pytest.mark.long
def test_no_request_of_the_description_makes_the_service_fail_in_many_cases(shared: tuple[Place, TestClient]) -> None:
    assert check_answers(shared, MANY) > 1000


SOURCES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from([[], {}, "1/4"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values within JSON."""
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from places(value, (*path, key))


@st.composite
def broken_definitions(draw: st.DrawFn) -> dict[str, Any]:
    """A definition with some values replaced, removed or added."""
    data: dict[str, Any] = json.loads(json.dumps(definition("fuzzed").to_dict()))
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from(list(places(data)) or [("name",)]))
        inner: Any = data
        for key in parents:
            inner = inner[key]
        how = draw(st.sampled_from(["replace", "remove", "add"]))
        if how == "replace":
            inner[last] = draw(JSON)
        elif how == "remove" and isinstance(inner, dict):
            inner.pop(last, None)
        elif isinstance(inner, dict):
            inner[draw(st.text(max_size=8))] = draw(JSON)
    return copy.deepcopy(data)


class TestDefinitions:
    @settings(max_examples=60, deadline=None, suppress_health_check=CHECKS)
    @given(data=broken_definitions())
    def test_a_broken_definition_is_refused_in_words_or_runs_as_it_reads(
        self, shared: tuple[Place, TestClient], data: dict[str, Any]
    ) -> None:
        _, client = shared
        kind = {"Content-Type": "application/json"}
        answer = client.post("/api/v1/studies", content=json.dumps(data).encode("utf-8", "replace"), headers=kind)
        assert answer.status_code in (201, 422, 404, 400, 429), answer.text
        if answer.status_code == 422:
            body = ErrorBody.model_validate_json(answer.content)
            assert body.faults
            assert all(fault.strip() for fault in body.faults)
        elif answer.status_code == 201:
            stored = client.get(f"/api/v1/studies/{answer.json()['study']['id']}").json()["definition"]
            assert parse_definition(json.dumps(stored), False).to_dict() == stored

    @settings(max_examples=100, deadline=None, suppress_health_check=CHECKS)
    @given(text=st.text(max_size=300) | st.binary(max_size=300), kind=st.sampled_from(["json", "yaml"]))
    def test_any_text_is_answered(self, shared: tuple[Place, TestClient], text: str | bytes, kind: str) -> None:
        content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        headers = {"Content-Type": f"application/{kind}"}
        answer = shared[1].post("/api/v1/studies", content=content, headers=headers)
        assert answer.status_code == 422, answer.text
