"""The client against a real server on a real socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.client import Client
from nas.definition.study import parse_study
from nas.errors import ConflictError, DefinitionError, InputError, JobError, NasError, NotFoundError
from nas.jobs import JobState
from nas.metrics import EvaluationKind
from nas.study import StudyState
from service.pages.views import EXAMPLE
from tests.service.conftest import TOKEN, Place, serve
from tests.service.fixture_study import FAILED, FINISHED, LAYERS, RUNNING, definition, finish_export


@pytest.fixture
def client(place: Place) -> Iterator[Client]:
    """A client with the token."""
    with serve(place.app) as url, Client(url, TOKEN) as client:
        assert TOKEN not in repr(client)
        yield client


def test_launching_from_every_form(client: Client, place: Place) -> None:
    wanted = definition("one")
    assert client.launch(wanted).study.name == "one"
    assert client.launch(wanted.to_dict()).study.name == "one-2"
    assert client.launch(EXAMPLE).study.planned == 20
    assert parse_study(client.study("one").definition) == wanted == place.store.study("one").definition


def test_looking_at_everything(client: Client) -> None:
    assert [study.name for study in client.studies().studies] == [RUNNING, FINISHED]
    study = client.study(FINISHED)
    assert study.state is StudyState.FINISHED
    assert client.trials(study.id).count == 15
    trial = client.trial(study.id, 3)
    assert [split.layer for split in trial.candidates[0].splits] == [layer[0] for layer in LAYERS]
    front = client.pareto(study.id, x="params", y="top1", evaluation=EvaluationKind.INHERITED)
    assert {axis.metric for axis in front.objectives} == {"params", "top1"}
    assert any(point.on_front for point in front.points)


def test_pausing_resuming_and_stopping(client: Client) -> None:
    launched = client.launch(definition("short"))
    paused = client.pause("short")
    assert (paused.study.state, paused.job and paused.job.state) == (StudyState.PAUSED, JobState.CANCELLED)
    with pytest.raises(JobError, match="cancelled"):
        client.wait(launched.job.id, seconds=1)
    assert client.resume("short").study.state is StudyState.QUEUED
    assert client.stop("short").study.state is StudyState.STOPPED
    with pytest.raises(ConflictError, match="it was ended for good"):
        client.extend("short", 2)
    before = client.study(FINISHED).planned
    assert client.extend(FINISHED, 2).study.planned == before + 2
    with pytest.raises(JobError, match="still queued"):
        client.wait(client.export(FINISHED, 3).id, seconds=0.2, pause=0.1)


def test_exporting(client: Client, place: Place, tmp_path: Path) -> None:
    job = client.export(FINISHED, 3)
    content = finish_export(place.store, place.artifacts, tmp_path)
    done = client.wait(job.id, seconds=10)
    target = tmp_path / "network.zip"
    assert client.download(done, target) == target
    assert target.read_bytes() == content
    (tmp_path / "link").symlink_to(target)
    target.write_bytes(b"old")
    client.download(done, tmp_path / "link")
    assert (tmp_path / "link").readlink() == target
    assert target.read_bytes() == content
    wrong = done.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(NasError, match="damaged"):
        client.download(wrong, tmp_path / "other.zip")
    assert sorted(path.name for path in tmp_path.glob("*.zip*")) == ["export.zip", "network.zip"]


def test_errors_keep_their_kind(client: Client) -> None:
    with pytest.raises(NotFoundError, match="digits-fixture"):
        client.study("digit-fixture")
    with pytest.raises(NotFoundError, match="no trial 99"):
        client.trial(FINISHED, 99)
    with pytest.raises(ConflictError, match="diverged"):
        client.export(FINISHED, FAILED)
    with pytest.raises(DefinitionError) as caught:
        client.launch({"name": "x", "data": {"name": "mnist"}, "sweeep": 1})
    assert len(str(caught.value).splitlines()) == 2
    with pytest.raises(InputError, match="speed"):
        client.pareto(FINISHED, x="speed")
    with pytest.raises(ConflictError, match="no file"):
        client.download(client.job(client.export(FINISHED, 3).id), Path("nowhere.zip"))


@pytest.mark.parametrize("ref", ["../jobs", "a/b", "a?b=c", "%2e%2e", "ü", "."])
def test_a_name_cannot_become_another_path(client: Client, ref: str) -> None:
    with pytest.raises((NotFoundError, InputError)):
        client.study(ref)


def test_a_missing_or_wrong_token(client: Client) -> None:
    for token in (None, "wrong"):
        with Client(client.url, token) as stranger, pytest.raises(InputError, match="token"):
            stranger.studies()


def test_nobody_there() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(NasError, match=r"cannot be reached.*nas serve"):
        client.studies()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", "", "localhost"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(InputError, match="address"):
        Client(url)
