"""Requests as HTTP has them: parameters, heads, lost clients, ids, logs, metrics, errors of one shape."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from fastapi.testclient import TestClient

from nas.definition.study import parse_study
from nas.errors import DefinitionError
from nas.wire.bodies import ErrorBody
from service.app import create_app
from service.examples import definition_content, error_responses
from service.request_log import JsonLines
from service.settings import ServiceSettings
from tests.service.conftest import BEARER, Place
from tests.service.fixture_study import FINISHED, definition
from tests.service.test_api import assert_error

ROOT = "/api/v1"


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/studies?limit=1&stat=queued", "did you mean state?"),
        ("GET", f"/studies/{FINISHED}?x=1", "takes none"),
        ("GET", f"/studies/{FINISHED}/trials?limit=1&limit=2", "limit is given 2 times"),
        ("GET", "/queue?x=1", "unknown parameter 'x'"),
        ("POST", f"/studies/{FINISHED}/extend?trails=3", "did you mean trials?"),
    ],
)
def test_no_parameter_is_ignored(api: TestClient, method: str, path: str, expected: str) -> None:
    assert expected in assert_error(api.request(method, f"{ROOT}{path}"), 400, "InputError")


def test_heads_and_methods(api: TestClient, place: Place) -> None:
    paths = api.get("/api/openapi.json").json()["paths"]
    values = {"{study_ref}": FINISHED, "{number}": "3"}
    for path, methods in paths.items():
        for name, value in values.items():
            path = path.replace(name, value)
        if "{" in path:
            continue
        if "get" in methods and not any(
            entry["in"] == "query" and entry.get("required") for entry in methods["get"].get("parameters", ())
        ):
            head = api.head(path)
            assert (head.status_code, head.content) == (200, b""), path
        wrong = api.put(path)
        allowed = {name.upper() for name in methods} | ({"HEAD"} if "get" in methods else set())
        assert set(wrong.headers["allow"].split(", ")) == allowed, path


def test_a_client_that_goes_away_leaves_no_traceback(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    headers = [(b"host", b"localhost"), (b"content-type", b"application/yaml")]
    headers += [(key.lower().encode(), value.encode()) for key, value in BEARER.items()]
    scope = {"type": "http", "method": "POST", "path": f"{ROOT}/studies", "raw_path": f"{ROOT}/studies".encode(),
             "query_string": b"", "headers": headers, "scheme": "http", "server": ("localhost", 80),
             "client": ("127.0.0.1", 1), "http_version": "1.1", "asgi": {"version": "3.0"}}  # fmt: skip
    messages = [{"type": "http.request", "body": b"name: x", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, object]:
        return messages.pop(0)

    async def send(message: object) -> None:
        del message

    with TestClient(place.app, base_url="http://localhost"):
        asyncio.run(place.app(scope, receive, send))  # raises nothing
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert len(place.store.studies()) == 2


def test_each_request_has_an_id(api: TestClient) -> None:
    given = api.get(f"{ROOT}/version", headers={"X-Request-ID": "from-a-proxy-1"})
    assert given.headers["x-request-id"] == "from-a-proxy-1"
    made = api.get(f"{ROOT}/version", headers={"X-Request-ID": "a b\tc"}).headers["x-request-id"]
    assert len(made) == 16


def test_the_log_is_json_and_holds_no_token(api: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "service.requests"):
        api.get(f"{ROOT}/studies/{FINISHED}/trials/3?evaluation=finetuned")
        api.get("/?token=secret")
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records if record.name == "service.requests"]
    assert [line["status"] for line in lines] == [200, 401]
    assert lines[0]["route"].endswith("/trials/{number}")
    assert lines[0]["ms"] >= 0
    assert "secret" not in json.dumps(lines)


def test_metrics_count_requests_and_studies(api: TestClient, place: Place) -> None:
    for number in (1, 2, 3):
        api.get(f"{ROOT}/studies/{FINISHED}/trials/{number}")
    text = api.get(f"{ROOT}/metrics").text
    route = "/studies/{study_ref}/trials/{number}"
    [line] = [line for line in text.splitlines() if line.startswith("nas_http_requests_total") and f'{route}"' in line]
    assert line.endswith(" 3.0")
    for expected in ('nas_studies{state="finished"} 1.0', 'nas_trials{state="failed"} 1.0',
                     'nas_jobs{kind="search",state="running"} 1.0', "nas_event_listeners 0.0"):  # fmt: skip
        assert expected in text


def test_probes_need_no_token_and_tell_the_end(anonymous: TestClient, place: Place) -> None:
    assert anonymous.get(f"{ROOT}/readyz").json()["ready"] is True
    place.app.state.stopping = True
    answer = anonymous.get(f"{ROOT}/readyz")
    assert (answer.status_code, answer.json()["reason"]) == (503, "it stops")
    assert anonymous.get(f"{ROOT}/metrics").status_code == 401


def test_the_examples_are_valid(api: TestClient) -> None:
    parse_study(definition_content()["application/json"]["example"])
    for answer in error_responses().values():
        ErrorBody.model_validate(answer["content"]["application/problem+json"]["example"])
    described = api.get("/api/openapi.json").json()
    assert described["security"] == [{"bearer": []}]
    for path, methods in described["paths"].items():
        for method, facts in methods.items():
            assert {"400", "401", "404", "413", "415", "421", "422", "500"} <= set(facts["responses"]), (path, method)


def test_all_faults_come_in_one_answer(api: TestClient) -> None:
    body = {**definition("x").to_dict(), "name": "x y", "sweep": {"trials": -1}, "objectives": ["top1", "top1"],
            "baselines": [2], "constraints": ["speed < 3"]}  # fmt: skip
    body["space"] = {"target": {"log_uniform": [2, 8]}, "speed": 3}
    body["latency"], body["budget"] = None, {"unit": "latency", "scope": "network"}
    faults = api.post(f"{ROOT}/studies", json=body).json()["faults"]
    for place in ("name", "sweep.trials", "objectives", "baselines", "constraints", "speed", "latency"):
        assert any(place in fault for fault in faults), (place, faults)


def test_a_fault_that_follows_from_another_is_not_told() -> None:
    wrong = {"name": "x", "data": {"name": "digits"}, "space": {"target": 9}, "latency": {"table": 7},
             "budget": {"unit": "latency", "scope": "network"}}  # fmt: skip
    with pytest.raises(DefinitionError) as caught:
        parse_study(wrong)
    assert [line for line in str(caught.value).splitlines() if "needs a latency table" in line] == []


def test_missing_data_and_targets_out_of_reach_are_refused_at_once(place: Place) -> None:
    app = create_app(place.settings, ServiceSettings(worker=False, check_launches=True))
    with TestClient(app, base_url="http://localhost", headers=BEARER) as api:
        body = {"name": "far", "data": {"name": "cifar10"}, "space": {"target": 1000}}
        answer = api.post(f"{ROOT}/studies", json=body)
    assert_error(answer, 422, "DefinitionError")
    faults = answer.json()["faults"]
    assert len(faults) == 2
    assert any("data.name" in fault and "cifar10" in fault for fault in faults)
    assert any("space: target 1000" in fault for fault in faults)
    assert len(place.store.studies()) == 2
