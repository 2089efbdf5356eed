"""A search whose storage is an object store behind a URL: checkpoints, weights and the export are there."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.artifacts import Artifacts
from nas.settings import Settings
from nas.store import Store
from nas.study import StudyState
from nas.sweep.progress import EpochDone, SweepEvent
from nas.sweep.search import run_search
from nas.training.feasibility import reference_point
from tests.faults.studies import small_study
from tests.nas.object_store import object_store

pytestmark = [pytest.mark.ray, pytest.mark.long]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with object_store() as url:
        yield url


def test_a_search_pauses_and_continues_from_a_checkpoint_in_the_bucket(bucket: str, tmp_path: Path) -> None:
    definition = small_study(sweep={"trials": 1, "seed": 5, "concurrent": 1})
    settings, artifacts = Settings(storage=bucket), Artifacts(bucket)

    def pause(event: SweepEvent) -> None:
        if isinstance(event, EpochDone) and (event.number, event.record.epoch) == (1, 1):
            signal.raise_signal(signal.SIGTERM)

    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        study = store.create_study(definition, reference_point=reference_point(definition))
        assert run_search(store, study.id, settings, progress=pause, cpus=2).state is StudyState.PAUSED
        assert artifacts.names(f"studies/{study.id}/checkpoints") == ["1.tar"]
        assert run_search(store, study.id, settings, cpus=2).state is StudyState.FINISHED
        assert artifacts.names(f"studies/{study.id}/checkpoints") == []
        for trial in store.trials(study.id):
            weights = trial.candidates[0].weights
            assert weights is not None
            assert artifacts.fetch(weights, tmp_path / f"{trial.number}.safetensors").stat().st_size == weights.size
        epochs = [event.payload for event in store.events_after(study.id, 0) if event.kind == "epoch"]
        assert len({(event["number"], event["epoch"]) for event in epochs}) == len(epochs)
