"""The embedded worker: kept alive, stopped in order, gone with its service; and a real one that does an export."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from nas.client import Client
from nas.settings import Settings
from nas.store import Store
from nas.trial import TrialKind, TrialState
from service.app import create_app
from service.embedded import EmbeddedWorker
from service.settings import ServiceSettings
from tests.service.conftest import BEARER, TOKEN, Place, serve
from tests.service.fixture_study import candidate, definition, widths
from tests.waiting import wait_for


def alive(pid: int) -> bool:
    """Return whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def child(body: str, *arguments: object) -> list[str]:
    """Return a command that stands for a worker."""
    return [sys.executable, "-c", textwrap.dedent(body), *map(str, arguments)]


OBEDIENT = """
    import pathlib, signal, sys
    def stop(number, frame):
        pathlib.Path(sys.argv[1]).write_text(signal.Signals(number).name)
        sys.exit(0)
    signal.signal(signal.SIGINT, stop)
    pathlib.Path(sys.argv[1]).write_text("ready")
    signal.pause()
"""
STUBBORN = """
    import pathlib, signal, sys
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pathlib.Path(sys.argv[1]).write_text("ready")
    while True:
        signal.pause()
"""
MORTAL = """
    import pathlib, signal, sys
    lives = pathlib.Path(sys.argv[1])
    with lives.open("a") as file:
        file.write("x")
    if len(lives.read_text()) < 3:
        sys.exit(1)
    signal.pause()
"""


def test_it_is_interrupted_and_awaited(tmp_path: Path) -> None:
    said = tmp_path / "said"
    worker = EmbeddedWorker(os.environ, command=child(OBEDIENT, said))
    worker.start()
    wait_for(said.exists)
    assert worker.state == "running"
    worker.stop()
    assert said.read_text() == "SIGINT"
    assert worker.state == "off"
    assert worker.pid is not None
    assert not alive(worker.pid)


def test_one_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.embedded.TERM_SECONDS", 0.3)
    said = tmp_path / "said"
    worker = EmbeddedWorker(os.environ, command=child(STUBBORN, said), stop_seconds=0.3)
    worker.start()
    wait_for(said.exists)
    worker.stop()
    assert worker.pid is not None
    assert not alive(worker.pid)


def test_one_that_dies_is_started_again_until_it_is_stopped(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    worker = EmbeddedWorker(os.environ, command=child(MORTAL, lives), first_pause=0.05)
    worker.start()
    wait_for(lambda: lives.exists() and lives.read_text() == "xxx")
    wait_for(lambda: worker.state == "running")
    assert worker.pid is not None
    worker.stop()
    assert worker.state == "off"
    assert not alive(worker.pid)
    assert "embedded-worker" not in {thread.name for thread in threading.enumerate()}  # nothing starts it again


def test_stopping_does_not_wait_for_a_pause() -> None:
    worker = EmbeddedWorker(os.environ, command=child("raise SystemExit(1)"), first_pause=1e6)
    worker.start()
    wait_for(lambda: worker.state == "restarting" and worker.pid)
    worker.stop()  # or the test's own time limit ends it
    assert worker.state == "off"


def test_the_token_stays_with_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_TOKEN", TOKEN)
    settings = Settings(database_url="sqlite:///x.db", storage="files", data_roots=(Path("/a"), Path("/b")))
    environment = settings.environment()
    assert "NAS_TOKEN" not in environment
    assert TOKEN not in str(environment)
    assert environment["NAS_DATABASE_URL"] == "sqlite:///x.db"
    assert environment["NAS_DATA_ROOTS"] == f"/a{os.pathsep}/b"


def opened(pid: int) -> set[str]:
    """Return the paths of the files that a process has open."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):
            found.add(str(entry.readlink()))
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_the_worker_dies_with_a_service_that_is_killed(tmp_path: Path) -> None:
    body = """
        import signal, time
        from nas.settings import Settings
        from service.embedded import EmbeddedWorker
        worker = EmbeddedWorker(Settings().environment())
        worker.start()
        while worker.pid is None:
            time.sleep(0.01)
        print(worker.pid, flush=True)
        signal.pause()
    """
    database = tmp_path / "nas.db"
    url = f"sqlite:///{database}"
    Store.open(url).close()  # a worker creates no database
    environment = {**os.environ, "NAS_DATABASE_URL": url}
    with subprocess.Popen(child(body), env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        pid = int(service.stdout.readline())
        wait_for(lambda: str(database) in opened(pid))  # by now it is tied to its parent
        assert alive(pid)
        service.send_signal(signal.SIGKILL)
        service.wait()
        wait_for(lambda: not alive(pid))


def trained(place: Place) -> str:
    """Store a complete trial with the weights of a real network; return the study's id."""
    import torch
    from safetensors.torch import save_file

    from partialnet.models.partialnet import create

    study = place.store.create_study(definition("real"), reference_point={"top1": 0.0})
    [spec] = place.store.add_trials(study.id, [(TrialKind.SEARCH, {"target": 3.0})])
    place.store.start_trial(study.id, spec.number)
    network = candidate(spec.number, widths(1), weights=None, latency=False)
    torch.manual_seed(0)
    path = Path(place.settings.storage).with_name("weights.safetensors")
    save_file(create(network.architecture).state_dict(), path, {"class_names": json.dumps(list("0123456789"))})
    weights = place.artifacts.put(path, f"studies/{study.id}/0/model.safetensors", "weights")
    place.store.end_trial(
        study.id, spec.number, TrialState.COMPLETE, candidates=[replace(network, weights=weights)]
    )
    return study.id


@pytest.mark.slow
def test_a_service_exports_a_real_network(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from partialnet.package import load_package

    monkeypatch.chdir(tmp_path)  # the worker's logs go to the present folder
    study = trained(place)
    app = create_app(place.settings, ServiceSettings(worker=True))
    with serve(app) as url, Client(url, TOKEN) as client:
        job = client.wait(client.export(study, 0).id, seconds=120)
        archive = client.download(job, tmp_path / "network.zip")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "opened")
    package = load_package(tmp_path / "opened" / "real-trial-0")
    assert dict(package.architecture.active_channels) == widths(1)
    assert package.preprocessing.class_names == tuple("0123456789")


@pytest.mark.slow
def test_health_tells_of_the_worker(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = create_app(place.settings, ServiceSettings(worker=True))
    with TestClient(app, base_url="http://localhost", headers=BEARER) as client:
        wait_for(lambda: client.get("/api/v1/healthz").json()["worker"] == "running")
        pid = app.state.worker.pid
    assert not alive(pid)
