"""A trial with several networks, through the API and on the pages."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from nas.store import Store
from nas.study import Study
from nas.trial import TrialKind, TrialState
from nas.wire.bodies import ParetoBody, StudyList, TrialDetail, TrialList
from partialnet.architecture import Architecture
from service.pages.filters import NOTHING
from tests.nas.store.makers import candidate, networks, supernet
from tests.nas.store.makers import study as study_of
from tests.service.conftest import Place
from tests.service.test_api import sign_in


@pytest.fixture
def study(place: Place) -> Study:
    return supernet(place.store)


def test_the_front_has_a_mark_for_each(api: TestClient, study: Study) -> None:
    body = ParetoBody.model_validate(api.get(f"/api/v1/studies/{study.id}/pareto").json())
    assert body.evaluation == "inherited"
    assert [(point.number, point.position, point.on_front) for point in body.points] == [(0, k, True) for k in range(3)]
    figure = api.get(f"/api/v1/studies/{study.id}/figures/front").json()
    marks = [entry for trace in figure["data"] for entry in trace.get("customdata", [])]
    assert [mark[2] for mark in marks] == ["0.0", "0.1", "0.2"]


def test_lists_say_how_many_and_which_weights(api: TestClient, study: Study) -> None:
    body = TrialList.model_validate(api.get(f"/api/v1/studies/{study.id}/trials").json())
    [trial] = body.trials
    assert (trial.networks, trial.evaluation, trial.scores["top1"], trial.within_budget) == (3, "inherited", 0.5, True)
    studies = StudyList.model_validate(api.get("/api/v1/studies").json()).studies
    assert next(entry for entry in studies if entry.id == study.id).best_top1 == 0.7
    detail = TrialDetail.model_validate(api.get(f"/api/v1/studies/{study.id}/trials/0").json())
    assert [candidate.target for candidate in detail.candidates] == [900.0, 1800.0, 2700.0]


def test_a_figure_and_an_export_are_of_the_network_that_is_named(api: TestClient, study: Study, place: Place) -> None:
    base = f"/api/v1/studies/{study.id}/trials/0"
    response = api.get(f"{base}/figures/splits")
    assert (response.status_code, "choose one by its index" in response.json()["detail"]) == (400, True)
    channels = [
        [entry[1] for entry in api.get(f"{base}/figures/splits?candidate={k}").json()["data"][0]["customdata"]]
        for k in range(3)
    ]
    assert channels == [[5, 4], [6, 5], [7, 6]]
    assert api.get(f"{base}/figures/splits?candidate=9").status_code == 404
    assert api.post(f"{base}/exports").status_code == 400
    first = api.post(f"{base}/exports?candidate=1").json()
    assert api.post(f"{base}/exports?candidate={networks()[1].architecture.id}").json()["id"] == first["id"]
    assert api.post(f"{base}/exports?candidate=2").json()["id"] != first["id"]
    assert place.store.job(first["id"]).payload == {"number": 0, "candidate": "1"}


def test_the_pages_name_each_network(api: TestClient, study: Study) -> None:
    sign_in(api)
    page = api.get(f"/studies/{study.id}").text
    assert re.findall(r'trials/0\?candidate=(\d)" aria-label="Trial 0, network \1">0\.\1<', page) == ["0", "1", "2"]
    shown = api.get(f"/studies/{study.id}/trials/0").text
    assert 'data-candidate="2"' in shown  # the dearest, unless another is chosen
    assert networks()[2].architecture.id in shown
    other = api.get(f"/studies/{study.id}/trials/0?candidate=0").text
    assert networks()[0].architecture.id in other
    assert networks()[2].architecture.id not in other
    assert api.get(f"/studies/{study.id}/trials/0?candidate=7").status_code == 404
    alone = api.get("/studies/digits-fixture/trials/3").text
    assert "Networks of this trial" not in alone


def wide(store: Store) -> Study:
    """A study whose trial settled on a network without one block, with a wider MLP and a larger kernel in others."""
    made = study_of(store, "wide", budget={"scope": "network"}, space={"target": 2e6, "search": ["split", "depth"]})
    [spec] = store.add_trials(made.id, [(TrialKind.SEARCH, {})])
    options = {"embed_dim": 24, "depths": [1, 1, 1], "mlp_ratio": 2.0, "kernel_size": 3, "num_classes": 10}
    blocks = [f"stages.{stage}.blocks.0" for stage in range(3)]
    found = Architecture(
        "partialnet_micro", options, {f"{blocks[0]}.mixer": 4, f"{blocks[1]}.mixer": 3}, None,
        {f"{blocks[1]}.mlp": 77}, [blocks[2]], {f"{blocks[0]}.mixer": 5},
        {f"{blocks[1]}.mixer": 7},
    )  # fmt: skip
    store.start_trial(made.id, spec.number)
    store.end_trial(made.id, spec.number, TrialState.COMPLETE, candidates=[candidate(architecture=found)])
    return made


def test_blocks_are_rows_of_a_wide_network_alone(api: TestClient, study: Study, place: Place) -> None:
    made = wide(place.store)
    detail = TrialDetail.model_validate(api.get(f"/api/v1/studies/{made.id}/trials/0").json())
    rows = [(b.present, b.active_channels, b.kernel_size, b.hidden_channels) for b in detail.candidates[0].blocks]
    assert rows == [(True, 4, 5, 48), (True, 3, 3, 77), (False, None, None, None)]
    plain = TrialDetail.model_validate(api.get(f"/api/v1/studies/{study.id}/trials/0").json())
    assert [found.blocks for found in plain.candidates] == [()] * 3
    sign_in(api)
    page = api.get(f"/studies/{made.id}/trials/0").text
    cells = re.findall(r"<code>stages\.\d\.blocks\.0</code></th>(.*)</tr>", page)
    assert [re.findall(r">([^<]+)</td>", cell) for cell in cells] == [
        ["yes", "24", "4", NOTHING, "5 x 5", "48"],
        ["yes", "48", "3", "7", "3 x 3", "77"],
        ["no", "96", *[NOTHING] * 4],
    ]  # fmt: skip
    assert "blocks-heading" not in api.get(f"/studies/{study.id}/trials/0").text
