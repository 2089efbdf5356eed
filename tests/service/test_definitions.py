"""Definitions that are being written: their check, changes of their text, and the page that does both."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from nas.definition.checking import check_text
from nas.definition.editing import edit_yaml
from nas.definition.example import EXAMPLE, starting_definitions
from nas.definition.requested_training import RequestedTraining
from nas.definition.sections import DataSpec
from nas.definition.study import StudyDefinition, parse_study
from nas.definition.text import parse_yaml
from nas.errors import LimitError
from nas.settings import Settings
from service.app import create_app
from service.launch_check import LaunchCheck, Look
from service.pages.definition_form import Field, Kind, fields
from service.settings import ServiceSettings
from tests.service.conftest import BEARER, Place, place_in
from tests.service.fixture_study import FINISHED, definition
from tests.waiting import wait_for

ROOT = "/api/v1"
YAML = {"Content-Type": "application/yaml"}


class TestCheck:
    def test_a_valid_definition_has_its_complete_form_and_its_cost(self, api: TestClient, place: Place) -> None:
        before = len(place.store.studies())
        found = api.post(f"{ROOT}/definitions/check", content=EXAMPLE, headers=YAML).json()
        assert (found["valid"], found["faults"], found["data_checked"]) == (True, [], False)
        assert parse_study(found["complete"]) == parse_study(parse_yaml(EXAMPLE))
        assert found["written"] == parse_yaml(EXAMPLE)
        assert found["estimate"]["trials"] == {"search": 8, "baselines": 3, "final": 12}
        other = EXAMPLE.replace("name: micro", "name: t0")
        assert api.post(f"{ROOT}/definitions/check", content=other, headers=YAML).json()["estimate"]["compared"] is None
        assert len(place.store.studies()) == before

    def test_recorded_trials_of_a_like_study_say_how_long_it_takes(self, api: TestClient) -> None:
        text = definition("again", sweep={"trials": 24}).to_yaml()
        found = api.post(f"{ROOT}/definitions/check", content=text, headers=YAML).json()["estimate"]
        assert (found["compared"], found["compared_trials"]) == ("running", 2)
        assert found["seconds"] > 0

    def test_all_faults_have_keys_and_lines(self, api: TestClient) -> None:
        text = "name: x\ndata: {name: digits}\ntraining:\n  epochs: 0\nsweeep: 3\n"
        found = api.post(f"{ROOT}/definitions/check", content=text, headers=YAML).json()
        assert not found["valid"]
        assert {(fault["key"], fault["line"]) for fault in found["faults"]} == {("training.epochs", 4), ("sweeep", 5)}
        assert found["complete"] is found["estimate"] is None

    @pytest.mark.parametrize("text", ["", "- 1", "a: [", 'name: "\\ud800"', "a: .nan", "{a: 1, a: 2}", "? [x]\n: y"])
    def test_a_text_that_is_no_definition_is_answered(self, api: TestClient, text: str) -> None:
        found = api.post(f"{ROOT}/definitions/check", content=text, headers=YAML)
        assert found.status_code == 200
        assert not found.json()["valid"]

    @pytest.mark.long  # seconds of torch; a launch is checked in this way as well
    def test_data_and_targets_are_checked_once(self, tmp_path: Path) -> None:
        settings = Settings(database_url=f"sqlite:///{tmp_path / 'nas.db'}", token=BEARER["Authorization"][7:])
        app = create_app(settings, ServiceSettings(worker=False, check_launches=True))
        with TestClient(app, base_url="http://localhost", headers=BEARER) as client:
            found, known = (
                client.post(f"{ROOT}/definitions/check?data=true", content=text, headers=YAML).json()
                for text in (EXAMPLE, EXAMPLE.replace("my-search", "other"))
            )
            assert (found["valid"], found["data_checked"]) == (True, True)
            assert any("reachable targets" in note for note in found["notes"])
            assert known["notes"] == found["notes"]
            assert len(app.state.launch_check._known) == 1


    def test_few_looks_wait_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A thread that waits serves nobody else."""
        check, found, go_on = LaunchCheck({}, active=True), Look((), (), None), threading.Event()
        begun: list[str] = []

        def ask(asked: StudyDefinition) -> Look:
            begun.append(asked.name)
            go_on.wait(10)
            return found

        monkeypatch.setattr(check, "_ask", ask)
        with ThreadPoolExecutor(4) as threads:
            looks = [threads.submit(check.look, definition("a", sweep={"trials": number})) for number in (5, 6, 7, 8)]
            wait_for(lambda: begun and check._looks._value == 0)
            assert check.look(definition("b", sweep={"trials": 9})) is None
            go_on.set()
        assert [look.result() for look in looks] == [found] * 4
        assert check.look(definition("b", sweep={"trials": 9})) is found


    def test_launches_wait_in_a_bounded_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The one too many is told so at once, and the waiting ones are all checked."""
        check, go_on = LaunchCheck({}, active=True), threading.Event()
        monkeypatch.setattr(check, "_ask", lambda _asked: go_on.wait(10) and Look((), (), {"top1": 0.0}))
        with ThreadPoolExecutor(8) as threads:
            waiting = [threads.submit(check.reference_point, definition("a")) for _ in range(8)]
            wait_for(lambda: check._launches._value == 0)
            with pytest.raises(LimitError, match="8 launches are being checked already; nothing was launched"):
                check.reference_point(definition("b"))
            training = RequestedTraining.model_validate({"package": "p", "data": {"name": "digits"}})
            with pytest.raises(LimitError, match="send this one again"):
                check.check_training(training, DataSpec(name="digits"))
            go_on.set()
        assert [launch.result() for launch in waiting] == [{"top1": 0.0}] * 8
        assert check.reference_point(definition("b")) == {"top1": 0.0}

    def test_a_check_that_hangs_ends_the_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("service.launch_check._LAUNCH_SECONDS", 0.01)
        check = LaunchCheck({}, active=True)
        with check._turn, pytest.raises(LimitError, match="take over 0 s"):
            check.reference_point(definition("a"))
        assert check._launches._value == 8


class TestEdit:
    def test_comments_stay(self, api: TestClient) -> None:
        body = {"text": EXAMPLE, "changes": {"training.epochs": 3, "question": None}}
        text = api.post(f"{ROOT}/definitions/edit", json=body).json()["text"]
        assert "epochs: 3                 # epochs of the gate training" in text
        assert "question" not in text

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"text": "a: [", "changes": {"a": 1}}, 422),
            ({"text": "[" * 400, "changes": {"a": 1}}, 422),
            ({"text": "- 1", "changes": {"a": 1}}, 400),
            ({"text": "a: 1", "changes": {"": 1}}, 400),
            ({"text": "a: 1", "changes": {}}, 422),
            ({"text": "a: 1\n" + "#" * 60_000, "changes": {f"k{place}": 1 for place in range(5)}}, 422),
            ({"text": "a: 1", "changes": {"a": 1}, "more": 1}, 422),
        ],
    )
    def test_what_cannot_be_changed_is_refused(self, api: TestClient, body: dict[str, object], status: int) -> None:
        answer = api.post(f"{ROOT}/definitions/edit", json=body)
        assert answer.status_code == status, answer.text


class TestForm:
    @pytest.mark.parametrize("field", [field for group in fields().values() for field in group], ids=lambda f: f.key)
    def test_a_field_is_a_key_of_definitions(self, field: Field) -> None:
        values = {
            Kind.TEXT: "x", Kind.WHOLE: 2, Kind.REAL: 0.5, Kind.LIST: [0.5], Kind.RANGE: {"uniform": [2, 3]},
            Kind.CHOICE: next(iter(field.options), None),
        }  # fmt: skip
        text = f"name: x\ndata: {{name: digits}}\nmethod: {field.methods[0]}\n"
        checked = check_text(edit_yaml(text, {field.key: values[field.kind]}))
        assert [fault for fault in checked.faults if "unknown" in fault.text or "ignores" in fault.text] == []
        assert field.help

    def test_it_begins_with_an_example_or_a_study(self, api: TestClient, place: Place) -> None:
        for name, text in starting_definitions().items():
            page = signed_in(api).get(f"/new?example={name}")
            assert page.status_code == 200
            assert text.splitlines()[0] in page.text
        study = place.store.study(FINISHED)
        page = api.get(f"/new?study={study.id}")
        assert f"name: {FINISHED}" in page.text
        assert api.get("/new?example=../nas").status_code == 404
        assert api.get("/new?study=unknown").status_code == 404


class TestHelp:
    def test_the_reference_names_all_routes(self, api: TestClient, place: Place) -> None:
        page = signed_in(api).get("/help/api").text
        for path, item in place.app.openapi()["paths"].items():
            assert f">{path}<" in page
            for method in item:
                assert item[method]["operationId"] in page
        assert "Number of trials that the definition requests, with baselines and the final comparison." in page

    def test_the_commands_exist(self, api: TestClient) -> None:
        from typer.main import get_command

        from nas.cli import make_app

        commands = get_command(make_app()).commands  # type: ignore[attr-defined]
        named = set(re.findall(r"^(?:<pre[^>]*>|\s*)?nas ([a-z-]+)", signed_in(api).get("/help").text, re.MULTILINE))
        assert len(named) > 5
        assert named <= set(commands)


def signed_in(client: TestClient) -> TestClient:
    """Return the client with the cookie of a session: pages take no token."""
    store = client.app.state.store  # type: ignore[attr-defined]
    client.get(f"/?link={store.create_link()}")
    return client


def test_a_page_of_all_studies_is_narrowed_and_turned(api: TestClient, place: Place) -> None:
    for number in range(60):
        place.store.submit_study(definition(f"s{number:02}"), {"top1": 0.0})
    place.store.describe(place.store.study("s07").id, tags=["mine"], archived=True)
    pages = signed_in(api)

    def names(query: str) -> list[str]:
        return re.findall(r'<th scope="row" class="name"><a[^>]*>([^<]*)</a>', pages.get(f"/{query}").text)

    assert names("?sort=name&text=s0") == [f"s0{number}" for number in range(10) if number != 7]
    assert names("?archived=true") == names("?archived=true&tag=mine") == ["s07"]
    assert names("?state=finished") == [FINISHED]
    first = pages.get("/").text
    assert len(names("")) == 50
    [further] = re.findall(r'<a href="/(\?[^"]*)" rel="next">', first)
    assert len(names(further.replace("&amp;", "&"))) == 11
    assert pages.get("/?state=none").status_code == 422
    assert "No study is like this" in pages.get("/?text=nothing").text


def test_an_empty_list_says_how_to_begin(tmp_path: Path) -> None:
    with place_in(tmp_path) as place, TestClient(place.app, base_url="http://localhost") as client:
        assert "Begin with the quickstart" in signed_in(client).get("/").text


def test_a_study_offers_what_its_state_allows(api: TestClient, place: Place) -> None:
    pages = signed_in(api)
    finished, running = (pages.get(f"/studies/{name}").text for name in (FINISHED, "running"))
    for page, extend, delete in ((finished, "yes", "yes"), (running, "no", "no")):
        assert f'data-extend="{extend}"' in page
        assert f'data-delete="{delete}"' in page
    assert 'data-action="pause"' in running
    assert 'data-action="pause"' not in finished
    assert 'data-action="stop"' not in finished
