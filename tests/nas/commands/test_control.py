"""``nas pause``, ``resume``, ``stop`` and ``worker``, for searches that wait, run elsewhere or have ended."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.artifacts import Artifacts
from nas.jobs import JobKind, JobState
from nas.settings import Settings
from nas.store import Store
from nas.study import Study, StudyState
from nas.trial import TrialKind, TrialState
from tests.nas.tiny import tiny


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path / 'nas.db'}") as opened:
        yield opened


def queued(store: Store, *, trials: int = 0) -> Study:
    made, _ = store.submit_study(tiny(), {"top1": 0.0})
    store.add_trials(made.id, [(TrialKind.SEARCH, {"target": 4.0})] * trials)
    return made


def test_a_waiting_search_pauses_and_resumes(nas, store: Store) -> None:
    queued(store)
    assert nas("pause", "latest") == (0, "", "study tiny is paused; nas resume tiny continues it\n")
    code, out, err = nas("resume", "tiny")
    assert (code, out) == (0, "")
    assert err.startswith("study tiny is queued; a worker continues it (nas serve, nas worker), or this process: nas")
    assert store.study("tiny").state is StudyState.QUEUED
    assert [job.state for job in store.jobs()] == [JobState.QUEUED, JobState.CANCELLED]


def test_a_stop_says_where_the_results_are_and_is_for_good(nas, store: Store) -> None:
    made = queued(store, trials=2)
    assert nas("stop", "tiny") == (0, "", "study tiny is stopped; nas pareto tiny shows its results\n")
    assert {trial.state for trial in store.trials(made.id)} == {TrialState.CANCELLED}
    for command in (["resume", "tiny"], ["resume", "tiny", "--extend", "2"], ["run", "--resume", "tiny"]):
        code, _, err = nas(*command)
        assert (code, err.partition(";")[0]) == (2, "nas: study tiny is stopped: it was ended for good")
    assert nas("stop", "tiny")[0] == 2


def test_a_stop_deletes_the_checkpoints_that_a_pause_keeps(nas, store: Store, tmp_path: Path) -> None:
    made = queued(store, trials=2)
    artifacts = Artifacts(Settings().storage)
    (tmp_path / "state").write_bytes(b"state")
    for number in (0, 1):
        artifacts.put(tmp_path / "state", f"studies/{made.id}/checkpoints/{number}.tar", "checkpoint")
    nas("pause", "tiny")
    assert artifacts.names(f"studies/{made.id}/checkpoints") == ["0.tar", "1.tar"]
    nas("stop", "tiny")
    assert artifacts.names(f"studies/{made.id}/checkpoints") == []


def test_a_pause_that_comes_when_the_search_has_just_ended_says_so(nas, store: Store) -> None:
    made = queued(store)
    job = store.hold_search(made.id, "another machine", seconds=60)
    store.set_study_state(made.id, StudyState.RUNNING)

    def ends() -> None:
        store.set_study_state(made.id, StudyState.FINISHED)
        store.finish_job(job.id, job.epoch, JobState.CANCELLED)

    threading.Timer(0.3, ends).start()
    assert nas("pause", "tiny") == (0, "", "study tiny is finished; nas pareto tiny shows its results\n")
    while not store.job(job.id).state.ended:
        time.sleep(0.01)
    assert store.job(job.id).state is JobState.FINISHED


def test_it_waits_for_a_search_elsewhere_or_says_that_it_has_not_obeyed(nas, store: Store) -> None:
    made = queued(store)
    job = store.hold_search(made.id, "another machine", seconds=60)
    store.set_study_state(made.id, StudyState.RUNNING)
    code, _, err = nas("pause", "tiny", "--wait", "0")
    assert (code, err) == (0, "study tiny was requested to pause; its search has not obeyed yet\n")
    obeys = threading.Timer(0.5, lambda: store.finish_job(job.id, job.epoch, JobState.CANCELLED))
    obeys.start()
    assert nas("pause", "tiny") == (0, "", "study tiny is paused; nas resume tiny continues it\n")
    obeys.join()


def test_an_extension(nas, store: Store) -> None:
    made = queued(store)
    nas("pause", "tiny")
    store.set_study_state(made.id, StudyState.FINISHED)
    code, out, _ = nas("resume", "tiny", "--extend", "20", "--json")
    body = json.loads(out)
    assert (code, body["state"], body["planned"]) == (0, "queued", made.planned + 20)
    assert store.study("tiny").extended == 20


@pytest.mark.parametrize("command", ["pause", "stop"])
def test_the_answer_as_json(nas, store: Store, command: str) -> None:
    queued(store)
    code, out, err = nas(command, "tiny", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["state"] == store.study("tiny").state.value


def test_a_worker_ends_when_no_job_is_left_and_says_what_it_takes(nas, store: Store, caplog) -> None:
    made = queued(store)
    nas("pause", "tiny")
    store.enqueue_job(JobKind.EXPORT, {"number": 7}, study_id=made.id)
    code, _, err = nas("worker", "--once", "--kind", "search")  # the export is for others
    assert code == 0
    assert "takes jobs from sqlite:///" in err
    assert [job.state for job in store.jobs() if job.kind is JobKind.EXPORT] == [JobState.QUEUED]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["worker", "--kind", "dream"], "--kind 'dream' is no kind of job; known: search, export"),
        (["worker", "--ray-address", "nowhere"], "must be HOST:PORT"),
        (["worker", "--database", "mysql://host/db"], "must be SQLite or PostgreSQL"),
        (["pause", "other"], "there is no study 'other'"),
        (["pause", "tiny", "--wait", "-1"], "-1"),
        (["resume", "tiny"], "study tiny is queued: only a paused or failed one"),
        (["resume", "tiny", "--extend", "few"], "'few'"),
        (["resume", "tiny", "--extend", "2", "--retry-failed"], "--extend and --retry-failed exclude each other"),
        (["run", "x.yaml", "--extend", "2"], "--extend works only with --resume STUDY"),
    ],
)
def test_bad_input_is_told_in_one_line(nas, store: Store, arguments: list[str], message: str) -> None:
    queued(store)
    code, out, err = nas(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


@pytest.mark.parametrize("trials", ["0", "-3", "100000"])
def test_an_extension_out_of_range(nas, store: Store, trials: str) -> None:
    made = queued(store)
    nas("pause", "tiny")
    code, _, err = nas("resume", "tiny", "--extend", trials)
    assert code == 2
    assert f"the number of trials to add must be from 1 to 99,998, but got {trials}" in err
    assert store.study("tiny").extended == 0
    assert store.study(made.id).state is StudyState.PAUSED
