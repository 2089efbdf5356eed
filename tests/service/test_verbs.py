"""What people do with studies and trials through the API, besides searching."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from nas.jobs import INT8, JobKind
from nas.study import StudyState
from nas.trial import TrialKind, TrialState
from nas.wire.architectures import ExportList
from nas.wire.bodies import JobBody
from tests.service.conftest import Place
from tests.service.fixture_study import FAILED, FINISHED, LAYERS, RUNNING, definition, finish_export
from tests.service.test_api import assert_error, sign_in

ROOT = "/api/v1"


class TestStudies:
    def test_the_same_request_creates_once(self, api: TestClient, place: Place) -> None:
        headers = {"Idempotency-Key": "4711"}
        body = definition("once").to_dict()
        first, second = (api.post(f"{ROOT}/studies", json=body, headers=headers) for _ in range(2))
        assert (first.status_code, second.status_code) == (201, 201)
        assert first.json() == second.json()
        other = api.post(f"{ROOT}/studies", json=definition("two").to_dict(), headers=headers)
        assert "Idempotency-Key" in assert_error(other, 409, "ConflictError")
        assert len(place.store.studies()) == 3
        assert api.post(f"{ROOT}/studies", json=body).json()["study"]["name"] == "once-2"

    def test_filters_orders_and_pages(self, api: TestClient, place: Place) -> None:
        for name in ("alpha", "beta", "gamma"):
            place.store.submit_study(definition(name), {"top1": 0.0})
        note = "Für Ümit, for each 100%"
        place.store.describe(place.store.study("beta").id, tags=["a", "b"], note=note, archived=True)

        def names(**query: object) -> list[str]:
            answer = api.get(f"{ROOT}/studies", params=query)
            assert answer.status_code == 200, answer.text
            return [study["name"] for study in answer.json()["studies"]]

        everything = ["alpha", "beta", FINISHED, "gamma", "running"]
        assert names() == ["gamma", "beta", "alpha", RUNNING, FINISHED]
        assert names(sort="name") == everything
        assert names(sort="updated")[0] == "beta"
        assert names(state=["queued", "finished"], sort="name") == ["alpha", "beta", FINISHED, "gamma"]
        for query in ({"tag": ["a", "b"]}, {"archived": True}, {"text": "für Ümit"}, {"text": "FOR EACH 100%"}):
            assert names(**query) == ["beta"], query
        assert names(tag="c") == names(text="100%x") == names(text="ea_h") == []
        assert "beta" not in names(archived=False)
        for sort in ("name", "created", "updated", "best_top1"):
            seen, after = [], None
            while after is not None or not seen:
                mark = {"after": after} if after else {}
                page = api.get(f"{ROOT}/studies", params={"sort": sort, "limit": 2, **mark})
                seen += [study["name"] for study in page.json()["studies"]]
                after = page.json()["after"]
            assert seen == names(sort=sort)
        mark = api.get(f"{ROOT}/studies", params={"limit": 1}).json()["after"]
        assert_error(api.get(f"{ROOT}/studies", params={"after": mark, "sort": "name"}), 400, "InputError")
        assert_error(api.get(f"{ROOT}/studies", params={"after": "x"}), 400, "InputError")

    def test_it_is_described_anew(self, api: TestClient, place: Place) -> None:
        study = place.store.study(FINISHED)
        said = {"name": "renamed", "tags": ["paper", "table-2"], "note": "see page 7", "archived": True}
        body = api.patch(f"{ROOT}/studies/{study.id}", json=said).json()
        assert {key: body[key] for key in said} == said
        assert api.patch(f"{ROOT}/studies/renamed", json={"archived": False}).json()["note"] == "see page 7"
        assert place.store.events_after(study.id, 0)[-1].payload["archived"] is False
        assert_error(api.patch(f"{ROOT}/studies/renamed", json={"name": RUNNING}), 409, "ConflictError")
        for bad in ({"name": "a b"}, {"tags": ["a b"]}, {"note": "x" * 20_000}):
            assert_error(api.patch(f"{ROOT}/studies/renamed", json=bad), 400, "InputError")
        for bad in ({"notes": "x"}, {"tags": "x"}, {"archived": 1}):
            assert_error(api.patch(f"{ROOT}/studies/renamed", json=bad), 422, "InputError")

    def test_a_clone_is_launched(self, api: TestClient, place: Place) -> None:
        body = api.post(f"{ROOT}/studies/{FINISHED}/clone", params={"name": "again"}).json()
        assert (body["study"]["name"], body["study"]["state"], body["job"]["state"]) == ("again", "queued", "queued")
        assert place.store.study("again").definition == place.store.study(FINISHED).definition
        assert api.post(f"{ROOT}/studies/{FINISHED}/clone").json()["study"]["name"] == f"{FINISHED}-2"

    def test_it_is_deleted_with_its_files(self, api: TestClient, place: Place, tmp_path: Path) -> None:
        study = place.store.study(FINISHED)
        file = tmp_path / "weights"
        file.write_bytes(b"x" * 100)
        for uri in (f"studies/{study.id}/3/model.safetensors", f"exports/{study.id}/3/a.zip", "exports/other/3/a.zip"):
            place.artifacts.put(file, uri, "weights")
        assert_error(api.delete(f"{ROOT}/studies/{FINISHED}"), 422, "InputError")
        assert FINISHED in assert_error(api.delete(f"{ROOT}/studies/{FINISHED}?confirm=x"), 400, "InputError")
        held = api.delete(f"{ROOT}/studies/{RUNNING}?confirm={RUNNING}")
        assert "search (running)" in assert_error(held, 409, "ConflictError")
        body = api.delete(f"{ROOT}/studies/{FINISHED}", params={"confirm": FINISHED}).json()
        assert (body["id"], body["files"], body["size"]) == (study.id, 2, 200)
        assert_error(api.get(f"{ROOT}/studies/{study.id}"), 404, "NotFoundError")
        assert [row.study.name for row in place.store.studies()] == [RUNNING]
        assert place.artifacts.exists("exports/other/3/a.zip")
        # Networks that the other study found as well stay.
        assert all(trial.candidates for trial in place.store.trials(place.store.study(RUNNING).id)[:2])


class TestTrials:
    def test_a_table_of_chosen_columns(self, api: TestClient, place: Place) -> None:
        url = f"{ROOT}/studies/{FINISHED}/trials"
        query = {"columns": "number,state,parameters.target,top1", "sort": "top1", "descending": True, "limit": 3}
        body = api.get(url, params=query).json()
        assert body["columns"] == ["number", "state", "parameters.target", "top1"]
        scores = [row[3] for row in body["rows"]]
        assert scores == sorted(scores, reverse=True)
        assert body["after"]
        detail = assert_error(api.get(url, params={"columns": "numbr"}), 400, "InputError")
        assert "did you mean number?" in detail

    def test_trials_with_a_narrow_layer(self, api: TestClient, place: Place) -> None:
        study = place.store.study(FINISHED)
        layer = LAYERS[2][0]
        ratios = {
            trial.number: trial.candidates[0].splits[2].ratio
            for trial in place.store.trials(study.id)
            if trial.candidates
        }
        limit = sorted(ratios.values())[len(ratios) // 2]
        wanted = [number for number, ratio in ratios.items() if ratio < limit]
        assert 0 < len(wanted) < len(ratios)
        for split in (f"2 < {limit}", f"{layer}<{limit}"):
            body = api.get(f"{ROOT}/studies/{study.id}/trials", params={"split": split}).json()
            assert [trial["number"] for trial in body["trials"]] == wanted
            body = api.get(f"{ROOT}/studies/{study.id}/trials", params={"split": split, "sort": "top1"}).json()
            assert sorted(trial["number"] for trial in body["trials"]) == wanted
        both = {"split": [f"2 < {limit}", f"2 >= {limit}"]}
        assert api.get(f"{ROOT}/studies/{study.id}/trials", params=both).json()["count"] == 0
        for bad in ("2", "2 ~ 1/4", "2 < x", "< 1"):
            assert_error(api.get(f"{ROOT}/studies/{study.id}/trials", params={"split": bad}), 400, "InputError")

    def test_downloads_hold_every_network(self, api: TestClient, place: Place) -> None:
        base = f"{ROOT}/studies/{FINISHED}"
        text = api.get(f"{base}/trials.csv")
        assert text.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(text.text)))
        assert [int(row["number"]) for row in rows] == list(range(15))
        whole = api.get(f"{base}/trials.parquet")
        rest = {"Range": "bytes=100-", "If-Range": whole.headers["etag"]}  # a broken download goes on
        assert api.get(f"{base}/trials.parquet", headers=rest).content == whole.content[100:]
        table = pq.read_table(io.BytesIO(whole.content))
        assert table.column("number").to_pylist() == list(range(15))
        assert [row["top1"] for row in rows] == ["" if v is None else str(v) for v in table["top1"].to_pylist()]
        assert str(table.schema.field("parameters.target").type) == "double"
        chosen = api.get(f"{base}/trials.csv", params={"columns": "number,top1", "state": "failed"}).text
        assert chosen.splitlines() == ["number,top1", f"{FAILED},"]

    def test_a_text_is_no_formula(self, api: TestClient, place: Place) -> None:
        study, _ = place.store.submit_study(definition("new"), {"top1": 0.0})
        [spec] = place.store.add_trials(study.id, [(TrialKind.SEARCH, {"target": 2.0})])
        place.store.end_trial(study.id, spec.number, TrialState.FAILED, reason='=HYPERLINK("x")')
        text = api.get(f"{ROOT}/studies/new/trials.csv", params={"columns": "reason"}).text
        assert next(csv.reader(text.splitlines()[1:]))[0].startswith("'=")

    def test_parts_of_a_trial(self, api: TestClient, place: Place) -> None:
        base = f"{ROOT}/studies/{FINISHED}/trials"
        splits = api.get(f"{base}/4/splits").json()
        assert [split["layer"] for split in splits["splits"]] == [layer[0] for layer in LAYERS]
        history = api.get(f"{base}/4/history").json()
        assert [epoch["epoch"] for epoch in history["epochs"]] == list(range(1, 7))
        assert set(history["epochs"][0]["active_channels"]) == {layer[0] for layer in LAYERS}
        log = api.get(f"{base}/{FAILED}/log").json()["lines"]
        states = [line["facts"]["state"] for line in log if line["kind"] == "trial"]
        assert states == ["queued", "running", "failed"]
        assert [line["kind"] for line in log].count("epoch") == 6
        assert api.get(f"{base}/{FAILED}/log?limit=1").json()["lines"] == log[-1:]
        for part in ("splits", "history", "log"):
            assert_error(api.get(f"{base}/99/{part}"), 404, "NotFoundError")

    def test_one_failed_trial_runs_again(self, api: TestClient, place: Place) -> None:
        study = place.store.study(FINISHED)
        assert "only a failed one" in assert_error(
            api.post(f"{ROOT}/studies/{FINISHED}/trials/3/retry"), 409, "ConflictError"
        )
        body = api.post(f"{ROOT}/studies/{FINISHED}/trials/{FAILED}/retry").json()
        assert (body["study"]["state"], body["job"]["state"]) == ("queued", "queued")
        assert place.store.trial(study.id, FAILED).state is TrialState.QUEUED
        assert place.store.study_row(study.id).counts[TrialState.FAILED] == 0


class TestFronts:
    def test_a_selection_keeps_the_front_and_the_baselines(self, api: TestClient, place: Place) -> None:
        url = f"{ROOT}/studies/{FINISHED}/pareto"
        whole = api.get(url).json()
        few = api.get(url, params={"most": 2}).json()
        assert (whole["thinned"], few["thinned"]) == (False, True)
        kept = [point["number"] for point in few["points"]]
        need = [p["number"] for p in whole["points"] if p["on_front"] or p["kind"] == "baseline"]
        assert set(need) <= set(kept)
        assert len(kept) == len(need) + 2
        assert few["scored"] == whole["scored"]
        assert few["hypervolume"] == whole["hypervolume"]
        none = api.get(url, params={"dominated": False, "baselines": False}).json()
        assert all(point["on_front"] for point in none["points"])

    def test_three_objectives_and_circumstances(self, api: TestClient, place: Place) -> None:
        url = f"{ROOT}/studies/{FINISHED}/pareto"
        body = api.get(url, params={"x": "macs", "y": "top1", "z": "params"}).json()
        assert [axis["metric"] for axis in body["objectives"]] == ["macs", "top1", "params"]
        query = {"x": "latency_ms", "fingerprint": "cpu-1-1-torch"}
        assert len(api.get(url, params=query).json()["points"]) == 8
        assert api.get(url, params={**query, "fingerprint": "gpu"}).json()["scored"] == 8  # the usual ones

    def test_several_studies(self, api: TestClient, place: Place) -> None:
        body = api.get(f"{ROOT}/fronts", params={"study": [FINISHED, RUNNING]}).json()
        assert [front["study"] for front in body["fronts"]] == [FINISHED, RUNNING]
        assert_error(api.get(f"{ROOT}/fronts", params={"study": [FINISHED, FINISHED]}), 400, "InputError")
        assert_error(api.get(f"{ROOT}/fronts"), 422, "InputError")

    def test_the_hypervolume_grows(self, api: TestClient, place: Place) -> None:
        body = api.get(f"{ROOT}/studies/{FINISHED}/hypervolumes").json()
        values = [growth["value"] for growth in body["growths"]]
        assert values == sorted(values)
        assert len(values) > 1


class TestArchitectures:
    def test_an_export_is_listed_with_its_origin(self, api: TestClient, place: Place, tmp_path: Path) -> None:
        assert api.get(f"{ROOT}/architectures").json()["count"] == 0
        job = api.post(f"{ROOT}/studies/{FINISHED}/trials/3/exports?onnx=true").json()
        assert place.store.job(job["id"]).payload["onnx"] is True
        finish_export(place.store, place.artifacts, tmp_path)
        [found] = api.get(f"{ROOT}/architectures", params={"study": FINISHED}).json()["architectures"]
        assert (found["study"], found["number"], found["job_id"], found["onnx"]) == (FINISHED, 3, job["id"], True)
        assert f'load_package("{FINISHED}-trial-3")' in found["load"]
        assert api.get(f"{ROOT}{found['download']}").status_code == 200
        body = api.get(f"{ROOT}/architectures/{found['architecture_id'][:8]}").json()
        assert body["exports"] == [found]
        assert {(entry["study"], entry["number"]) for entry in body["provenance"]} >= {(FINISHED, 3)}
        assert_error(api.get(f"{ROOT}/architectures/ffffffffffff"), 404, "NotFoundError")
        assert_error(api.get(f"{ROOT}/architectures/f"), 400, "InputError")

    def test_an_8_bit_form_is_asked_for_with_a_bound_and_shown_with_its_scores(
        self, api: TestClient, place: Place, tmp_path: Path
    ) -> None:
        url = f"{ROOT}/studies/{FINISHED}/trials/3/exports"
        for query in ({"int8_max_drop": 1}, {"int8": True, "int8_max_drop": -1}, {"int8": True, "int8_max_drop": 101}):
            assert api.post(url, params=query).status_code in (400, 422), query
        usual, tight = (api.post(url, params={"int8": True, **bound}).json() for bound in ({}, {"int8_max_drop": 0.5}))
        assert [place.store.job(job["id"]).payload[INT8] for job in (usual, tight)] == [1.0, 0.5]
        assert api.post(url, params={"int8": True, "int8_max_drop": 0.5}).json()["id"] == tight["id"]
        forms = {"top1": {"float32": 0.9, "int8": 0.8}, "latency_ms": {"float32": 2.0, "int8": 1.0}}
        scores = {"images": 144, "max_drop": 0.2, "device": "x", **forms}
        finish_export(place.store, place.artifacts, tmp_path, int8=scores)
        job = JobBody.model_validate(api.get(f"{ROOT}/jobs/{usual['id']}").json())
        [listed] = ExportList.model_validate(api.get(f"{ROOT}/architectures").json()).architectures
        assert job.int8 is not None
        assert (job.int8.top1, job.int8.latency_ms) == (forms["top1"], forms["latency_ms"])
        assert listed.int8 == job.int8
        sign_in(api)
        page = api.get(f"/architectures/{listed.architecture_id}").text
        assert "top-1 80.00 % on 144 validation images, where the float form has 90.00 %" in page

    def test_a_download_goes_on_where_it_was_cut(self, api: TestClient, place: Place, tmp_path: Path) -> None:
        job = api.post(f"{ROOT}/studies/{FINISHED}/trials/3/exports").json()
        content = finish_export(place.store, place.artifacts, tmp_path)
        url = f"{ROOT}/jobs/{job['id']}/download"
        etag = api.get(url).headers["etag"]
        assert etag == f'"{place.store.job(job["id"]).result["sha256"]}"'
        assert api.head(url).headers["etag"] == etag
        assert api.get(url, headers={"If-None-Match": etag}).status_code == 304
        rest = api.get(url, headers={"Range": "bytes=10-", "If-Range": etag})
        assert (rest.status_code, rest.content) == (206, content[10:])
        whole = api.get(url, headers={"Range": "bytes=10-", "If-Range": '"other"'})
        assert (whole.status_code, whole.content) == (200, content)
        assert api.get(url, headers={"Range": "bytes=99999999-"}).status_code == 416


def test_the_catalogue_names_what_definitions_can(api: TestClient, place: Place) -> None:
    assert "digits" in [entry["name"] for entry in api.get(f"{ROOT}/datasets").json()["datasets"]]
    assert "micro" in [entry["name"] for entry in api.get(f"{ROOT}/models").json()["models"]]
    found = api.get(f"{ROOT}/searchers").json()
    assert "tpe" in [entry["name"] for entry in found["searchers"]]
    assert "gates" in [entry["name"] for entry in found["methods"]]
    assert "top1" in [entry["name"] for entry in api.get(f"{ROOT}/metrics/catalog").json()["metrics"]]
    [device] = api.get(f"{ROOT}/devices").json()["devices"]
    assert device["fingerprint"] == "cpu-1-1-torch"
    assert device["circumstances"]["threads"] == 1


def test_the_queue_and_its_workers(api: TestClient, place: Place) -> None:
    place.store.enqueue_job(JobKind.EXPORT, {"number": 1}, study_id=place.store.study(FINISHED).id)
    queue = api.get(f"{ROOT}/queue").json()
    assert [(job["kind"], job["state"]) for job in queue["jobs"]] == [("search", "running"), ("export", "queued")]
    assert (queue["waiting"], queue["running"]) == (1, 1)
    [worker] = api.get(f"{ROOT}/workers").json()["workers"]
    assert (worker["name"], worker["alive"]) == ("fixture", True)
    first = api.get(f"{ROOT}/jobs", params={"limit": 2}).json()
    rest = api.get(f"{ROOT}/jobs", params={"limit": 2, "after": first["after"]}).json()
    assert [job["state"] for job in first["jobs"] + rest["jobs"]] == ["queued", "running", "finished"]
    assert api.get(f"{ROOT}/jobs", params={"kind": "export"}).json()["count"] == 1


@pytest.mark.parametrize("name", [FINISHED, RUNNING])
def test_every_state_of_the_fixture_is_counted(place: Place, name: str) -> None:
    study = place.store.study(name)
    counts = place.store.study_row(name).counts
    states = [trial.state for trial in place.store.trials(study.id)]
    assert {state: count for state, count in counts.items() if count} == {s: states.count(s) for s in set(states)}
    assert study.state in StudyState
