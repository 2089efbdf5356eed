"""The API's process stays light, and plotly.js comes from this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fastapi.testclient import TestClient

from nas.store import Store
from service.pages import PLOTLY_PATH

SCRIPT = """
import sys
from fastapi.testclient import TestClient
from nas.settings import Settings
from service.app import create_app
from service.settings import ServiceSettings
from nas.definition.example import EXAMPLE

app = create_app(Settings(token="0123456789abcdef"), ServiceSettings(worker=False))
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
heavy = [name for name in ("torch", "ray", "torchvision", "timm", "optuna", "pandas") if name in sys.modules]
assert not heavy, heavy
import nas.client
assert "torch" not in sys.modules
"""


def test_a_whole_session_loads_neither_torch_nor_ray(tmp_path: object) -> None:
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=str(tmp_path), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


START = """
import sys
import nas.cli
nas.cli.make_app("serve")
loaded = [name for name in ("sqlalchemy", "numpy", "plotly", "fsspec", "nas.commands.run") if name in sys.modules]
assert not loaded, f"the command line loads {loaded}"
from fastapi import FastAPI
from nas.settings import Settings
from nas.store import Store
Store.open(Settings().database_url).close()
import service.app
from service.settings import ServiceSettings
service.app.create_app(Settings(token="0123456789abcdef"), ServiceSettings(worker=False))
slow = ("torch", "ray", "optuna", "pandas", "alembic", "mako", *service.app.LOADED_LATER, "narwhals", "pyarrow")
loaded = [name for name in slow if name in sys.modules]
assert not loaded, f"the application loads {loaded}"
for name in service.app.LOADED_LATER:
    __import__(name)
"""


def test_the_service_starts_without_what_is_slow_to_load(tmp_path: Path) -> None:
    Store.open(f"sqlite:///{tmp_path}/nas.db").close()
    done = subprocess.run([sys.executable, "-c", START], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_plotly_is_served_from_its_package_and_cached(anonymous: TestClient) -> None:
    response = anonymous.get(PLOTLY_PATH)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/javascript")
    assert "immutable" in response.headers["cache-control"]
    assert "plotly.js v" in response.text[:200]
