"""``--server``: the commands print of a service what they print of its database."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nas.study import StudyState
from nas.wire.trainings import training_detail_from
from tests.service.conftest import TOKEN, Place, serve
from tests.service.fixture_study import FINISHED, RUNNING, definition, finish_export
from tests.service.test_trainings import finish

Nas = Callable[..., tuple[int, str, str]]
SAME = (
    ("studies",),
    ("studies", "--json"),
    ("study", FINISHED),
    ("study", "latest", "--json"),
    ("pareto", FINISHED),
    ("pareto", FINISHED, "--all"),
    ("pareto", FINISHED, "--csv"),
    ("pareto", FINISHED, "--x", "params", "--json"),
    ("pareto", RUNNING),
    ("trial", FINISHED, "3"),
    ("trial", FINISHED, "3", "--json"),
    ("trial", RUNNING, "0"),
    ("trial", FINISHED, "99"),
    ("study", "none"),
    ("pareto", FINISHED, "--x", "speed"),
    ("resume", RUNNING),
)


@pytest.fixture
def url(place: Place, nas: Nas, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a service, whose token is in the environment."""
    monkeypatch.setenv("NAS_TOKEN", TOKEN)
    with serve(place.app) as address:
        yield address


def test_the_same_is_printed_of_both(nas: Nas, place: Place, url: str) -> None:
    for arguments in SAME:
        here = nas(*arguments, "--database", place.settings.database_url)
        there = nas(*arguments, "--server", url)
        assert there == here, arguments
    assert nas("studies", "--server", url)[1].count("\n") == 3


def test_files_are_the_same_of_both(nas: Nas, place: Place, url: str, tmp_path: Path) -> None:
    made = {}
    for name, flags in (("here", ("--database", place.settings.database_url)), ("there", ("--server", url))):
        folder = tmp_path / name
        folder.mkdir()
        for arguments in (
            ("trial", FINISHED, "3", "--architecture", str(folder / "a.json")),
            ("report", FINISHED, "--format", "html", "--output", str(folder / "report")),
        ):
            code, _, err = nas(*arguments, *flags)
            assert code == 0, err
        page = (folder / "report" / "report.html").read_text()
        made[name] = (folder / "a.json").read_text(), re.sub(r"on \d{4}-\d\d-\d\d \d\d:\d\d UTC", "", page)
    assert made["here"] == made["there"]


def test_a_search_is_controlled_from_elsewhere(nas: Nas, place: Place, url: str) -> None:
    place.store.submit_study(definition("mine"), {"top1": 0.0})
    for command, state in (("pause", StudyState.PAUSED), ("resume", StudyState.QUEUED), ("stop", StudyState.STOPPED)):
        code, _, err = nas(command, "mine", "--server", url)
        assert (code, state.value in err) == (0, True), err
        assert place.store.study("mine").state is state


def test_a_network_is_fetched(
    nas: Nas, place: Place, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas.client import Client

    original = Client.wait

    def worker_too(client: Client, job_id: str, **options: float) -> object:
        finish_export(place.store, place.artifacts, tmp_path)
        return original(client, job_id, **options)

    monkeypatch.setattr(Client, "wait", worker_too)  # the worker has no place in this process
    code, out, err = nas("export", FINISHED, "3", "--out", str(tmp_path / "out"), "--server", url)
    assert code == 0, err
    assert "exported to" in out
    assert list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("studies", "--server", "{url}", "--database", "sqlite:///x.db"), "exclude each other"),
        (("studies", "--server", "{url}", "--disk"), "leave out --server"),
        (("export", "s", "3", "--out", "x", "--int8-max-drop", "1", "--server", "{url}"), "works only with --int8"),
        (("studies", "--server", "nonsense"), "not an address"),
        (
            ("train", "--study", FINISHED, "--trial", "3", "--ray-address", "auto", "--server", "{url}"),
            "the worker's own --ray-address decides",
        ),
    ],
)
def test_what_does_not_go_together(nas: Nas, url: str, arguments: tuple[str, ...], expected: str) -> None:
    code, _, err = nas(*(argument.format(url=url) for argument in arguments))
    assert (code, expected in err) == (2, True), err


def test_the_environment_names_a_service_and_a_token(
    nas: Nas, place: Place, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_SERVER", url)
    assert FINISHED in nas("studies")[1]
    assert nas("studies", "--database", "sqlite:///none.db")[0] == 2  # the flag wins over the environment
    monkeypatch.setenv("NAS_TOKEN", "wrong-token-of-16-characters")
    code, _, err = nas("studies")
    assert (code, "token is wrong" in err) == (2, True), err


def test_trainings_are_the_same_of_both(nas: Nas, place: Place, url: str, tmp_path: Path) -> None:
    store = place.store
    local = ("--database", place.settings.database_url)
    code, out, err = nas("train", "--study", FINISHED, "--trial", "3", "--epochs", "3", "--queue", "--server", url)
    assert code == 0, err
    made = store.training(out.strip())
    for arguments in (("list",), ("list", "--study", RUNNING), ("list", "--json"), ("show", made.id[:8]),
                      ("show", made.id, "--json"), ("show", "abcdef"), ("resume", made.id)):  # fmt: skip
        assert nas("trainings", *arguments, "--server", url) == nas("trainings", *arguments, *local), arguments
    finish(place, training_detail_from(made))
    shown = nas("trainings", "show", made.id, "--server", url)
    assert shown == nas("trainings", "show", made.id, *local)
    assert "3 of 3 epochs" in shown[1]
    for name, flags in (("here", (*local, "--storage", place.settings.storage)), ("there", ("--server", url))):
        assert nas("trainings", "package", made.id, "--out", tmp_path / name, *flags)[0] == 0
        assert (tmp_path / name / "architecture.json").read_text() == "{}"
    assert "deleted training" in nas("trainings", "delete", made.id, "--server", url)[2]
    assert "leave out --server" in nas("trainings", "resume", made.id, "--here", "--server", url)[2]
