"""A lease is taken over when its holder is dead, and never because the database stood still."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nas.errors import ConflictError, LeaseInDoubt, StoreError
from nas.jobs import DesiredState, JobKind, JobState
from nas.store import Store
from nas.store.leases import Sightings
from nas.study import StudyState
from nas.worker.lease import doubt_seconds, held_search
from tests.nas.store.makers import REFERENCE, definition, study

START = datetime(2026, 1, 1, tzinfo=UTC)


def looks(*seconds: float, wait: float = 10.0) -> list[bool]:
    sightings = Sightings()
    return [sightings.is_free("job", 1, START + timedelta(seconds=second), wait) for second in seconds]


def test_a_lease_is_free_when_it_was_seen_expired_for_the_whole_time() -> None:
    assert looks(0, 3, 6, 9, 10) == [False, False, False, False, True]


@pytest.mark.parametrize("stall", [5.1, 60, 3600, -60])
def test_after_a_stall_or_a_jump_of_the_clock_the_time_starts_anew(stall: float) -> None:
    back = 8 + stall
    assert looks(0, 4, 8, back, back + 4, back + 8, back + 10) == [False] * 6 + [True]


def test_each_lease_has_a_time_of_its_own() -> None:
    sightings = Sightings()
    for second in range(3):
        assert not sightings.is_free("job", 1, START + timedelta(seconds=second), 2.5)
    assert sightings.is_free("job", 1, START + timedelta(seconds=3), 2.5)
    assert not sightings.is_free("job", 2, START + timedelta(seconds=3), 2.5)
    assert not sightings.is_free("other", 1, START + timedelta(seconds=3), 2.5)
    sightings.is_dead("other", 1)
    assert sightings.is_free("other", 1, START + timedelta(seconds=3), 2.5)


def test_an_expired_lease_is_first_in_doubt(store: Store) -> None:
    made, _ = store.submit_study(definition(), REFERENCE)
    dead = store.lease_job("dead", seconds=-1)
    assert dead is not None
    assert store.lease_job("next", seconds=60, doubt=60) is None
    with pytest.raises(LeaseInDoubt, match="study digits may still be searched by dead; try again soon"):
        store.hold_search(made.id, "me", seconds=60, doubt=60)
    time.sleep(0.1)
    taken = store.lease_job("next", seconds=60, doubt=0.05)
    assert taken is not None
    assert (taken.id, taken.epoch) == (dead.id, dead.epoch + 1)


def test_a_holder_that_renews_in_time_of_doubt_keeps_its_lease(store: Store) -> None:
    store.submit_study(definition(), REFERENCE)
    late = store.lease_job("late", seconds=-1)
    assert late is not None
    assert store.lease_job("next", seconds=60, doubt=0.2) is None
    store.heartbeat(late.id, late.epoch, 60)
    time.sleep(0.3)
    assert store.lease_job("next", seconds=60, doubt=0.2) is None
    assert store.job(late.id).worker == "late"


def test_a_job_in_doubt_does_not_hold_up_the_others(store: Store) -> None:
    made = study(store)
    first, second = (store.enqueue_job(JobKind.EXPORT, {"number": n}, study_id=made.id) for n in range(2))
    assert store.lease_job("dead", seconds=-1) is not None
    taken = store.lease_job("next", seconds=60, doubt=60)
    assert taken is not None
    assert (taken.id, store.job(first.id).worker) == (second.id, "dead")


def test_a_holder_that_is_known_to_be_dead_is_replaced_at_once(store: Store) -> None:
    made, _ = store.submit_study(definition(), REFERENCE)
    assert store.lease_job("dead", seconds=3600) is not None
    assert [job.worker for job in store.expire_leases(lambda name: name == "dead")] == ["dead"]
    assert store.hold_search(made.id, "me", seconds=60, doubt=60).worker == "me"


def test_a_request_to_stop_reaches_a_job_in_doubt(store: Store) -> None:
    made, _ = store.submit_study(definition(), REFERENCE)
    dead = store.lease_job("dead", seconds=-1)
    assert dead is not None
    assert store.lease_job("next", seconds=60, doubt=60) is None
    assert store.stop(made.id).state is JobState.CANCELLED


LEASE = 6.0


def _stalled(seconds: float, tmp_path: Path) -> None:
    """Lock the file longer than a lease, while a holder renews and another process waits for its death."""
    path = tmp_path / "nas.db"
    url = f"sqlite:///{path}"
    done = threading.Event()
    taken: list[str] = []

    def wait_for_its_death() -> None:
        with Store.open(url) as other:
            while not done.is_set():
                with suppress(StoreError):  # a minute is longer than a transaction waits
                    job = other.lease_job("vulture", seconds=LEASE, doubt=doubt_seconds(LEASE))
                    taken.extend([] if job is None else [job.id])
                time.sleep(0.1)

    with Store.open(url) as store:
        made, job = store.submit_study(definition(), REFERENCE)
        vultures = [threading.Thread(target=wait_for_its_death) for _ in range(2)]
        with held_search(store, made.id, seconds=LEASE) as held:
            for vulture in vultures:
                vulture.start()
            try:
                lock = sqlite3.connect(path, isolation_level=None)
                lock.execute("BEGIN IMMEDIATE")
                time.sleep(seconds)
                lock.execute("ROLLBACK")
                lock.close()
                time.sleep(1.5 * doubt_seconds(LEASE))
                assert held.job(job.id).desired is DesiredState.RUNNING
                held.set_reference_point(made.id, REFERENCE)  # the fence lets its holder through
            finally:
                done.set()
                for vulture in vultures:
                    vulture.join()
    assert taken == []


def test_a_search_that_has_finished_stays_so_if_a_pause_comes_then(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        made, job = store.submit_study(definition(), REFERENCE)

        def search() -> None:
            with held_search(store, made.id, seconds=0.3) as held:
                store.pause(made.id)
                held.set_study_state(made.id, StudyState.FINISHED)
                time.sleep(10)  # the pulse finds the request meanwhile

        with pytest.raises(KeyboardInterrupt):
            search()
        assert (store.study(made.id).state, store.job(job.id).state) == (StudyState.FINISHED, JobState.FINISHED)


def test_a_live_search_survives_a_locked_database(tmp_path: Path) -> None:
    _stalled(LEASE + 1, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_live_search_survives_a_database_that_is_locked_for_a_minute(tmp_path: Path) -> None:
    _stalled(65.0, tmp_path)


def test_the_next_search_waits_while_the_death_of_the_last_one_is_in_doubt(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        made, job = store.submit_study(definition(), REFERENCE)
        assert store.lease_job("elsewhere", seconds=-1) is not None
        with held_search(store, made.id, seconds=3.0):
            assert store.job(job.id).epoch == 2
        alive = store.submit_study(definition(), REFERENCE)[0]
        assert store.lease_job("elsewhere", seconds=3600) is not None
        held = held_search(store, alive.id)
        with pytest.raises(ConflictError, match="is being searched already, by elsewhere"):
            held.__enter__()
