"""The API's process stays light, and plotly.js comes from this machine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from fastapi.testclient import TestClient

from nas.store import Store
from service.pages import PLOTLY_PATH, plotly_js

SCRIPT = """
import json
import sys

def loaded(*names):
    return [name for name in names if name in sys.modules]

import nas.cli
nas.cli.make_app("serve")
found = {"command line": loaded("sqlalchemy", "numpy", "plotly", "fsspec", "nas.commands.run")}
from nas.settings import Settings
from nas.store import Store
Store.open(Settings().database_url).close()
import service.app
from service.settings import ServiceSettings
app = service.app.create_app(Settings(token="0123456789abcdef"), ServiceSettings(worker=False))
slow = ("torch", "ray", "optuna", "pandas", "alembic", "mako", *service.app.LOADED_LATER, "narwhals", "pyarrow")
found["application"] = loaded(*slow)
for name in service.app.LOADED_LATER:
    __import__(name)

from fastapi.testclient import TestClient
from nas.definition.example import EXAMPLE
headers = {"Authorization": "Bearer 0123456789abcdef"}
with TestClient(app, base_url="http://localhost", headers=headers) as client:
    yaml = {"Content-Type": "application/yaml"}
    study = client.post("/api/v1/studies", content=EXAMPLE, headers=yaml).json()["study"]["id"]
    login = {"token": "0123456789abcdef"}
    assert client.post("/login", data=login, headers={"Origin": "http://localhost"}).status_code == 200
    for path in ("", "/trials", "/pareto", "/figures/front", "/figures/parallel", "/importances"):
        assert client.get(f"/api/v1/studies/{study}{path}").status_code == 200, path
    for path in ("/", "/new", "/help", "/help/api", f"/studies/{study}"):
        assert client.get(path).status_code == 200, path
    assert client.post("/api/v1/definitions/check", content=EXAMPLE, headers=yaml).json()["valid"]
found["session"] = loaded("torch", "ray", "torchvision", "timm", "optuna", "pandas")
import nas.client
found["client"] = loaded("torch")
print(json.dumps(found))
"""
"""Starts the application and uses it; prints what was loaded too early in each part."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What each part of one process loaded that it should not; the database is there before."""
    folder = tmp_path_factory.mktemp("light")
    Store.open(f"sqlite:///{folder}/nas.db").close()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_the_service_starts_without_what_is_slow_to_load(loaded: dict[str, list[str]]) -> None:
    assert (loaded["command line"], loaded["application"]) == ([], [])


def test_a_whole_session_loads_neither_torch_nor_ray(loaded: dict[str, list[str]]) -> None:
    assert (loaded["session"], loaded["client"]) == ([], [])


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_plotly_is_served_from_its_package_and_cached(anonymous: TestClient, encoding: str) -> None:
    response = anonymous.get(PLOTLY_PATH, headers={"Accept-Encoding": encoding})
    assert response.status_code == 200
    assert response.headers.get("content-encoding", "identity") == encoding
    assert int(response.headers["content-length"]) < plotly_js().stat().st_size / (2 if encoding == "gzip" else 0.99)
    assert response.headers["content-type"].startswith("text/javascript")
    assert "immutable" in response.headers["cache-control"]
    assert "plotly.js v" in response.text[:200]
