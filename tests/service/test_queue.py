"""The queue by the API and on its page: jobs, workers with what their trials hold, devices, latency tables."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from nas.store import Store
from nas.trial import Placement
from tests.service.conftest import TOKEN, Place
from tests.service.fixture_study import FINISHED, RUNNING


@pytest.fixture
def browser(anonymous: TestClient) -> TestClient:
    """A browser that is signed in."""
    anonymous.post("/login", data={"token": TOKEN}, headers={"Origin": "http://localhost"})
    return anonymous


def test_workers_tell_their_last_sign_of_life_and_what_their_trials_hold(api: TestClient, place: Place) -> None:
    study = place.store.study(RUNNING)
    place.store.place_trial(study.id, 2, Placement("node-7", 1, 1.5, 0.5))
    [worker] = api.get("/api/v1/workers").json()["workers"]
    assert (worker["name"], worker["alive"]) == ("fixture", True)
    assert (worker["trials"], worker["cpus"], worker["gpus"], worker["nodes"]) == (1, 1.5, 0.5, ["node-7"])
    assert worker["seen_at"] < worker["expires_at"]
    [job] = worker["jobs"]
    assert (job["attempt"], job["worker"]) == (1, "fixture")
    assert job["created_at"] <= job["started_at"] < job["expires_at"]


def test_devices_count_their_measurements_and_name_latency_tables(api: TestClient, place: Place) -> None:
    study = place.store.study(FINISHED)
    table = {"fingerprint": "pi-4", "network": "partialnet_t0", "title": "Pi 4, 1 thread", "reference_ms": 12.5}
    place.store.record_latency_table(study.id, table)
    body = api.get("/api/v1/devices").json()
    assert body["tables"] == [{**table, "studies": [FINISHED]}]
    trials = place.store.trials(study.id)
    measured = [m for trial in trials for network in trial.candidates for m in network.measurements]
    latencies = [m for m in measured if m.metric == "latency_ms"]
    assert sum(device["measurements"] for device in body["devices"]) == len(latencies) > 0
    assert {device["fingerprint"] for device in body["devices"]} == {m.fingerprint for m in latencies}


def test_equal_requests_share_reads_that_begin_after_them(
    api: TestClient, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = api.get("/api/v1/queue").json()
    assert (before["running"], before["waiting"]) == (1, 0)
    job = api.post(f"/api/v1/studies/{FINISHED}/trials/3/exports").json()
    after = api.get("/api/v1/queue").json()
    assert [found["id"] for found in after["jobs"]][1:] == [job["id"]]
    monkeypatch.setattr(Store, "open_jobs", lambda _store: [])
    assert api.get("/api/v1/queue").json()["jobs"] == []


def test_the_page_shows_jobs_workers_and_devices(browser: TestClient, place: Place) -> None:
    study = place.store.study(FINISHED)
    place.store.record_latency_table(
        study.id, {"fingerprint": "pi-4", "network": "n", "title": "<Pi> 4", "reference_ms": 12.5}
    )
    page = browser.get("/queue")
    assert page.status_code == 200
    assert "1 running, 0 waiting" in page.text
    assert f"/studies/{place.store.study(RUNNING).id}" in page.text
    assert "&lt;Pi&gt; 4" in page.text
    assert "No worker holds" not in page.text


def test_the_page_of_an_idle_service_says_so(browser: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "open_jobs", lambda _store: [])
    monkeypatch.setattr(Store, "devices", lambda _store: [])
    text = browser.get("/queue").text
    for sentence in ("No job waits or runs.", "No worker holds a job.", "No latency was measured yet."):
        assert sentence in text
