"""``nas run --server``: launches and resumes at a service, follows the search, and ends as a local run does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nas.errors import NotFoundError
from nas.store import Store
from nas.study import PAUSED_ON_REQUEST, StudyState
from nas.trial import TrialKind
from tests.service.conftest import TOKEN, Place, serve
from tests.service.fixture_study import REPORT, RUNNING, definition, parameters, run_trial
from tests.waiting import wait_for

Nas = Callable[..., tuple[int, str, str]]


@pytest.fixture
def url(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a service, whose token is in the environment."""
    monkeypatch.setenv("NAS_TOKEN", TOKEN)
    with serve(place.app) as address:
        yield address


def _is_queued(store: Store, name: str) -> bool:
    try:
        return store.study(name).state is StudyState.QUEUED
    except NotFoundError:
        return False


@contextmanager
def worker(place: Place, name: str, end: StudyState, reason: str | None = None) -> Iterator[None]:
    """Search the study ``name`` beside the block, as soon as it is queued, by two trials; then put it in a state."""

    def work() -> None:
        wait_for(lambda: _is_queued(place.store, name))
        study, job = place.store.study(name), place.store.lease_job("fixture", seconds=600)
        assert job is not None
        place.store.set_study_state(study.id, StudyState.RUNNING)
        specs = place.store.add_trials(study.id, [(TrialKind.SEARCH, parameters(index)) for index in range(2)])
        for spec in specs:
            run_trial(place.store, study, spec)
        place.store.set_study_state(study.id, end, reason=reason, report=REPORT)
        place.store.finish_job(job.id, job.epoch, type(job.state).FINISHED)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)


@pytest.mark.parametrize(("end", "reason", "code", "words"), [
    (StudyState.FINISHED, None, 0, "nas pareto mine --all --plot front.html --server"),
    (StudyState.FINISHED, "1 trial failed", 1, "nas run --resume mine --server"),
    (StudyState.FAILED, "no disk", 1, "study mine failed: no disk"),
    (StudyState.STOPPED, None, 130, "stopped for good"),
    (StudyState.PAUSED, PAUSED_ON_REQUEST, 130, "paused; continue with: nas run --resume mine --server"),
])  # fmt: skip
def test_a_launched_search_is_followed_to_its_end(
    nas: Nas, place: Place, url: str, tmp_path: Path, end: StudyState, reason: str | None, code: int, words: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(definition("other").to_yaml())
    with worker(place, "mine", end, reason):
        found, out, err = nas("run", str(file), "--name", "mine", "--trials", "9", "--server", url)
    assert found == code, err
    assert words in out + err
    assert "trial 1 (target 2.4) complete:" in out
    assert ("next:" in out) is (end is StudyState.FINISHED)
    assert place.store.study("mine").definition.sweep.trials == 9


def test_a_resumed_search_is_followed_from_there(nas: Nas, place: Place, url: str) -> None:
    study, _ = place.store.submit_study(definition("mine"), {"top1": 0.0})
    place.store.pause(study.id)
    assert place.store.study("mine").state is StudyState.PAUSED
    with worker(place, "mine", StudyState.FINISHED):
        code, out, err = nas("run", "--resume", "mine", "--server", url, "--quiet")
    assert code == 0, err
    assert "complete:" not in out
    assert "was resumed at" in err


@pytest.mark.parametrize(("arguments", "words"), [
    (("--database", "sqlite:///x.db"), "exclude each other"),
    (("--storage", "here", "--ray-address", "auto"), "leave out --storage, --ray-address"),
    (("--trials", "-1"), "sweep.trials"),
    (("--retry-failed",), "only with --resume"),
])  # fmt: skip
def test_what_a_service_cannot_do_is_refused(
    nas: Nas, place: Place, url: str, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(definition("mine").to_yaml())
    before = len(place.store.studies())
    code, _, err = nas("run", str(file), "--server", url, *arguments)
    assert (code, words in err) == (2, True), err
    code, _, err = nas("run", "--resume", RUNNING, "--server", url)
    assert (code, "running" in err) == (2, True), err
    assert len(place.store.studies()) == before
