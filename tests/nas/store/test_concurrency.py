"""Many threads and processes on one store: nothing is locked, lost, or numbered twice."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nas.jobs import JobKind
from nas.store import Store
from nas.trial import TrialKind, TrialState
from tests.nas.store.hammer import hammer
from tests.nas.store.makers import candidate, study


def _check(store: Store, study_id: str, trials: int, studies: int) -> None:
    found = store.trials(study_id, history=True)
    assert [trial.number for trial in found] == list(range(trials))
    assert all(trial.state is TrialState.COMPLETE and len(trial.history) == 1 for trial in found)
    assert all(trial.candidates[0].measurements == candidate().measurements for trial in found)
    events = store.events_after(study_id, 0)
    assert [event.number for event in events] == list(range(1, 4 * trials + 3))  # the first network moves the front
    assert sorted(event.payload["number"] for event in events if event.kind == "epoch") == list(range(trials))
    names = {row.study.name for row in store.studies()} - {"digits"}
    assert len(names) == studies
    assert all(name.startswith("same-name") for name in names)


def test_threads(store: Store) -> None:
    made = study(store)
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(hammer, store, made.id, 2) for _ in range(8)]:
            done.result()
    _check(store, made.id, trials=16, studies=8)


def test_processes(store: Store, store_url: str) -> None:
    made = study(store)
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "tests.nas.store.hammer", store_url, made.id, "3", "2"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    _check(store, made.id, trials=12, studies=4)


def test_a_reader_that_asks_after_its_last_event_misses_none(store: Store) -> None:
    """Events must become visible in the order of their numbers, whoever writes them."""
    made = study(store)
    done = threading.Event()

    def follow() -> list[int]:
        seen = [1]
        while True:
            last_round = done.is_set()
            seen.extend(event.number for event in store.events_after(made.id, seen[-1]))
            if last_round:
                return seen

    with ThreadPoolExecutor(6) as pool:
        reader = pool.submit(follow)
        writers = [pool.submit(hammer, store, made.id, 3) for _ in range(4)]
        for writer in writers:
            writer.result()
        done.set()
        assert reader.result() == list(range(1, 4 * 12 + 3))


def test_each_job_is_leased_once(store: Store) -> None:
    made = study(store)
    jobs = [store.enqueue_job(JobKind.EXPORT, {"number": n}, study_id=made.id).id for n in range(20)]

    def work(name: str) -> list[str]:
        taken = []
        while (job := store.lease_job(name, seconds=60)) is not None:
            taken.append(job.id)
        return taken

    with ThreadPoolExecutor(5) as pool:
        taken = [job for batch in pool.map(work, "abcde") for job in batch]
    # A worker may be told "none" while another holds the row's lock, so leftovers are fetched at the end.
    taken += work("last")
    assert sorted(taken) == sorted(jobs)


def test_a_slow_writer_does_not_block_readers(store: Store) -> None:
    made = study(store)
    with store._database.write() as session:
        row = store._locked_study(session, made.id)
        row.reason = "not committed"
        session.flush()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(store.study, made.id).result(timeout=10) == made
    assert store.study(made.id).reason == "not committed"


def test_one_snapshot_for_each_read(store: Store) -> None:
    """A list of trials must not mix states of two moments, however many queries it takes."""
    made = study(store)
    store.add_trials(made.id, [(TrialKind.SEARCH, {"target": 4.0})])
    with store._read() as session:
        before = store._study_row(session, made.id).last_event
        store.start_trial(made.id, 0)
        session.expire_all()
        assert store._study_row(session, made.id).last_event == before


@pytest.mark.postgres
def test_measuring_a_shared_network_from_two_studies_does_not_deadlock(postgres) -> None:
    from nas.metrics import Measurement
    from tests.nas.store.makers import complete

    with Store.open(postgres()) as store:
        for name in ("one", "two"):
            complete(store, study(store, name).id)
        architecture = candidate().architecture.id

        def measure(value: int) -> None:
            store.add_measurements(architecture, [Measurement("latency_ms", float(value))])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(measure, range(1, 41)))
        found = store.trials(store.study("one").id)[0].candidates[0].measurements
        assert sorted(entry.value for entry in found if entry.metric == "latency_ms") == list(range(1, 41))
