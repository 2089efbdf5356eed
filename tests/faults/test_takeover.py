"""A holder that sleeps through its lease: the next one of this machine runs the study, the old one writes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nas.settings import Settings
from nas.store import Store
from nas.study import StudyState
from nas.sweep.search import run_search
from nas.training.feasibility import reference_point
from nas.worker.lease import held_search
from tests.faults.studies import essence, small_study

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(900)]

HOLDER = """
import sys
from nas.settings import Settings
from nas.store import Store
from nas.sweep.search import run_search
from nas.worker.lease import held_search

url, study_id, storage = sys.argv[1:]
with Store.open(url) as store, held_search(store, study_id, seconds=5) as held:
    run_search(held, study_id, Settings(storage=storage), cpus=1)
"""


def test_a_sleeper_is_replaced_and_writes_nothing(tmp_path: Path) -> None:
    definition = small_study(sweep={"trials": 1, "seed": 5, "concurrent": 1})
    url, storage = f"sqlite:///{tmp_path}/nas.db", tmp_path / "storage"
    settings = Settings(storage=str(storage))
    with Store.open(url) as store:
        study, whole = (store.create_study(definition, reference_point=reference_point(definition)) for _ in range(2))
        sleeper = subprocess.Popen([sys.executable, "-c", HOLDER, url, study.id, str(storage)], start_new_session=True)
        try:
            while not any(trial.history for trial in store.trials(study.id, history=True)):
                assert sleeper.poll() is None
                time.sleep(0.1)
            os.kill(sleeper.pid, signal.SIGSTOP)
            time.sleep(6)  # the lease is over
            with held_search(store, study.id) as held:
                woken = False

                def wake(_event: object) -> None:
                    nonlocal woken
                    if not woken:
                        woken = True
                        os.kill(sleeper.pid, signal.SIGCONT)

                ended = run_search(held, study.id, settings, progress=wake, cpus=1)
            assert woken
            assert ended.state is StudyState.FINISHED
            sleeper.wait(120)
            assert sleeper.returncode != 0
            assert replace(store.study(study.id), updated_at=ended.updated_at) == ended
        finally:
            sleeper.kill()
            sleeper.wait()
        with held_search(store, whole.id) as held:
            run_search(held, whole.id, settings, cpus=1)
        assert essence(store, study.id, storage) == essence(store, whole.id, storage)
