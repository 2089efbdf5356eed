"""The REST API over the real store: every route, and every way in which a request can fail."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
import yaml
from fastapi.testclient import TestClient

from nas.definition.example import EXAMPLE
from nas.definition.study import parse_study
from nas.jobs import DesiredState, JobKind, JobState
from nas.metrics import EvaluationKind
from nas.store import Store
from nas.study import DataFingerprint, StudyState
from nas.trial import TrialState
from nas.wire.bodies import ErrorBody, ParetoBody, StudyDetail, TrialDetail, TrialList
from service.deps import DEFINITION_BYTES
from tests.service.conftest import BEARER, TOKEN, Place, place_in
from tests.service.fixture_study import (
    FAILED,
    FINISHED,
    LAYERS,
    REPORT,
    RUNNING,
    UNKEPT,
    definition,
    finish_export,
)

NOWHERE = "00000000-0000-0000-0000-000000000000"


def sign_in(api: TestClient) -> None:
    """Give the client a session, as pages need it."""
    form, origin = {"token": TOKEN, "next": "/"}, {"Origin": "http://localhost"}
    assert api.post("/login", data=form, headers=origin).status_code == 303


def assert_error(response: httpx.Response, status: int, error: str) -> str:
    """Check the canonical shape; return the detail."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert set(body) == set(ErrorBody.model_fields)
    assert (body["error"], body["status"]) == (error, status)
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["detail"]
    assert "Traceback" not in body["detail"]
    return str(body["detail"])


class TestLaunch:
    def test_json_becomes_a_queued_study_and_its_job(self, api: TestClient, place: Place) -> None:
        response = api.post("/api/v1/studies", json=definition("new").to_dict())
        assert response.status_code == 201, response.text
        body = response.json()
        study = place.store.study(body["study"]["id"])
        assert study.definition == definition("new")
        assert (study.state, study.name) == (StudyState.QUEUED, "new")
        job = place.store.job(body["job"]["id"])
        assert (job.kind, job.state, job.study_id) == (JobKind.SEARCH, JobState.QUEUED, study.id)

    @pytest.mark.parametrize("kind", ["application/yaml", "text/yaml; charset=utf-8", "application/x-yaml"])
    def test_yaml_is_read(self, api: TestClient, kind: str) -> None:
        response = api.post("/api/v1/studies", content=EXAMPLE, headers={"Content-Type": kind})
        assert response.status_code == 201, response.text
        assert response.json()["study"]["planned"] == 23

    def test_a_taken_name_is_numbered(self, api: TestClient) -> None:
        response = api.post("/api/v1/studies", json=definition(FINISHED).to_dict())
        assert response.json()["study"]["name"] == f"{FINISHED}-2"

    def test_every_fault_is_listed_and_nothing_is_stored(self, api: TestClient, place: Place) -> None:
        text = "name: x y\ndata: {name: mnist}\nmodel: {name: huge}\nsweeep: {}\nsweep: {trials: many}\n"
        response = api.post("/api/v1/studies", content=text, headers={"Content-Type": "application/yaml"})
        assert_error(response, 422, "DefinitionError")
        faults = response.json()["faults"]
        for expected in ("name", "unknown data set 'mnist'", "unknown variant 'huge'", "sweeep: unknown key", "many"):
            assert any(expected in fault for fault in faults), (expected, faults)
        assert len(place.store.studies()) == len(place.store.jobs()) == 2

    @pytest.mark.parametrize(
        ("kind", "content", "expected"),
        [
            ("application/json", b"{", "not valid JSON"),
            ("application/json", b"[1]", "mapping"),
            ("application/json", b"[" * 20_000, "deeply"),
            ("application/json", b"\xff", "UTF-8"),
            ("application/yaml", b"a: [", "not valid YAML"),
            ("application/yaml", b"", "mapping"),
            ("application/yaml", b"[" * 5000, "deeply"),
            ("application/yaml", b"a: &a [x]\nb: *a", "aliases"),
            ("application/yaml", b"!!python/object/apply:os.system [ls]", "not valid YAML"),
            ("application/yaml", b"name: a\x00b", "not valid YAML"),
        ],
    )
    def test_what_cannot_be_read_is_refused(self, api: TestClient, kind: str, content: bytes, expected: str) -> None:
        response = api.post("/api/v1/studies", content=content, headers={"Content-Type": kind})
        assert expected in assert_error(response, 422, "DefinitionError")

    def test_another_type_is_refused(self, api: TestClient) -> None:
        response = api.post("/api/v1/studies", content="name: x", headers={"Content-Type": "text/plain"})
        assert "application/yaml" in assert_error(response, 415, "UnsupportedMediaType")

    def test_a_long_body_is_refused(self, api: TestClient) -> None:
        content = b"#" * (DEFINITION_BYTES + 1)
        response = api.post("/api/v1/studies", content=content, headers={"Content-Type": "application/yaml"})
        assert_error(response, 413, "ContentTooLarge")


