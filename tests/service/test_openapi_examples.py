"""The description of the API shows an example of each body that a request which succeeds answers."""

from __future__ import annotations

import jsonschema
from fastapi.testclient import TestClient

BINARY = {"application/zip", "application/vnd.apache.parquet"}


def test_every_answer_has_an_example_that_its_schema_allows(anonymous: TestClient) -> None:
    document = anonymous.app.openapi()  # type: ignore[attr-defined]
    seen = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                for media, facts in answer.get("content", {}).items() if status.startswith("2") else ():
                    if media in BINARY:
                        continue
                    assert "example" in facts, (method, path, status, media)
                    if media == "application/json":
                        schema = {**facts["schema"], "components": document["components"]}
                        jsonschema.Draft202012Validator(schema).validate(facts["example"])
                        seen += 1
    assert seen > 40
