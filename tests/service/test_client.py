"""The client against a real server on a real socket."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nas.client import AsyncClient, Client, Retries, calls, twin
from nas.client.events import ClientEvent, EventReader
from nas.definition.example import EXAMPLE
from nas.definition.study import parse_study
from nas.errors import (
    ConflictError,
    DefinitionError,
    ForbiddenError,
    InputError,
    JobError,
    LimitError,
    NasError,
    NotFoundError,
)
from nas.jobs import JobState
from nas.metrics import EvaluationKind
from nas.study import StudyState
from nas.tokens import Scope as TokenScope
from tests.service.conftest import TOKEN, Place, serve
from tests.service.fixture_study import FAILED, FINISHED, LAYERS, RUNNING, definition, finish_export
from tests.service.test_trainings import finish


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
    assert client.launch(EXAMPLE).study.planned == 23
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
    told: list[tuple[int, int]] = []
    assert client.download(done, target, progress=lambda *bytes_: told.append(bytes_)) == target
    assert told[-1] == (len(content), len(content))
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
    client = Client(f"http://127.0.0.1:{port}", retries=QUICK)
    with client, pytest.raises(NasError, match=r"cannot be reached.*nas serve"):
        client.studies()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", "", "localhost"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(InputError, match="address"):
        Client(url)


def flaky(app: ASGIApp, failures: list[int | None]) -> tuple[ASGIApp, list[tuple[str, str]]]:
    """Return an application that spoils its first answers, and the list of what reaches the real one.

    Args:
        app: Application that answers.
        failures: For each request, a status to answer instead; None to process it and lose the answer.
    """
    reached: list[tuple[str, str]] = []

    async def unreliable(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        failure = failures.pop(0) if failures else 200
        if failure not in (None, 200):
            await Response("{}", failure, {"Retry-After": "0"})(scope, receive, send)
            return
        reached.append((scope["method"], dict(scope["headers"]).get(b"idempotency-key", b"").decode()))
        if failure is None:

            async def lost(_: Message) -> None:
                raise ConnectionError("the answer is lost")

            await app(scope, receive, lost)
            return
        await app(scope, receive, send)

    return unreliable, reached


QUICK = Retries(attempts=4, first_pause=0.01)


class TestRetries:
    def test_reading_is_repeated(self, place: Place) -> None:
        app, reached = flaky(place.app, [503, 429, 502])
        with serve(app) as url, Client(url, TOKEN, retries=QUICK) as client:
            assert client.studies().count == 2
        assert len(reached) == 1

    def test_a_change_is_repeated_only_if_it_was_not_processed(self, place: Place) -> None:
        app, reached = flaky(place.app, [429, 503])
        with serve(app) as url, Client(url, TOKEN, retries=QUICK) as client, pytest.raises(NasError, match="503"):
            client.stop(RUNNING)
        assert reached == []

    def test_it_gives_up(self, place: Place) -> None:
        app, reached = flaky(place.app, [503] * 9)
        with serve(app) as url, Client(url, TOKEN, retries=QUICK) as client, pytest.raises(NasError, match="503"):
            client.studies()
        assert reached == []

    def test_all_attempts_to_create_carry_one_key(self, place: Place) -> None:
        app, reached = flaky(place.app, [503, 503])
        with serve(app) as url, Client(url, TOKEN, retries=QUICK) as client:
            client.launch(definition("one"))
            client.launch(definition("two"))
        assert len({key for _, key in reached}) == len(reached) == 2
        assert all(key for _, key in reached)

    @given(st.integers(1, 3), st.sampled_from(["", "2", "100000", "x"]))
    def test_pauses_are_bounded(self, attempt: int, told: str) -> None:
        answer = httpx.Response(503, headers={"Retry-After": told})
        pause = Retries(attempts=4, longest_pause=5.0).after(calls.studies(), attempt, answer)
        assert pause is not None
        assert 0 < pause <= 5.0


class TestAsync:
    def test_it_does_what_the_other_one_does(self, place: Place, tmp_path: Path) -> None:
        async def visit(url: str) -> None:
            async with AsyncClient(url, TOKEN, retries=QUICK) as client:
                assert TOKEN not in repr(client)
                several = await asyncio.gather(*(client.study(FINISHED) for _ in range(5)))
                assert {study.name for study in several} == {FINISHED}
                assert (await client.studies()).count == 2
                assert (await client.trials(FINISHED)).count == 15
                assert (await client.trial_page(FINISHED, limit=3)).after is not None
                assert (await client.trial(FINISHED, 3)).number == 3
                assert (await client.pareto(FINISHED)).points
                await client.launch(definition("short"))
                assert (await client.pause("short")).study.state is StudyState.PAUSED
                assert (await client.resume("short")).study.state is StudyState.QUEUED
                assert (await client.stop("short")).study.state is StudyState.STOPPED
                job = await client.export(FINISHED, 3)
                content = finish_export(place.store, place.artifacts, tmp_path)
                done = await client.wait(job.id, seconds=10, pause=0.05)
                told: list[int] = []
                target = await client.download(
                    done, tmp_path / "network.zip", progress=lambda now, all_: told.append(all_ - now)
                )
                assert told[-1] == 0
                assert target.read_bytes() == content
                with pytest.raises(NotFoundError, match="none"):
                    await client.study("none")
                with pytest.raises(NasError, match="damaged"):
                    await client.download(done.model_copy(update={"sha256": "0"}), tmp_path / "other.zip")
                assert (await client.extend(FINISHED, 2)).study.planned == 17

        with serve(place.app) as url:
            asyncio.run(visit(url))

    def test_the_other_client_is_made_from_it(self) -> None:
        made = twin.without_asyncio(twin.SOURCE.read_text(encoding="utf-8"))
        assert made == twin.TWIN.read_text(encoding="utf-8"), "python -m nas.client.twin makes it anew"
        assert not re.search(r"async|await|Async", made.replace("asynchronous.py", ""))
        with pytest.raises(ValueError, match="mend the list in"):
            twin.without_asyncio("import asyncio")


class TestEventReader:
    def test_events_of_a_stream(self) -> None:
        lines = [": alive", "", "id: 7", "event: epoch", 'data: {"epoch":', "data: 3}", "", 'data: {"no": "id"}', ""]
        reader = EventReader()
        found = [event for line in lines if (event := reader.feed(line)) is not None]
        assert found == [ClientEvent(7, "epoch", {"epoch": 3})]

    @pytest.mark.parametrize("lines", [["id: x", "data: {}", ""], ["id: 1", "data: {", ""]])
    def test_what_is_no_event(self, lines: list[str]) -> None:
        reader = EventReader()
        for line in lines[:-1]:
            reader.feed(line)
        with pytest.raises(NasError, match="cannot read"):
            reader.feed(lines[-1])


def test_a_link_of_a_browser_is_no_address_of_a_client() -> None:
    with pytest.raises(InputError, match="nas token create"):
        Client("http://127.0.0.1:8000/?link=nas_x")


def test_scopes_and_limits_are_errors_of_their_own(client: Client, place: Place) -> None:
    _, secret = place.store.create_token("reader", TokenScope.READ)
    with Client(client.url, secret, retries=Retries(attempts=1)) as reader:
        with pytest.raises(ForbiddenError, match="scope read"):
            reader.stop(RUNNING)
        place.app.state.service.searches = 1
        assert client.launch(definition("a")).study.created_by == "NAS_TOKEN"
        with Client(client.url, TOKEN, retries=QUICK) as other, pytest.raises(LimitError, match="limit"):
            other.launch(definition("b"))


def test_trainings_from_launch_to_package(client: Client, place: Place, tmp_path: Path) -> None:
    made = client.train({"study": FINISHED, "trial": 3, "settings": {"epochs": 3}})
    other = client.train(f"study: {FINISHED}\ntrial: 4\n")
    assert [entry.id for entry in client.trainings().trainings] == [other.id, made.id]
    assert client.stop_training(other.id).state == "stopped"
    assert client.resume_training(other.id).state == "queued"
    assert client.trainings(study=FINISHED, state=client.training(made.id).state).count == 2
    client.stop_training(other.id)
    _, content = finish(place, made)
    done = client.training(made.id)
    assert done.download is not None
    assert client.download_package(done.download, tmp_path / "a.zip").read_bytes() == content
    assert client.training_history(made.id).count == client.training_checkpoints(made.id).count == 3
    assert [entry.id for entry in client.architecture(str(made.architecture_id)[:8]).trainings] == [made.id]
    assert client.architectures(study=FINISHED).count == 0

    async def again() -> int:
        async with AsyncClient(client.url, TOKEN) as other:
            assert done.download is not None
            await other.download_package(done.download, tmp_path / "b.zip")
            found = await other.trainings(architecture=made.architecture_id)
            await other.delete_training(made.id)
            return found.count

    assert asyncio.run(again()) == 1
    assert (tmp_path / "b.zip").read_bytes() == content
    with pytest.raises(NotFoundError):
        client.training(made.id)
    with pytest.raises(DefinitionError, match="study needs trial"):
        client.train({"study": FINISHED})