class TestStudies:
    def test_none(self, tmp_path: Path) -> None:
        with place_in(tmp_path) as place, TestClient(place.app, base_url="http://localhost", headers=BEARER) as api:
            assert api.get("/api/v1/studies").json() == {"studies": [], "count": 0, "after": None}

    def test_newest_first_with_counts_and_best(self, api: TestClient, place: Place) -> None:
        finished, running = place.store.study(FINISHED), place.store.study(RUNNING)
        first, second = api.get("/api/v1/studies").json()["studies"]
        assert (first["id"], second["id"]) == (running.id, finished.id)
        assert first["counts"] == {"complete": 2, "running": 1, "queued": 9}
        assert second["counts"] == {"complete": 14, "failed": 1}
        best = max(
            trial.candidates[0].score("top1", EvaluationKind.FINETUNED) or 0
            for trial in place.store.trials(finished.id)
            if trial.candidates
        )
        assert second["best_top1"] == best
        assert second["report"] == list(REPORT)

    def test_a_definition_reads_back(self, api: TestClient, place: Place) -> None:
        study = place.store.study(FINISHED)
        body = StudyDetail.model_validate(api.get(f"/api/v1/studies/{study.id}").json())
        assert parse_study(body.definition) == study.definition
        assert body.reference_point == {"top1": 0.0, "macs": 12e6}

    def test_found_by_name_and_by_the_beginning_of_its_id(self, api: TestClient, place: Place) -> None:
        study = place.store.study(FINISHED)
        for ref in (study.name, study.id[:8]):
            assert api.get(f"/api/v1/studies/{ref}").json()["id"] == study.id
        assert api.get("/api/v1/studies/latest").json()["name"] == RUNNING

    def test_unknown(self, api: TestClient, place: Place) -> None:
        for path in ("", "/trials", "/trials/0", "/pareto", "/figures/front"):
            detail = assert_error(api.get(f"/api/v1/studies/digit-fixture{path}"), 404, "NotFoundError")
            assert "digits-fixture" in detail  # the near name
        assert_error(api.get("/api/v1/studies/" + "x" * 101), 422, "InputError")


class TestTrials:
    def test_list(self, api: TestClient, place: Place) -> None:
        study = place.store.study(FINISHED)
        body = TrialList.model_validate(api.get(f"/api/v1/studies/{study.id}/trials").json())
        assert [trial.number for trial in body.trials] == list(range(15))
        assert body.trials[FAILED].state is TrialState.FAILED
        assert "diverged" in (body.trials[FAILED].reason or "")
        assert body.trials[FAILED].scores == {}
        assert body.trials[13].label == "uniform 1/4"
        stored = place.store.trial(study.id, 3).candidates[0]
        assert body.trials[3].scores["top1"] == stored.score("top1", EvaluationKind.FINETUNED)

    def test_the_kind_of_evaluation_is_chosen(self, api: TestClient, place: Place) -> None:
        study = place.store.study(FINISHED)
        url = f"/api/v1/studies/{study.id}/trials"
        inherited = api.get(url, params={"evaluation": "inherited"}).json()["trials"][0]["scores"]["top1"]
        finetuned = api.get(url).json()["trials"][0]["scores"]["top1"]
        assert finetuned - inherited == pytest.approx(0.08)
        assert "inherited" in assert_error(api.get(url, params={"evaluation": "best"}), 422, "InputError")

    def test_one_with_its_splits_and_history(self, api: TestClient, place: Place) -> None:
        study = place.store.study(FINISHED)
        body = TrialDetail.model_validate(api.get(f"/api/v1/studies/{study.id}/trials/4").json())
        splits = body.candidates[0].splits
        assert [split.layer for split in splits] == [layer[0] for layer in LAYERS]
        assert all(split.ratio == split.active_channels / split.channels for split in splits)
        assert [record.epoch for record in body.history] == list(range(1, 7))
        assert {item.metric for item in body.candidates[0].measurements} >= {"macs", "params", "latency_ms"}

    def test_a_running_one_says_how_far_it_is(self, api: TestClient, place: Place) -> None:
        trials = api.get("/api/v1/studies/running/trials").json()["trials"]
        assert [trial["epoch"] for trial in trials[:4]] == [None, None, 1, None]
        assert api.get("/api/v1/studies/running/trials/2").json()["epoch"] == 1

    @pytest.mark.parametrize(("number", "status", "error"), [
        ("99", 404, "NotFoundError"), ("-1", 422, "InputError"), ("x", 422, "InputError"),
        (str(2**40), 422, "InputError"),
    ])  # fmt: skip
    def test_unknown(self, api: TestClient, place: Place, number: str, status: int, error: str) -> None:
        study = place.store.study(FINISHED)
        for path in ("", "/figures/splits", "/figures/history"):
            assert_error(api.get(f"/api/v1/studies/{study.id}/trials/{number}{path}"), status, error)
        assert_error(api.post(f"/api/v1/studies/{study.id}/trials/{number}/exports"), status, error)


