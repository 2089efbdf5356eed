"""A search, or a training on a cluster, whose storage is an object store behind a URL: all files are there."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from nas.artifacts import Artifacts
from nas.candidate import Artifact
from nas.definition.requested_training import parse_training
from nas.settings import Settings
from nas.store import Store
from nas.study import StudyState
from nas.sweep.cluster import quiet_ray, ray_session
from nas.sweep.progress import EpochDone, SweepEvent
from nas.sweep.search import run_search
from nas.training.feasibility import reference_point
from nas.training.files import stored_checkpoints
from nas.trainings import TrainingState
from nas.trial import TrialKind, TrialState
from partialnet.architecture import Architecture
from partialnet.networks import create
from partialnet.package import save_tensors
from tests.faults.studies import small_study
from tests.nas.object_store import object_store
from tests.nas.store.makers import candidate
from tests.nas.store.makers import definition as store_definition
from tests.nas.worker.test_trainings import stop_after_the_first_epoch

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


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_a_training_on_a_cluster_keeps_its_checkpoints_in_the_bucket(
    bucket: str, shared_ray: ExitStack, tmp_path: Path
) -> None:
    shared_ray.close()  # its processes do not know the bucket
    there = Settings(storage=bucket, ray_address="auto")
    options = {"num_classes": 10, "in_chans": 1, "patch_size": 1, "depths": [1, 1, 1, 1], "embed_dim": 8}
    network = candidate(architecture=Architecture("partialnet_micro", options), splits=(), weights=None)
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        study = store.create_study(store_definition(), reference_point={"top1": 0.0})
        store.add_trials(study.id, [(TrialKind.SEARCH, {})])
        store.start_trial(study.id, 0)
        weights = start_of(network.architecture, bucket, tmp_path)
        store.end_trial(study.id, 0, TrialState.COMPLETE, candidates=[replace(network, weights=weights)])
        store.submit_training(parse_training({
            "study": study.id, "trial": 0, "start": "weights", "processes": 2, "device": "cpu",
            "data": {"name": "digits", "train_limit": 120}, "settings": {"epochs": 3, "batch_size": 12},
        }))  # fmt: skip
        with quiet_ray(), ray_session("local", cpus=2):
            stopped = stop_after_the_first_epoch(store, there)
        assert (stopped.state, stopped.reason) == (TrainingState.STOPPED, "stopped on request")
        assert stored_checkpoints(Artifacts(bucket), stopped)


def start_of(architecture: Architecture, bucket: str, folder: Path) -> Artifact:
    save_tensors(create(architecture), folder / "w.safetensors")
    return Artifacts(bucket).put(folder / "w.safetensors", "studies/w.safetensors", "weights")
