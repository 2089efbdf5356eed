"""A disk that is full, or data that are damaged, while a study runs: it pauses once, and goes on as if nothing had been."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from PIL import Image

from nas.settings import Settings
from nas.store import Store
from nas.study import Study, StudyState
from nas.sweep.progress import EpochDone, SweepEvent
from nas.sweep.search import run_search
from nas.training.feasibility import reference_point
from nas.trial import TrialState
from tests.disks import full, small_disk
from tests.faults.studies import essence, small_study

__all__ = ["small_disk"]
pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def test_a_full_storage_pauses_and_goes_on_when_there_is_room(small_disk: Path, tmp_path: Path) -> None:
    storage = small_disk / "storage"
    settings = Settings(storage=str(storage))
    definition = small_study(sweep={"trials": 2, "seed": 5, "concurrent": 1})
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        study, whole = (store.create_study(definition, reference_point=reference_point(definition)) for _ in range(2))
        with ExitStack() as stack:

            def fill(event: SweepEvent) -> None:
                if isinstance(event, EpochDone) and event.number == 1 and event.record.epoch == 1:
                    stack.enter_context(full(small_disk))

            paused = run_search(store, study.id, settings, progress=fill, cpus=1)
            assert paused.state is StudyState.PAUSED
            assert paused.reason is not None
            assert str(storage) in paused.reason
            assert "\n" not in paused.reason
            states = [trial.state for trial in store.trials(study.id)]
            assert states == [TrialState.COMPLETE, TrialState.QUEUED]
            # Nothing has changed: the next run pauses before it starts anything.
            assert run_search(store, study.id, settings).state is StudyState.PAUSED
            assert [trial.state for trial in store.trials(study.id)] == states
        assert run_search(store, study.id, settings, cpus=1).state is StudyState.FINISHED
        run_search(store, whole.id, settings, cpus=1)
        assert essence(store, study.id, storage) == essence(store, whole.id, storage)