class TestPareto:
    def test_front_and_hypervolume(self, api: TestClient, place: Place) -> None:
        study = place.store.study(FINISHED)
        body = ParetoBody.model_validate(api.get(f"/api/v1/studies/{study.id}/pareto").json())
        assert len(body.points) == 14
        assert [axis.metric for axis in body.objectives] == ["macs", "top1"]
        for point in body.points:  # by the definition of a front
            beaten = any(
                other.values["macs"] <= point.values["macs"]
                and other.values["top1"] >= point.values["top1"]
                and (other.values["macs"], other.values["top1"]) != (point.values["macs"], point.values["top1"])
                for other in body.points
            )
            assert point.on_front is not beaten
        best = max(point.values["top1"] for point in body.points)
        assert body.hypervolume is not None
        assert 0 < body.hypervolume < 12e6 * best

    def test_other_axes(self, api: TestClient, place: Place) -> None:
        study = place.store.study(FINISHED)
        url = f"/api/v1/studies/{study.id}/pareto"
        body = ParetoBody.model_validate(api.get(url, params={"x": "latency_ms", "y": "top5"}).json())
        assert len(body.points) == 8  # only every second one has a latency
        assert body.hypervolume is None  # the reference point has no latency

    def test_before_the_first_score(self, api: TestClient, place: Place) -> None:
        place.store.submit_study(definition("new"), {"top1": 0.0, "macs": 1e6})
        body = api.get("/api/v1/studies/new/pareto").json()
        assert (body["points"], body["hypervolume"]) == ([], None)
        assert api.get("/api/v1/studies/new/figures/front").status_code == 200

    @pytest.mark.parametrize("query", [{"x": "speed"}, {"x": "top1", "y": "top1"}])
    def test_bad_axes(self, api: TestClient, place: Place, query: dict[str, str]) -> None:
        study = place.store.study(FINISHED)
        for path in ("pareto", "figures/front"):
            detail = assert_error(api.get(f"/api/v1/studies/{study.id}/{path}", params=query), 400, "InputError")
            assert query["x"] in detail


class TestFigures:
    def test_marks_carry_their_trial_and_traces_are_svg(self, api: TestClient, place: Place) -> None:
        study = place.store.study(FINISHED)
        figure = api.get(f"/api/v1/studies/{study.id}/figures/front").json()
        assert {trace["type"] for trace in figure["data"]} == {"scatter"}
        numbers = {entry[0] for trace in figure["data"] for entry in trace.get("customdata", [])}
        assert numbers == set(range(15)) - {FAILED}

    def test_ratios_of_all_learned_networks(self, api: TestClient, place: Place) -> None:
        study = place.store.study(FINISHED)
        chart, *_ = api.get(f"/api/v1/studies/{study.id}/figures/ratios").json()["data"]
        assert {cell[5] for cell in chart["customdata"]} == set(range(12)) - {FAILED}  # the trial, for clicks
        assert len(chart["y"]) == 11 * len(LAYERS)

    def test_levels_of_a_running_trial_need_no_network(self, api: TestClient, place: Place) -> None:
        study = place.store.study(RUNNING)
        levels = api.get(f"/api/v1/studies/{study.id}/trials/2/figures/levels").json()
        assert [len(trace["y"]) for trace in levels["data"]] == [1] * len(LAYERS)

    def test_a_trial(self, api: TestClient, place: Place) -> None:
        study = place.store.study(FINISHED)
        splits = api.get(f"/api/v1/studies/{study.id}/trials/3/figures/splits").json()
        assert len(splits["data"][0]["y"]) == len(LAYERS)
        history = api.get(f"/api/v1/studies/{study.id}/trials/3/figures/history").json()
        assert history["data"][0]["x"] == list(range(1, 7))
        levels = api.get(f"/api/v1/studies/{study.id}/trials/3/figures/levels").json()
        assert [len(trace["y"]) for trace in levels["data"]] == [6] * len(LAYERS)
        cells, *_ = api.get(f"/api/v1/studies/{study.id}/trials/3/figures/levels?as_map=true").json()["data"]
        assert cells["type"] == "bar"
        assert {cell[0] for cell in cells["customdata"]} == {layer for layer, *_ in LAYERS}
        response = api.get(f"/api/v1/studies/{study.id}/trials/{FAILED}/figures/splits")
        assert "no network" in assert_error(response, 409, "ConflictError")


