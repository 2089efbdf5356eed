"""The worker with real child processes: they fail, crash, are stopped, killed, and lose their leases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from nas.artifacts import Artifacts
from nas.candidate import Artifact
from nas.errors import ConflictError
from nas.host.processes import describe_exit
from nas.jobs import DesiredState, Job, JobKind, JobState
from nas.settings import Settings
from nas.store import Store
from nas.store.leased_jobs import MAX_ATTEMPTS
from nas.study import StudyState
from nas.trial import TrialState
from nas.worker import worker as worker_module
from nas.worker.lease import held_search
from nas.worker.options import WorkerOptions
from nas.worker.runner import run_job
from nas.worker.worker import run_worker
from tests.nas.store.makers import REFERENCE, definition
from tests.nas.worker import waiting_search, warm_search
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes in /proc")

TINY = {
    "data": {"name": "digits", "train_limit": 60, "augment": "none"},
    "training": {"epochs": 2, "finetune_epochs": 1, "batch_size": 30},
    "sweep": {"trials": 1, "concurrent": 1, "searcher": "random"},
    "baselines": ["1/4"],
    "latency": None,
    "final": {"candidates": 0},
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        database_url=f"sqlite:///{tmp_path}/nas.db", storage=str(tmp_path / "storage"), data_roots=(), token="hidden"
    )


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with Store.open(settings.database_url) as opened:
        yield opened


class Run:
    """A worker in a thread of this process. Its searches only wait, unless it is given the real command."""

    def __init__(self, settings: Settings, **options: object) -> None:
        runs = Path(settings.storage).parent / "runs"
        self.options = WorkerOptions(  # type: ignore[arg-type]
            runs=runs, **{"poll_seconds": 0.05, "command": waiting_search.COMMAND, **options}
        )
        self.stop = threading.Event()
        self.thread = threading.Thread(
            target=run_worker, args=(settings,), kwargs={"stop": self.stop, "options": self.options}
        )

    def __enter__(self) -> Run:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(60)
        assert not self.thread.is_alive()


def processes(job: Job) -> list[int]:
    """Return the processes that run ``job``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"--job" in words and job.id.encode() in words:
                found.append(int(entry.name))
    return found


def handles(pid: int, number: signal.Signals) -> bool:
    """Return whether a process has a handler for a signal."""
    [caught] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt:")]
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def started(job: Job) -> int:
    """Wait for the process that runs ``job`` and return its id."""
    [pid] = wait_for(lambda: processes(job))
    return pid


def elsewhere(settings: Settings, runs: Path) -> subprocess.Popen[bytes]:
    """Start a worker in a process of its own, whose searches only wait."""
    environment = {**os.environ, "NAS_DATABASE_URL": settings.database_url, "NAS_STORAGE": settings.storage}
    return subprocess.Popen([*waiting_search.COMMAND, str(runs)], env=environment, stderr=subprocess.DEVNULL)


def submit(store: Store) -> Job:
    return store.submit_study(definition(), REFERENCE)[1]


def ended(store: Store, job: Job) -> Job:
    wait_for(lambda: store.job(job.id).state.ended)
    return store.job(job.id)


def test_a_job_that_cannot_be_done_fails_with_its_reason(store: Store, settings: Settings, tmp_path: Path) -> None:
    job = store.enqueue_job(JobKind.PROBE, {})
    options = WorkerOptions(runs=tmp_path / "runs", slots={(JobKind.PROBE,): 1}, poll_seconds=0.05)
    run_worker(settings, once=True, options=options)
    done = store.job(job.id)
    assert (done.state, done.error) == (JobState.FAILED, "this version cannot run jobs of kind 'probe'")
    assert "JobError" in (tmp_path / "runs" / f"{job.id}.1.log").read_text()
    assert processes(job) == []


def test_a_search_without_its_images_spends_no_trial(store: Store, settings: Settings) -> None:
    study, queued = store.submit_study(definition(data={"name": "cifar10"}), {"top1": 0.0})
    job = store.lease_job("me", seconds=60)
    assert job is not None
    assert job.id == queued.id
    assert run_job(store, settings, job.id, job.epoch) == 1
    assert "cifar10 was not found" in (store.job(job.id).error or "")
    found = store.study(study.id)
    assert (found.state, found.reason) == (StudyState.FAILED, store.job(job.id).error)
    assert store.trials(study.id) == []  # so it can go on once they are there


def test_a_job_whose_process_is_killed_is_tried_again(store: Store, settings: Settings) -> None:
    job = submit(store)
    with Run(settings, retry_seconds=0.1):
        first = started(job)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: processes(job) not in ([], [first]))
        again = store.job(job.id)
        assert (again.state, again.attempt, again.epoch, again.error) == (JobState.RUNNING, 2, 2, None)
        assert store.study("digits").state in (StudyState.QUEUED, StudyState.RUNNING)


