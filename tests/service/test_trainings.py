"""Trainings and architectures through the API and on their pages."""

from __future__ import annotations

import hashlib
import os
import runpy
import sys
import zipfile
from contextlib import redirect_stdout
from io import StringIO
from subprocess import CompletedProcess
from typing import Any

import pytest
from fastapi.testclient import TestClient

from nas.candidate import Artifact
from nas.errors import DefinitionError
from nas.jobs import JobKind, JobState
from nas.metrics import Evaluation, EvaluationKind
from nas.store.marks import encode_mark
from nas.tokens import Scope
from nas.trainings import Training, TrainingQuery, TrainingResult
from nas.trial import EpochRecord
from nas.wire.architectures import ArchitectureBody
from nas.wire.trainings import CheckpointList, TrainingDetail, TrainingHistoryBody, TrainingList
from service.deps import parse_requested_training
from tests.service.conftest import Place
from tests.service.fixture_study import FINISHED
from tests.service.test_api import assert_error, sign_in
from tests.service.test_scopes import bearer

ROOT = "/api/v1/trainings"
WANTED: dict[str, Any] = {"study": FINISHED, "trial": 3, "recipe": "small_images", "settings": {"epochs": 3}}


def run_here(command: list[str], *, input: str, env: dict[str, str], **_: Any) -> CompletedProcess[str]:
    """Run ``python -m MODULE`` in this process, which has torch already, as ``subprocess.run`` does in another one."""
    python, option, module = command
    assert (python, option) == (sys.executable, "-m")
    said = StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.setattr(os, "environ", env)
        patch.setattr(sys, "stdin", StringIO(input))
        runpy.run_module(module, run_name="__main__")
    return CompletedProcess(command, 0, said.getvalue(), "")


def launched(api: TestClient, **changes: Any) -> TrainingDetail:
    answer = api.post(ROOT, json={**WANTED, **changes})
    assert answer.status_code == 201, answer.text
    return TrainingDetail.model_validate(answer.json())


def record(number: int) -> EpochRecord:
    return EpochRecord(number, "training", {"loss": 1.0 / number, "top1": number / 10}, {})


def finish(place: Place, made: TrainingDetail) -> tuple[Training, bytes]:
    """End a training as a worker would, with a small zip; return it and the zip's bytes."""
    store, path = place.store, place.artifacts.folder
    assert path is not None
    job = store.lease_job("fixture", kinds=[JobKind.TRAIN], seconds=600)
    assert job is not None
    path.mkdir(exist_ok=True)
    with zipfile.ZipFile(path / "made.zip", "w") as archive:
        archive.writestr("network/architecture.json", "{}")
    stored = place.artifacts.put(path / "made.zip", f"trainings/{made.id}/{job.id}-1.zip", "package")
    (path / "trainings" / made.id / "checkpoints").mkdir(parents=True)
    for name in ("epoch-00003-step-0000000", "epoch-00002-step-0000007", "best"):
        (path / "trainings" / made.id / "checkpoints" / f"{name}-{'ab' * 8}.pt").write_bytes(b"state")
    score = Evaluation(EvaluationKind.RETRAINED, "top1", 0.9, seed=0, epochs=3, recipe=made.recipe)
    done = store.finish_training(made.id, TrainingResult(stored, None, (score,)), [record(n) for n in (1, 2, 3)])
    store.finish_job(job.id, job.epoch, JobState.FINISHED)
    return done, (path / "made.zip").read_bytes()


