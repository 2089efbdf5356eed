"""Answers that are kept: as new as the study, with an ETag that any process gives, and read once at one time."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from nas.store import Store
from nas.trial import EpochRecord, TrialState
from service.answers import EPOCH_SECONDS, Answers
from tests.service.conftest import Place
from tests.service.fixture_study import FINISHED, RUNNING
from tests.waiting import wait_for

PATHS = (
    "/studies", f"/studies/{FINISHED}", f"/studies/{FINISHED}/trials", f"/studies/{FINISHED}/trials/3",
    f"/studies/{FINISHED}/pareto", f"/studies/{FINISHED}/figures/front", f"/studies/{FINISHED}/hypervolumes",
)  # fmt: skip


def test_an_answer_is_not_sent_again_while_nothing_changes(api: TestClient, place: Place) -> None:
    for path in PATHS:
        first = api.get(f"/api/v1{path}")
        etag = first.headers["etag"]
        again = api.get(f"/api/v1{path}", headers={"If-None-Match": f'"other", {etag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag), path
        place.app.state.answers = Answers(place.app.state.store)  # as another process would
        assert api.get(f"/api/v1{path}").headers["etag"] == etag
        plain = api.get(f"/api/v1{path}", headers={"Accept-Encoding": "identity"})
        assert plain.content == first.content
        assert api.head(f"/api/v1{path}").headers["etag"] == etag


def test_each_change_is_seen_at_once(api: TestClient, place: Place) -> None:
    study = place.store.study(FINISHED)
    before = {path: api.get(f"/api/v1{path}").headers["etag"] for path in PATHS}
    place.store.describe(study.id, tags=["kept"])
    after = {path: api.get(f"/api/v1{path}").headers["etag"] for path in PATHS}
    assert all(before[path] != after[path] for path in PATHS)
    assert api.get(f"/api/v1/studies/{FINISHED}").json()["tags"] == ["kept"]
    assert api.get("/api/v1/studies").json()["studies"][1]["tags"] == ["kept"]


def test_an_epoch_shows_within_a_moment_and_leaves_fronts_alone(api: TestClient, place: Place) -> None:
    study = place.store.study(RUNNING)
    path = f"/api/v1/studies/{study.id}/trials/2"
    front = api.get(f"/api/v1/studies/{study.id}/pareto").headers["etag"]
    assert api.get(path).json()["epoch"] == 1
    place.store.record_epoch(study.id, 2, EpochRecord(2, "gates", {"loss": 1.0}, {}))
    time.sleep(EPOCH_SECONDS)
    assert api.get(path).json()["epoch"] == 2
    assert api.get(f"/api/v1/studies/{study.id}/pareto").headers["etag"] == front


def test_an_epoch_leaves_alone_what_shows_no_running_trial(api: TestClient, place: Place) -> None:
    study = place.store.study(RUNNING)
    root = f"/api/v1/studies/{study.id}/trials"
    ended = (f"{root}/0", f"{root}/0/history", f"{root}/0/figures/history", f"{root}?state=complete", f"{root}?limit=2")
    running = (f"{root}/2", f"{root}/2/history", f"{root}?state=running", root)
    before = {path: api.get(path).headers["etag"] for path in (*ended, *running)}
    place.store.record_epoch(study.id, 2, EpochRecord(2, "gates", {"loss": 1.0}, {}))
    time.sleep(EPOCH_SECONDS)
    after = {path: api.get(path).headers["etag"] for path in before}
    assert all(before[path] == after[path] for path in ended)
    assert all(before[path] != after[path] for path in running)
    for path in ended:
        assert api.get(path, headers={"If-None-Match": before[path]}).status_code == 304
    place.app.state.answers = Answers(place.app.state.store)  # another process knows the marks, though no answer
    for path in ended:
        assert api.get(path, headers={"If-None-Match": before[path]}).status_code == 304
    place.store.end_trial(study.id, 2, TrialState.FAILED, reason="stopped")
    assert all(api.get(path).headers["etag"] != after[path] for path in before)


def test_an_ageing_answer_is_made_anew_beside_the_requests(api: TestClient, place: Place) -> None:
    study = place.store.study(RUNNING)
    path = f"/api/v1/studies/{study.id}/trials/2"
    assert api.get(path).json()["epoch"] == 1
    place.store.record_epoch(study.id, 2, EpochRecord(2, "gates", {"loss": 1.0}, {}))
    [known] = place.app.state.answers._answers
    place.app.state.answers._answers[known] = replace(
        place.app.state.answers._answers[known], made=time.monotonic() - 0.6 * EPOCH_SECONDS
    )
    assert api.get(path).json()["epoch"] == 1  # it does not wait for the new one
    wait_for(lambda: place.app.state.answers._answers[known].made > time.monotonic() - 0.5 * EPOCH_SECONDS)
    assert api.get(path).json()["epoch"] == 2


def test_kept_answers_are_counted_by_their_route(api: TestClient) -> None:
    for _ in range(3):
        api.get(f"/api/v1/studies/{FINISHED}/pareto")
    counted = [line for line in api.get("/api/v1/metrics").text.splitlines() if "nas_http_requests_total" in line]
    assert [line.rpartition(" ")[2] for line in counted if "/studies/{study_ref}/pareto" in line] == ["3.0"]


def test_a_deleted_study_is_gone_from_kept_answers(api: TestClient, place: Place) -> None:
    study = place.store.study(FINISHED)
    path = f"/api/v1/studies/{study.id}/pareto"
    assert api.get(path).status_code == 200
    place.store.delete_study(study.id, study.name)
    assert api.get(path).status_code == 404


def test_equal_requests_at_one_time_are_one_read(
    api: TestClient, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, calls = Store.front, []

    def slow(*args: Any, **options: Any) -> object:
        calls.append(args)
        time.sleep(0.1)
        return read(*args, **options)

    monkeypatch.setattr(Store, "front", slow)
    bodies: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: bodies.append(api.get(f"/api/v1/studies/{FINISHED}/pareto").content))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(bodies) == 5
    assert len(set(bodies)) == 1


def test_memory_is_bounded(api: TestClient, place: Place) -> None:
    size = len(api.get(f"/api/v1/studies/{FINISHED}/trials", headers={"Accept-Encoding": "identity"}).content)
    answers = place.app.state.answers = Answers(place.app.state.store, kept_bytes=3 * size)
    for limit in range(50, 60):
        api.get(f"/api/v1/studies/{FINISHED}/trials?limit={limit}", headers={"Accept-Encoding": "identity"})
    assert 0 < sum(len(answer.body) for answer in answers._answers.values()) == answers._held <= 3 * size