def test_what_always_crashes_ends_with_the_log_s_last_lines(store: Store, settings: Settings) -> None:
    job = submit(store)
    with Run(settings, retry_seconds=0.01):
        for attempt in range(1, MAX_ATTEMPTS + 1):
            wait_for(lambda attempt=attempt: store.job(job.id).epoch == attempt)
            pid = started(job)
            # The interpreter installs its fault handler as it starts.
            wait_for(lambda pid=pid: handles(pid, signal.SIGABRT))
            os.kill(pid, signal.SIGABRT)
            wait_for(lambda: not processes(job))
        done = ended(store, job)
    log = Path(settings.storage).parent / "runs" / f"{job.id}.{MAX_ATTEMPTS}.log"
    assert done.state is JobState.FAILED
    assert (done.error or "").startswith(
        f"{MAX_ATTEMPTS} times in a row, without progress between: the process of the search ended with SIGABRT; "
        "the last lines of its log:"
    )
    assert "Fatal Python error: Aborted" in log.read_text()
    assert (done.error or "").endswith(log.read_text().strip().splitlines()[-1])
    found = store.study("digits")
    assert (found.state, found.reason) == (StudyState.FAILED, done.error)


def test_the_job_of_a_dead_worker_of_this_machine_does_not_wait(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_LOOK_SECONDS", 0.2)
    job = submit(store)
    worker = elsewhere(settings, tmp_path / "other")
    try:
        started(job)
        with Run(settings):
            time.sleep(0.6)  # longer than between two looks for the dead
            assert store.job(job.id).epoch == 1  # it lives
            worker.kill()
            worker.wait()
            wait_for(lambda: store.job(job.id).epoch == 2, seconds=15)  # its lease had 27 s and more to go
    finally:
        worker.kill()
        worker.wait()


@pytest.mark.parametrize(
    "inherited", [pytest.param(signal.default_int_handler, marks=pytest.mark.long), signal.SIG_IGN]
)
def test_a_stop_is_heeded_at_once(store: Store, settings: Settings, inherited) -> None:
    """A command in the background of a shell script ignores SIGINT, and its children inherit that."""
    job = submit(store)
    before = signal.signal(signal.SIGINT, inherited)
    try:
        with Run(settings, grace_seconds=1000.0):
            pid = started(job)
            wait_for(lambda: handles(pid, signal.SIGINT))
            store.request_job(job.id, DesiredState.STOPPED)
            assert ended(store, job).state is JobState.CANCELLED
            assert processes(job) == []
    finally:
        signal.signal(signal.SIGINT, before)
    assert store.study("digits").state is StudyState.STOPPED


def test_a_process_that_does_not_listen_is_killed(store: Store, settings: Settings) -> None:
    job = submit(store)
    with Run(settings, grace_seconds=0.3):
        os.kill(started(job), signal.SIGSTOP)
        store.request_job(job.id, DesiredState.STOPPED)
        assert ended(store, job).state is JobState.CANCELLED
        assert processes(job) == []


def test_a_worker_that_shuts_down_gives_its_jobs_back(store: Store, settings: Settings) -> None:
    job = submit(store)
    with Run(settings):
        pid = started(job)
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert settings.database_url.encode() in environment
        assert b"hidden" not in environment
        assert settings.database_url.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert processes(job) == []
    waiting = store.job(job.id)
    assert (waiting.state, waiting.attempt, waiting.worker) == (JobState.QUEUED, 0, None)
    assert store.study("digits").state is StudyState.QUEUED


def test_a_process_whose_lease_was_taken_is_killed(store: Store, settings: Settings) -> None:
    job = submit(store)
    with Run(settings):
        pid = started(job)
        os.kill(pid, signal.SIGSTOP)
        _expire(store, job)
        taken = store.lease_job("another machine", seconds=60)
        assert taken is not None
        wait_for(lambda: not processes(job))
        assert store.job(job.id) == taken


def test_children_die_with_a_worker_that_is_killed(store: Store, settings: Settings, tmp_path: Path) -> None:
    job = submit(store)
    worker = elsewhere(settings, tmp_path / "runs")
    try:
        started(job)
        assert store.job(job.id).state is JobState.RUNNING
    finally:
        worker.kill()
        worker.wait()
    wait_for(lambda: not processes(job))
    assert store.job(job.id).state is JobState.RUNNING
    assert store.lease_job("next", seconds=60) is None
    _expire(store, job)
    again = store.lease_job("next", seconds=60)
    assert again is not None
    assert (again.id, again.attempt, again.epoch) == (job.id, 2, 2)


def test_an_unreachable_store_is_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "NAS_DATABASE_URL": f"sqlite:///{tmp_path}/gone/nas.db"}
    done = subprocess.run(
        [sys.executable, "-m", "nas.worker", "--once"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "the folder" in done.stderr
    assert "Traceback" not in done.stderr


class TestHeldSearch:
    def test_the_job_ends_as_the_study_does(self, store: Store) -> None:
        made = store.create_study(definition(), reference_point=REFERENCE)
        with held_search(store, made.id) as fenced:
            [job] = store.jobs(made.id)
            _expire(store, job)
            wait_for(lambda: store.job(job.id).expires_at > job.expires_at)  # a heartbeat renews it
            assert store.lease_job("worker", seconds=60) is None
            fenced.set_study_state(made.id, StudyState.FINISHED, report=["Done."])
        assert [job.state for job in store.jobs(made.id)] == [JobState.FINISHED]

    def test_an_error_fails_it(self, store: Store) -> None:
        made = store.create_study(definition(), reference_point=REFERENCE)
        with pytest.raises(ZeroDivisionError), held_search(store, made.id):
            raise ZeroDivisionError("of zero")
        assert [(job.state, job.error) for job in store.jobs(made.id)] == [
            (JobState.FAILED, "ZeroDivisionError: of zero")
        ]
        assert store.study(made.id).state is StudyState.FAILED

    def test_a_holder_of_this_machine_that_was_killed_is_not_waited_for(self, store: Store) -> None:
        made = store.create_study(definition(), reference_point=REFERENCE)
        code = (
            "import sys, time; from nas.store import Store; from nas.worker.lease import held_search\n"
            "with Store.open(sys.argv[1]) as store, held_search(store, sys.argv[2]): print('held', flush=True); input()"
        )
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        url = store._database.url.render_as_string(hide_password=False)
        holder = subprocess.Popen([sys.executable, "-c", code, url, made.id], **pipes)
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(ConflictError, match="is being searched already"), held_search(store, made.id):
                pass
        finally:
            holder.kill()
            holder.communicate()
        with held_search(store, made.id):
            [job] = store.jobs(made.id)
            assert (job.state, job.attempt, job.epoch) == (JobState.RUNNING, 2, 2)

    def test_a_stop_from_elsewhere_interrupts(self, store: Store) -> None:
        made = store.create_study(definition(), reference_point=REFERENCE)

        def search() -> None:
            with held_search(store, made.id):
                store.request_job(store.jobs(made.id)[0].id, DesiredState.STOPPED)
                signal.pause()

        # Where tests run in the background of a script, interruptions are ignored unless something handles them.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                search()
        finally:
            signal.signal(signal.SIGINT, before)
        assert store.study(made.id).state is StudyState.STOPPED


def test_exits_in_words() -> None:
    assert [describe_exit(code) for code in (3, -9, -77)] == ["exit code 3", "SIGKILL", "signal 77"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("restart", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_search_survives_a_restart_and_is_exported(
    restart: bool, store: Store, settings: Settings, tmp_path: Path, ray_here: None
) -> None:
    made, job = store.submit_study(definition("tiny", **TINY), {"top1": 0.0})

    def one_is_complete() -> bool:
        assert store.job(job.id).error is None
        return store.study_row(made.id).counts[TrialState.COMPLETE] >= 1

    real = {"poll_seconds": 0.5, "command": warm_search.COMMAND}
    if restart:
        with Run(settings, **real):
            wait_for(one_is_complete)
        assert store.job(job.id).state is JobState.QUEUED
    before = [trial for trial in store.trials(made.id) if trial.state is TrialState.COMPLETE]
    assert TrialState.RUNNING not in {trial.state for trial in store.trials(made.id)}

    with Run(settings, **real):
        done = wait_for(lambda: store.job(job.id).state.ended and store.job(job.id))
    assert (done.state, done.error) == (JobState.FINISHED, None)
    found = store.study(made.id)
    assert (found.state, found.reason) == (StudyState.FINISHED, None)
    assert found.report
    assert set(found.definition.objectives) <= set(found.reference_point)
    trials = store.trials(made.id)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    assert [trial for trial in trials if trial.number in {kept.number for kept in before}] == before

    export = store.enqueue_job(JobKind.EXPORT, {"number": 0}, study_id=made.id)
    leased = store.lease_job("me", seconds=60)
    assert leased is not None
    assert run_job(store, settings, export.id, leased.epoch) == 0
    exported = store.job(export.id)
    assert (exported.state, exported.error) == (JobState.FINISHED, None)
    assert isinstance(exported.result, dict)
    assert "architecture.json" in {file["name"] for file in exported.result["files"]}
    stored = {key: exported.result[key] for key in ("uri", "sha256", "size")}
    artifact = Artifact(**stored, kind="export")
    assert store.artifact(artifact.uri) == artifact
    archive = zipfile.ZipFile(Artifacts(settings.storage).fetch(artifact, tmp_path / "export.zip"))
    assert "tiny-trial-0/architecture.json" in archive.namelist()


def _expire(store: Store, job: Job) -> None:
    with store._database.write() as session:
        session.execute(
            text("UPDATE jobs SET expires_at = '2000-01-01 00:00:00.000000' WHERE id = :id"), {"id": job.id}
        )