class TestControl:
    def test_a_queued_search_pauses_at_once_and_goes_on(self, api: TestClient, place: Place) -> None:
        study = api.post("/api/v1/studies", json=definition().to_dict()).json()["study"]["id"]
        response = api.post(f"/api/v1/studies/{study}/pause")
        assert response.status_code == 202, response.text
        assert (response.json()["study"]["state"], response.json()["job"]["state"]) == ("paused", "cancelled")
        assert place.store.study(study).state is StudyState.PAUSED
        assert_error(api.post(f"/api/v1/studies/{study}/pause"), 409, "ConflictError")
        resumed = api.post(f"/api/v1/studies/{study}/resume")
        assert resumed.status_code == 202, resumed.text
        assert resumed.json()["study"]["state"] == "queued"
        assert place.store.job(resumed.json()["job"]["id"]).state is JobState.QUEUED
        assert_error(api.post(f"/api/v1/studies/{study}/resume"), 409, "ConflictError")

    @pytest.mark.parametrize(("action", "desired"), [("pause", DesiredState.PAUSED), ("stop", DesiredState.STOPPED)])
    def test_a_running_search_is_asked(
        self, api: TestClient, place: Place, action: str, desired: DesiredState
    ) -> None:
        study = place.store.study(RUNNING)
        body = api.post(f"/api/v1/studies/{study.id}/{action}").json()
        assert body["study"]["state"] == "running"
        assert (body["job"]["state"], body["job"]["stopping"]) == ("running", True)
        assert place.store.job(body["job"]["id"]).desired is desired

    def test_a_finished_study_does_none_of_these(self, api: TestClient, place: Place) -> None:
        study = place.store.study(FINISHED)
        for action in ("pause", "stop", "resume"):
            assert "finished" in assert_error(api.post(f"/api/v1/studies/{study.id}/{action}"), 409, "ConflictError")

    def test_a_finished_study_can_be_extended(self, api: TestClient, place: Place) -> None:
        study = place.store.study(FINISHED)
        before = api.get(f"/api/v1/studies/{study.id}").json()["planned"]
        response = api.post(f"/api/v1/studies/{study.id}/extend", params={"trials": 5})
        assert response.status_code == 202, response.text
        body = response.json()
        assert (body["study"]["state"], body["study"]["planned"]) == ("queued", before + 5)
        assert body["job"]["state"] == "queued"
        assert_error(api.post(f"/api/v1/studies/{study.id}/extend", params={"trials": 5}), 409, "ConflictError")

    @pytest.mark.parametrize("trials", ["0", "-1", "many", None])
    def test_an_extension_needs_a_number_of_trials(self, api: TestClient, place: Place, trials: str | None) -> None:
        address = f"/api/v1/studies/{FINISHED}/extend"
        assert api.post(address, params={} if trials is None else {"trials": trials}).status_code == 422
        assert place.store.study(FINISHED).extended == 0

    def test_failed_trials_of_a_finished_study_run_again(self, api: TestClient, place: Place) -> None:
        study = place.store.study(FINISHED)
        response = api.post(f"/api/v1/studies/{study.id}/resume?retry_failed=true")
        assert (response.status_code, response.json()["study"]["state"]) == (202, "queued")
        assert place.store.trial(study.id, FAILED).state is TrialState.QUEUED
        assert_error(api.post(f"/api/v1/studies/{study.id}/resume?retry_failed=perhaps"), 422, "InputError")


