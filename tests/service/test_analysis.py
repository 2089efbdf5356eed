"""Routes and pages that explain a study: colours of a front, importances, parallel coordinates, trials side by side."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from nas.wire.side_by_side import ImportancesBody, SideBySideBody
from tests.service.conftest import Place
from tests.service.fixture_study import FAILED, FINISHED, LAYERS, RUNNING, definition
from tests.service.test_api import assert_error, sign_in

STUDY = f"/api/v1/studies/{FINISHED}"


def marks(figure: dict) -> list[list]:
    return [entry for trace in figure["data"] for entry in trace.get("customdata", [])]


@pytest.mark.parametrize(
    ("color", "entries"),
    [
        ("parameters.target", {"2", "6", "no value"}),
        ("ratio.2", {"0.0625"}),
        ("latency_ms", {"no value"}),
        ("number", {"0", "14"}),
        ("seed", set()),
    ],
)
def test_a_front_is_coloured_by_a_value(api: TestClient, color: str, entries: set[str]) -> None:
    figure = api.get(f"{STUDY}/figures/front", params={"color": color, "log_x": True}).json()
    assert len(marks(figure)) == 14
    assert figure["layout"]["xaxis"]["type"] == "log"
    assert entries <= {trace.get("name") for trace in figure["data"]}


@pytest.mark.parametrize(
    ("color", "words"),
    [
        ("ratio.5", "there is no layer 5; the network has 5 layers"),
        ("parameters.x", "'x' is not sampled by this study; sampled: target"),
        ("ratio.x", "unknown 'ratio.x'"),
    ],
)
def test_an_unknown_colour_is_refused_with_what_is_known(api: TestClient, color: str, words: str) -> None:
    response = api.get(f"{STUDY}/figures/front", params={"color": color})
    assert words in assert_error(response, 400, "InputError")


def test_a_map_of_the_front_shows_its_learned_networks(api: TestClient) -> None:
    on_front = {
        point["number"]
        for point in api.get(f"{STUDY}/pareto").json()["points"]
        if point["on_front"] and point["kind"] == "search"
    }
    chart = api.get(f"{STUDY}/figures/ratios?front=true").json()["data"][0]
    assert {cell[5] for cell in chart["customdata"]} == on_front
    assert len(chart["y"]) == len(on_front) * len(LAYERS)


def test_parallel_coordinates_have_a_line_for_each_searched_network(api: TestClient) -> None:
    figure = api.get(f"{STUDY}/figures/parallel?color=macs").json()
    assert {entry[0] for entry in marks(figure)} - {None} == set(range(12)) - {FAILED}
    detail = assert_error(api.get(f"{STUDY}/figures/parallel?color=params"), 400, "InputError")
    assert "'params' is no objective" in detail


def test_few_trials_have_no_importances(api: TestClient) -> None:
    body = ImportancesBody.model_validate(api.get(f"{STUDY}/importances").json())
    assert (body.trials, body.objectives) == (11, {})
    assert body.reason is not None
    assert "need 20 complete search trials" in body.reason
    figure = api.get(f"{STUDY}/figures/importance").json()
    assert "20 complete" in figure["layout"]["annotations"][0]["text"]


def test_trials_of_two_studies_stand_side_by_side(api: TestClient, place: Place) -> None:
    short = place.store.study(FINISHED).id[:8]
    query = [("trial", f"{short}:3"), ("trial", f"{RUNNING}:1"), ("trial", f"{FINISHED}:{FAILED}")]
    body = SideBySideBody.model_validate(api.get("/api/v1/compare", params=query).json())
    assert [side.name for side in body.trials] == [f"{FINISHED}:3", f"{RUNNING}:1", f"{FINISHED}:{FAILED}"]
    assert [row.layer for row in body.layers] == [layer for layer, *_ in LAYERS]
    assert all(row.ratios[2] is None for row in body.layers)
    settings = {row.name: row for row in body.settings}
    assert settings["target"].differs
    assert not settings["network"].differs
    ratios = api.get("/api/v1/figures/compare/splits", params=query).json()
    assert [len(trace["y"]) for trace in ratios["data"]] == [len(LAYERS)] * 3
    curves = api.get("/api/v1/figures/compare/history", params=query).json()
    assert len(curves["data"]) == 9


@pytest.mark.parametrize(
    ("trials", "status", "words"),
    [
        ((f"{FINISHED}:3", "nowhere:1"), 404, "there is no study 'nowhere'"),
        ((f"{FINISHED}:3", f"{FINISHED}:99"), 404, f"study {FINISHED} has no trial 99"),
        ((f"{FINISHED}:3", f"{FINISHED}:4.7"), 404, "has no network '7'"),
        ((f"{FINISHED}:3", "passwd"), 400, "'passwd' names no trial"),
        ((f"{FINISHED}:3",), 400, "2 to 8 trials"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    api: TestClient, trials: tuple[str, ...], status: int, words: str
) -> None:
    error = "NotFoundError" if status == 404 else "InputError"
    for path in ("compare", "figures/compare/splits", "figures/compare/history"):
        response = api.get(f"/api/v1/{path}", params=[("trial", trial) for trial in trials])
        assert words in assert_error(response, status, error)


def test_one_network_under_two_names_is_compared_once(api: TestClient, place: Place) -> None:
    trials = [("trial", f"{FINISHED}:3"), ("trial", f"{place.store.study(FINISHED).id}:3")]
    assert "given twice" in assert_error(api.get("/api/v1/compare", params=trials), 400, "InputError")


def test_fronts_of_studies_of_one_data_set_share_a_figure(api: TestClient, place: Place) -> None:
    query = [("study", FINISHED), ("study", RUNNING), ("by", "study")]
    figure = api.get("/api/v1/figures/fronts", params=query).json()
    assert {entry[4] for entry in marks(figure)} == {FINISHED, RUNNING}
    other = definition("elsewhere", data={"name": "digits", "image_size": 12})
    place.store.submit_study(other, {"top1": 0.0})
    refused = api.get("/api/v1/figures/fronts", params=[("study", FINISHED), ("study", "elsewhere")])
    assert "must have the same data set" in assert_error(refused, 400, "InputError")
    twice = api.get("/api/v1/figures/fronts", params=[("study", FINISHED), ("study", FINISHED)])
    assert "given once" in assert_error(twice, 400, "InputError")


def test_the_page_of_a_comparison_takes_more_trials_and_escapes_what_it_shows(api: TestClient) -> None:
    sign_in(api)
    alone = api.get(f"/compare?trial={FINISHED}:3")
    assert alone.status_code == 200
    assert "Add a trial" in alone.text
    assert "<table" not in alone.text
    both = api.get(f"/compare?trial={FINISHED}:3&trial={RUNNING}:1&trial=").text
    assert both.count("<table") == 3
    assert 'class="differs"' in both
    assert api.get("/compare?trial=nowhere:1&trial=x:2").status_code == 404
    bad = api.get("/compare", params=[("trial", "<script>alert(1)</script>"), ("trial", f"{FINISHED}:3")])
    assert bad.status_code == 400
    assert "<script>alert" not in bad.text
