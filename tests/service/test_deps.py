"""What comes by HTTP is read as strictly as a file."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from nas.errors import DefinitionError
from service.deps import parse_definition
from tests.service.conftest import Place
from tests.service.fixture_study import FINISHED


@pytest.mark.parametrize(
    ("text", "key"),
    [('{"name": "x", "name": "y"}', "name"), ('{"sweep": {"trials": 1, "seed": 0, "trials": 2}}', "trials"),
     ('{"space": [{"a": [{"b": 1, "b": 1}]}]}', "b")],
)  # fmt: skip
def test_a_key_that_stands_twice_in_json(text: str, key: str) -> None:
    with pytest.raises(DefinitionError, match=rf"not valid JSON: the key '{key}' occurs twice in one object"):
        parse_definition(text, is_yaml=False)


def test_a_key_that_stands_twice_in_yaml() -> None:
    with pytest.raises(DefinitionError, match=r"not valid YAML: line 2, column 22: the key 'trials' occurs twice"):
        parse_definition("name: x\nsweep: {trials: 100, trials: 2}", is_yaml=True)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-le"])
def test_no_encoding_hides_a_repeated_key(api: TestClient, place: Place, encoding: str) -> None:
    study = place.store.study(FINISHED)
    body = '{"note": "first", "note": "second"}'.encode(encoding)
    answer = api.patch(f"/api/v1/studies/{study.id}", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert "the key 'note' occurs twice" in answer.text


def test_no_body_of_json_may_hold_a_key_twice(api: TestClient, place: Place) -> None:
    json, body = {"Content-Type": "application/json"}, '{"a": {"b": 1, "b": 2}}'
    answers = {
        (method, path): api.request(method, re.sub(r"{\w+}", "4", path), content=body, headers=json)
        for path, operations in place.app.openapi()["paths"].items()
        for method, operation in operations.items()
        if "application/json" in operation.get("requestBody", {}).get("content", ())
    }
    assert len(answers) >= 5
    for operation, answer in answers.items():
        assert "the key 'b' occurs twice" in answer.text, operation
        checks = operation == ("post", "/api/v1/definitions/check")  # which answers what is wrong
        assert answer.status_code == (200 if checks else 422), operation