class TestExports:
    def test_queue_wait_download(self, api: TestClient, place: Place, tmp_path: Path) -> None:
        study = place.store.study(FINISHED)
        response = api.post(f"/api/v1/studies/{study.id}/trials/3/exports")
        assert response.status_code == 202, response.text
        job = response.json()
        assert (job["kind"], job["state"], job["number"], job["size"]) == ("export", "queued", 3, None)
        again = api.post(f"/api/v1/studies/{study.id}/trials/3/exports").json()
        assert again["id"] == job["id"]  # not queued twice
        assert_error(api.get(f"/api/v1/jobs/{job['id']}/download"), 409, "ConflictError")
        content = finish_export(place.store, place.artifacts, tmp_path)
        done = api.get(f"/api/v1/jobs/{job['id']}").json()
        assert (done["state"], done["size"]) == ("finished", len(content))
        download = api.get(f"/api/v1/jobs/{job['id']}/download")
        assert download.content == content
        assert download.headers["content-disposition"] == 'attachment; filename="digits-fixture-trial-3.zip"'
        assert download.headers["content-type"] == "application/zip"

    def test_a_damaged_file_is_not_sent(self, api: TestClient, place: Place, tmp_path: Path) -> None:
        study = place.store.study(FINISHED)
        job = api.post(f"/api/v1/studies/{study.id}/trials/3/exports").json()["id"]
        finish_export(place.store, place.artifacts, tmp_path)
        stored = next(Path(place.settings.storage).rglob("*.zip"))
        stored.write_bytes(b"something else")
        assert "damaged" in assert_error(api.get(f"/api/v1/jobs/{job}/download"), 503, "StoreError")
        stored.unlink()
        assert_error(api.get(f"/api/v1/jobs/{job}/download"), 404, "NotFoundError")

    @pytest.mark.parametrize(("number", "expected"), [(FAILED, "diverged"), (UNKEPT, "were not kept")])
    def test_without_weights_there_is_nothing_to_export(
        self, api: TestClient, place: Place, number: int, expected: str
    ) -> None:
        study = place.store.study(FINISHED)
        response = api.post(f"/api/v1/studies/{study.id}/trials/{number}/exports")
        assert expected in assert_error(response, 409, "ConflictError")
        assert {job.kind for job in place.store.jobs()} == {JobKind.SEARCH}
        sign_in(api)
        page = api.get(f"/studies/{study.id}/trials/{number}").text
        assert expected in page
        assert 'id="export"' not in page

    def test_unknown_jobs(self, api: TestClient) -> None:
        for path in ("", "/download"):
            assert_error(api.get(f"/api/v1/jobs/{NOWHERE}{path}"), 404, "NotFoundError")
            assert_error(api.get(f"/api/v1/jobs/passwd{path}"), 422, "InputError")


class TestOther:
    def test_health_needs_no_token(self, anonymous: TestClient) -> None:
        assert anonymous.get("/api/v1/healthz").json() == {"status": "ok", "worker": "off"}

    def test_the_description_covers_every_route(self, api: TestClient) -> None:
        paths = api.get("/api/openapi.json").json()["paths"]
        study = {f"/api/v1/studies/{{study_ref}}{end}" for end in (
            "", "/clone", "/events", "/extend", "/figures/front", "/figures/importance", "/figures/parallel",
            "/figures/hypervolume", "/figures/ratios", "/hypervolumes", "/importances",
            "/pareto", "/pause", "/resume", "/stop", "/trials", "/trials.csv", "/trials.parquet",
        )}  # fmt: skip
        trial = {f"/api/v1/studies/{{study_ref}}/trials/{{number}}{end}" for end in (
            "", "/exports", "/figures/history", "/figures/levels", "/figures/splits", "/history", "/log", "/retry",
            "/splits",
        )}  # fmt: skip
        others = {f"/api/v1/{name}" for name in (
            "architectures", "architectures/{architecture_ref}", "compare", "datasets", "devices",
            "figures/compare/history", "figures/compare/splits", "figures/fronts", "fronts", "healthz", "jobs",
            "jobs/{job_id}", "jobs/{job_id}/download", "metrics", "metrics/catalog", "models", "queue", "readyz",
            "searchers", "studies", "definitions/check", "definitions/edit", "tokens", "tokens/{token_ref}",
            "trainings", "version", "workers",
        )}  # fmt: skip
        training = {f"/api/v1/trainings/{{training_ref}}{end}" for end in (
            "", "/checkpoints", "/figures/history", "/history", "/package", "/resume", "/stop",
        )}  # fmt: skip
        assert set(paths) == study | trial | others | training

    def test_no_such_route(self, api: TestClient) -> None:
        assert "/api/v1/trials" in assert_error(api.get("/api/v1/trials"), 404, "NotFoundError")
        assert_error(api.get("/api"), 404, "NotFoundError")
        assert_error(api.delete("/api/v1/studies"), 405, "MethodNotAllowed")

    def test_a_broken_database_is_no_secret_but_no_traceback(self, api: TestClient, place: Place) -> None:
        place.store.close()
        path = Path(place.settings.database_url.removeprefix("sqlite:///"))
        api.app.state.store.close()  # type: ignore[attr-defined]
        path.write_bytes(b"this is no database" * 1000)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        assert_error(api.get("/api/v1/studies"), 503, "StoreError")
        assert_error(api.get("/api/v1/healthz"), 503, "StoreError")

    def test_a_bug_tells_a_stranger_nothing(
        self, api: TestClient, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*args: object) -> None:
            raise RuntimeError("secret")

        monkeypatch.setattr(Store, "study_list", broken)
        assert "secret" not in assert_error(api.get("/api/v1/studies"), 500, "InternalError")

    def test_the_example_is_valid(self) -> None:
        assert parse_study(yaml.safe_load(EXAMPLE)).sweep.trials == 8

    def test_json_has_no_infinities(self, api: TestClient, place: Place) -> None:
        study = place.store.study(FINISHED)

        def refuse(name: str) -> None:
            raise AssertionError(name)

        for path in ("", "/trials", "/pareto", "/trials/3", "/figures/front"):
            json.loads(api.get(f"/api/v1/studies/{study.id}{path}").text, parse_constant=refuse)