class TestLaunch:
    def test_json_and_yaml_say_the_same(self, api: TestClient, place: Place) -> None:
        made = launched(api)
        assert (made.state, made.source, made.recipe) == ("queued", f"{FINISHED} trial 3", "small_images epochs=3")
        text = f"study: {FINISHED}\ntrial: 3\nrecipe: small_images\nsettings: {{epochs: 3}}\n"
        other = api.post(ROOT, content=text, headers={"Content-Type": "application/yaml"}).json()
        assert other["settings"] == made.settings
        assert place.store.job(str(made.job_id)).kind is JobKind.TRAIN
        assert api.get(f"/api/v1/jobs/{made.job_id}").json()["kind"] == "train"

    def test_all_faults_come_at_once_with_their_keys(self, api: TestClient, place: Place) -> None:
        bad = {**WANTED, "recipe": "none", "settings": {"mixup": -1}, "seed": "x", "colour": 1}
        answer = api.post(ROOT, json=bad)
        assert_error(answer, 422, "DefinitionError")
        keys = [fault.split(": ")[1] for fault in answer.json()["faults"]]
        assert sorted(keys) == ["colour", "recipe", "seed", "settings.mixup"]
        twice = api.post(ROOT, content='{"study": "a", "study": "b"}', headers={"Content-Type": "application/json"})
        assert "study" in assert_error(twice, 422, "DefinitionError")
        assert place.store.training_page(TrainingQuery())[0] == []

    def test_a_key_creates_once(self, api: TestClient) -> None:
        key = {"Idempotency-Key": "once"}
        first, again = (api.post(ROOT, json=WANTED, headers=key).json()["id"] for _ in range(2))
        assert first == again
        assert_error(api.post(ROOT, json={**WANTED, "seed": 1}, headers=key), 409, "ConflictError")

    @pytest.mark.slow
    def test_data_and_package_are_checked_where_they_are(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """The check of a study runs in a process of its own, in :mod:`tests.service.test_requests`."""
        monkeypatch.setattr("service.launch_check.subprocess.run", run_here)
        place.app.state.service.check_launches = True
        with TestClient(place.app, base_url="http://localhost") as client:
            client.headers |= bearer(place, "root", Scope.ADMIN)
            answer = client.post(ROOT, json={"package": "mine", "data": {"name": "cifar10"}})
            assert_error(answer, 422, "DefinitionError")
            data, package = answer.json()["faults"]
            assert data.startswith("training: data.name: ")
            assert package.startswith("training: package: there is no package 'mine'")


def test_a_training_is_followed_to_its_package(api: TestClient, place: Place) -> None:
    made = launched(api)
    address = f"{ROOT}/{made.id}"
    etag = api.get(address).headers["etag"]
    assert api.get(address, headers={"If-None-Match": etag}).status_code == 304
    assert_error(api.get(f"{address}/package"), 409, "ConflictError")
    done, content = finish(place, made)
    shown = TrainingDetail.model_validate(api.get(address, headers={"If-None-Match": etag}).json())
    assert (shown.state, shown.done, shown.best_top1) == ("finished", 3, 0.3)
    assert [entry.recipe for entry in shown.evaluations] == [made.recipe]
    assert shown.load == f'model = partialnet.load_package("{done.package_name}").model'
    history = TrainingHistoryBody.model_validate(api.get(f"{address}/history").json())
    assert [entry.epoch for entry in history.epochs] == [1, 2, 3]
    assert len(api.get(f"{address}/figures/history").json()["data"]) == 2
    found = CheckpointList.model_validate(api.get(f"{address}/checkpoints").json()).checkpoints
    assert [(item.epoch, item.step, item.best) for item in found] == [(3, 0, False), (2, 7, False), (None, None, True)]
    assert shown.download is not None
    answer = api.get(f"/api/v1{shown.download.path}")
    assert answer.content == content
    assert hashlib.sha256(content).hexdigest() == shown.download.sha256 == answer.headers["etag"].strip('"')
    assert done.package_name in answer.headers["content-disposition"]
    part = api.get(f"{address}/package", headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, content[:4])
    assert api.head(f"{address}/package").headers["content-length"] == str(len(content))
    assert_error(api.get(f"{address}/package?last=true"), 409, "ConflictError")
    # The trial shows the score, apart from those of the study.
    [network] = api.get(f"/api/v1/studies/{FINISHED}/trials/3").json()["candidates"]
    assert [entry["recipe"] for entry in network["trainings"]] == [made.recipe]
    assert "retrained" not in {entry["kind"] for entry in network["evaluations"]}
    events = api.get(f"/api/v1/studies/{FINISHED}/events?limit=1000").json()["events"]
    assert [event["facts"]["state"] for event in events if event["kind"] == "training"] == [
        "queued", "running", "finished",
    ]  # fmt: skip


def test_stop_resume_delete_and_lists(api: TestClient, place: Place) -> None:
    ids = [launched(api, seed=seed).id for seed in range(3)]
    assert api.post(f"{ROOT}/{ids[0]}/stop").json()["state"] == "stopped"
    assert "there is nothing to stop" in assert_error(api.post(f"{ROOT}/{ids[0]}/stop"), 409, "ConflictError")
    assert api.post(f"{ROOT}/{ids[0][:8]}/resume").json()["state"] == "queued"
    assert_error(api.delete(f"{ROOT}/{ids[0]}"), 409, "ConflictError")
    page = TrainingList.model_validate(api.get(f"{ROOT}?limit=2").json())
    rest = TrainingList.model_validate(api.get(f"{ROOT}?limit=2&after={page.after}").json())
    assert [entry.id for entry in (*page.trainings, *rest.trainings)] == ids[::-1]
    api.post(f"{ROOT}/{ids[1]}/stop")
    assert [entry["id"] for entry in api.get(f"{ROOT}?state=stopped").json()["trainings"]] == [ids[1]]
    architecture = page.trainings[0].architecture_id
    for query, count in (
        (f"study={FINISHED}&trial=3", 3), (f"study={FINISHED}&trial=4", 0), (f"architecture={architecture}", 3),
        ("recipe=default", 0),
    ):  # fmt: skip
        assert api.get(f"{ROOT}?{query}").json()["count"] == count
    assert_error(api.get(f"{ROOT}?stat=stopped"), 400, "InputError")
    assert api.delete(f"{ROOT}/{ids[1]}").json() == {"id": ids[1], "files": 0, "size": 0}
    assert_error(api.get(f"{ROOT}/{ids[1]}"), 404, "NotFoundError")
    assert 'nas_trainings{state="queued"} 2' in api.get("/api/v1/metrics").text
    assert len(place.store.training_page(TrainingQuery())[0]) == 2


def test_a_kept_list_follows_the_name_of_its_study(api: TestClient, place: Place) -> None:
    launched(api)
    assert api.get(f"{ROOT}?study={FINISHED}").json()["count"] == 1
    place.store.describe(place.store.study(FINISHED).id, name="renamed")
    assert_error(api.get(f"{ROOT}?study={FINISHED}"), 404, "NotFoundError")
    assert api.get(f"{ROOT}?study=renamed").json()["count"] == 1


@pytest.mark.parametrize("values", [[True, "a"], [1, None], ["a", 1], [1], [1, "\0"]], ids=str)
def test_a_damaged_mark_is_refused_by_each_list_in_order_of_time(api: TestClient, values: list[Any]) -> None:
    for path in ("trainings", "architectures", "jobs"):
        answer = api.get(f"/api/v1/{path}?after={encode_mark(values)}")
        assert "is not the mark of a page" in assert_error(answer, 400, "InputError"), path


def test_a_writer_changes_only_its_own_trainings(anonymous: TestClient, place: Place) -> None:
    alice, bob = bearer(place, "alice", Scope.WRITE), bearer(place, "bob", Scope.WRITE)
    made = anonymous.post(ROOT, json=WANTED, headers=alice).json()
    assert (made["created_by"], made["returns"]) == ("alice", False)  # the study is a command's
    for method, path in (("POST", "/stop"), ("POST", "/resume"), ("DELETE", "")):
        answer = anonymous.request(method, f"{ROOT}/{made['id']}{path}", headers=bob)
        assert "created by alice" in assert_error(answer, 403, "ForbiddenError")
    assert anonymous.get(f"{ROOT}/{made['id']}", headers=bob).status_code == 200
    assert anonymous.post(f"{ROOT}/{made['id']}/stop", headers=alice).status_code == 202
    assert anonymous.delete(f"{ROOT}/{made['id']}", headers=bearer(place, "root", Scope.ADMIN)).status_code == 200


def test_an_architecture_shows_files_measurements_and_trainings(api: TestClient, place: Place) -> None:
    made = launched(api)
    job = api.post(f"/api/v1/studies/{FINISHED}/trials/3/exports").json()
    leased = place.store.lease_job("fixture", kinds=[JobKind.EXPORT], seconds=60)
    assert leased is not None
    stored = Artifact("exports/x.zip", "ab" * 32, 10, "export")
    files = [{"name": "architecture.json", "size": 3, "sha256": "cd" * 32}]
    result = {"uri": stored.uri, "sha256": stored.sha256, "size": stored.size, "files": files}
    place.store.finish_job(leased.id, leased.epoch, JobState.FINISHED, result=result)
    found = ArchitectureBody.model_validate(api.get(f"/api/v1/architectures/{made.architecture_id}").json())
    assert [entry.id for entry in found.trainings] == [made.id]
    assert {"macs", "params"} <= {entry.metric for entry in found.measurements}
    [export] = found.exports
    assert (export.job_id, [file.sha256 for file in export.files]) == (job["id"], ["cd" * 32])
    sign_in(api)
    page = api.get(f"/architectures/{made.architecture_id}?study={FINISHED}&trial=3").text
    for text in ("cd" * 32, made.id[:8], export.load.replace('"', "&#34;"), 'data-trial="3"'):
        assert text in page
    assert made.architecture_id is not None
    assert made.architecture_id[:12] in api.get("/architectures").text


def test_pages_say_what_a_training_does(api: TestClient, place: Place) -> None:
    made = launched(api)
    sign_in(api)
    page = api.get(f"/trainings/{made.id}").text
    assert 'data-action="stop"' in page
    assert 'data-action="resume"' not in page
    place.store.stop_training(made.id)
    page = api.get(f"/trainings/{made.id}").text
    assert "stopped on request" in page
    assert 'data-action="resume"' in page
    assert made.id[:8] in api.get("/trainings").text
    assert "#train-heading" in api.get(f"/studies/{FINISHED}/trials/3").text
    assert api.get("/trainings/nothing").status_code == 404


def test_pages_offer_a_reader_nothing_that_its_token_may_not_do(api: TestClient, place: Place) -> None:
    made = launched(api)
    api.get(f"/?link={place.store.create_link(Scope.READ)}")
    trial = f"/studies/{FINISHED}/trials/3"
    for path in (f"/trainings/{made.id}", f"/architectures/{made.architecture_id}", trial):
        page = api.get(path, headers={"Authorization": ""})
        assert page.status_code == 200
        assert "data-action" not in page.text
        assert 'id="train"' not in page.text
        assert 'id="export"' not in page.text


@pytest.mark.parametrize("text", ["[1", '"a"', "{}", '{"study": null}'])
def test_what_is_no_request_is_refused_in_words(text: str) -> None:
    with pytest.raises(DefinitionError, match=r"^training: "):
        parse_requested_training(text, False)