class TestInterrupted:
    """A search whose process died is shown as such, although no worker has looked at it."""

    @pytest.fixture
    def dead(self, place: Place) -> str:
        study = place.store.study(RUNNING)
        [job] = [job for job in place.store.jobs(study.id) if job.kind is JobKind.SEARCH]
        place.store.heartbeat(job.id, job.epoch, -1.0)
        return study.id

    def test_api_and_pages_say_so(self, api: TestClient, dead: str) -> None:
        assert api.get(f"/api/v1/studies/{dead}").json()["state"] == "interrupted"
        listed = {study["id"]: study["state"] for study in api.get("/api/v1/studies").json()["studies"]}
        assert listed[dead] == "interrupted"
        states = {trial["state"] for trial in api.get(f"/api/v1/studies/{dead}/trials").json()["trials"]}
        assert "interrupted" in states
        assert "running" not in states
        sign_in(api)
        page = api.get(f"/studies/{dead}").text
        assert "state-interrupted" in page
        assert "state-running" not in page
        assert "The process of this search has died" in page

    def test_it_can_be_paused_and_then_resumed(self, api: TestClient, dead: str) -> None:
        assert_error(api.post(f"/api/v1/studies/{dead}/resume"), 409, "ConflictError")
        assert api.post(f"/api/v1/studies/{dead}/pause").json()["job"]["state"] == "cancelled"
        assert api.get(f"/api/v1/studies/{dead}").json()["state"] == "paused"
        assert api.post(f"/api/v1/studies/{dead}/resume").status_code == 202

    def test_it_can_be_ended_for_good(self, api: TestClient, dead: str) -> None:
        assert api.post(f"/api/v1/studies/{dead}/stop").json()["study"]["state"] == "stopped"
        assert_error(api.post(f"/api/v1/studies/{dead}/resume"), 409, "ConflictError")

    def test_an_export_whose_worker_died_waits(self, api: TestClient, place: Place) -> None:
        job = api.post(f"/api/v1/studies/{FINISHED}/trials/1/exports").json()
        assert (job["state"], job["expired"]) == ("queued", False)
        assert place.store.lease_job("dead:1", kinds=[JobKind.EXPORT], seconds=-1) is not None
        assert api.get(f"/api/v1/jobs/{job['id']}").json()["expired"]


def test_what_the_data_of_a_study_was_is_shown(api: TestClient, place: Place) -> None:
    study = place.store.study(RUNNING)
    assert api.get(f"/api/v1/studies/{RUNNING}").json()["fingerprint"] is None
    data = DataFingerprint(("a", "b"), {"train": 1800, "validation": 20}, {"train": "12ab34cd56", "validation": "00"})
    place.store.record_data(study.id, data)
    assert api.get(f"/api/v1/studies/{RUNNING}").json()["fingerprint"] == data.to_dict()
    sign_in(api)
    shown = "2 classes; images: 1,800 train, 20 validation; content 12ab34cd"
    assert shown in api.get(f"/studies/{RUNNING}").text
