"""Trainings by real workers: launched over HTTP, killed in the middle, and continued to the same network."""

from __future__ import annotations

import os
import signal
import sys
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from nas.artifacts import Artifacts
from nas.definition.requested_training import parse_training, request_values
from nas.definition.sections import DataSpec
from nas.definition.training import TrainRequest
from nas.jobs import JobKind, JobState
from nas.settings import Settings
from nas.store import Store
from nas.trainings import Training, TrainingState
from nas.trial import TrialKind, TrialState
from nas.worker.runner import run_job
from partialnet.architecture import Architecture
from partialnet.package import load_package, read_tensors
from service.app import create_app
from service.settings import ServiceSettings
from tests.nas.store.makers import candidate, definition
from tests.nas.worker.test_worker import Run, settings, started, store
from tests.waiting import wait_for

__all__ = ["settings", "store"]

TOKEN = "0123456789abcdef-of-a-test"
OPTIONS = {"num_classes": 10, "in_chans": 1, "patch_size": 1, "depths": [1, 1, 1, 1], "embed_dim": 8}
NETWORK = Architecture("partialnet_micro", OPTIONS, {"stages.0.blocks.0.mixer": 3})
REAL = (sys.executable, "-m", "nas.worker")
WANTED: dict[str, Any] = {
    "study": "digits", "trial": 0, "seed": 3, "device": "cpu",
    "data": {"name": "digits", "train_limit": 120}, "settings": {"epochs": 2, "batch_size": 12},
}  # fmt: skip


@pytest.fixture
def found(store: Store) -> Store:
    """A store with a study whose trial 0 found a tiny network."""
    made = store.create_study(definition(), reference_point={"top1": 0.0})
    store.add_trials(made.id, [(TrialKind.SEARCH, {})])
    store.start_trial(made.id, 0)
    network = candidate(architecture=NETWORK, splits=(), weights=None)
    store.end_trial(made.id, 0, TrialState.COMPLETE, candidates=[network])
    return store


@pytest.fixture
def api(settings: Settings, found: Store) -> Iterator[TestClient]:
    """A client of a service on the same store, without a worker."""
    app = create_app(settings.model_copy(update={"token": SecretStr(TOKEN)}), ServiceSettings(worker=False))
    with TestClient(app, base_url="http://localhost", headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


def trained_alone(folder: Path, wanted: dict[str, Any]) -> Path:
    """Train the same in this process without interruption; return the package's folder."""
    from nas.training.standalone import train_alone

    asked = parse_training(wanted)
    assert asked.data is not None
    values = request_values(asked.chosen().model_dump(mode="json"))
    request = TrainRequest(NETWORK, DataSpec.model_validate(asked.data), seed=asked.seed, split_seed=0, **values)
    return train_alone(request, folder, ()).package


@pytest.mark.slow
def test_a_training_that_is_killed_continues_to_the_same_network(
    api: TestClient, found: Store, settings: Settings, tmp_path: Path
) -> None:
    wanted = {**WANTED, "settings": {"epochs": 4, "batch_size": 12}}
    made = api.post("/api/v1/trainings", json=wanted).json()
    job = found.job(made["job_id"])
    with Run(settings, command=REAL, retry_seconds=1.0):
        pid = started(job)
        wait_for(lambda: found.training(made["id"]).done >= 1)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: found.job(job.id).state is JobState.QUEUED)
    leased = wait_for(lambda: found.lease_job("here", kinds=[JobKind.TRAIN], seconds=600))
    assert run_job(found, settings, leased.id, leased.epoch) == 0  # here, where torch is loaded
    shown = api.get(f"/api/v1/trainings/{made['id']}").json()
    assert (shown["state"], shown["reason"], shown["done"]) == ("finished", None, 4)
    assert found.job(job.id).epoch >= 2  # it was leased anew
    history = api.get(f"/api/v1/trainings/{made['id']}/history").json()["epochs"]
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4]
    assert api.get(f"/api/v1/trainings/{made['id']}/checkpoints").json()["count"] >= 3
    answer = api.get(f"/api/v1{shown['download']['path']}")
    (tmp_path / "package.zip").write_bytes(answer.content)
    with zipfile.ZipFile(tmp_path / "package.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    [folder] = (tmp_path / "unpacked").iterdir()
    assert folder.name == f"digits-trial-0-trained-{made['id'][:8]}"
    alone = trained_alone(tmp_path / "alone", wanted)
    one, other = (read_tensors(place / "model.safetensors") for place in (folder, alone))
    assert all(bool((one[name] == other[name]).all()) for name in {*one, *other})
    assert load_package(folder).architecture == load_package(alone).architecture
    # The score is that of the trial's network, with its recipe and seed.
    [network] = found.trial(found.study("digits").id, 0).candidates
    assert {(entry.recipe, entry.seed, entry.data_split) for entry in network.trainings} == {
        (shown["recipe"], 3, "validation"), (shown["recipe"], 3, "test"),
    }  # fmt: skip


class TestInThisProcess:
    """What the process of a job does, without a process."""

    def run(self, store: Store, settings: Settings) -> None:
        job = store.lease_job("here", kinds=[JobKind.TRAIN], seconds=60)
        assert job is not None
        run_job(store, settings, job.id, job.epoch)

    def test_from_the_weights_of_a_trial_with_averages(
        self, found: Store, settings: Settings, tmp_path: Path
    ) -> None:
        from partialnet.networks import create
        from partialnet.package import save_tensors

        study = found.study("digits")
        save_tensors(create(NETWORK), tmp_path / "w.safetensors")
        stored = Artifacts(settings.storage).put(tmp_path / "w.safetensors", "studies/w.safetensors", "weights")
        found.add_trials(study.id, [(TrialKind.SEARCH, {})])
        found.start_trial(study.id, 1)
        network = candidate(architecture=NETWORK, splits=(), weights=stored)
        found.end_trial(study.id, 1, TrialState.COMPLETE, candidates=[network])
        changes = {"epochs": 1, "batch_size": 40, "ema_decay": 0.9}
        made = found.submit_training(parse_training({**WANTED, "trial": 1, "start": "weights", "settings": changes}))
        self.run(found, settings)
        done = found.training(made.id)
        assert (done.state, done.reason) == (TrainingState.FINISHED, None)
        assert done.result is not None
        assert done.result.last is not None
        assert {entry.recipe for entry in done.result.evaluations} == {made.recipe}
        assert "last_top1" in found.training_history(made.id)[0].metrics

    def test_a_package_under_a_data_root(self, found: Store, settings: Settings, tmp_path: Path) -> None:
        wanted = {**WANTED, "settings": {"epochs": 1, "batch_size": 40}}
        package = trained_alone(tmp_path / "alone", wanted)
        network = Architecture.load(package / "architecture.json").id
        (tmp_path / "root").mkdir()
        package.rename(tmp_path / "root" / "mine")
        request = {key: value for key, value in wanted.items() if key not in ("study", "trial")}
        made = found.submit_training(parse_training({**request, "package": "mine", "start": "weights"}))
        self.run(found, settings.model_copy(update={"data_roots": (tmp_path / "root",)}))
        done = found.training(made.id)
        assert (done.state, done.source.architecture_id) == (TrainingState.FINISHED, network)
        missing = found.submit_training(parse_training({**request, "package": "other"}))
        self.run(found, settings)
        failed = found.training(missing.id)
        assert failed.state is TrainingState.FAILED
        assert "there is no package 'other' under the data roots" in str(failed.reason)

    def test_a_storage_elsewhere_keeps_the_checkpoints(
        self, found: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        away = settings.model_copy(update={"storage": "memory://trainings"})
        made = found.submit_training(parse_training(WANTED))
        job = found.lease_job("here", kinds=[JobKind.TRAIN], seconds=60)
        assert job is not None
        recorded = found.record_training_epoch

        def fail(self: Store, training: str, record: Any) -> None:
            recorded(training, record)
            raise KeyboardInterrupt  # as a signal that comes after the first epoch

        monkeypatch.setattr(Store, "record_training_epoch", fail)
        with pytest.raises(KeyboardInterrupt):
            run_job(found, away, job.id, job.epoch)
        monkeypatch.undo()
        kept = Artifacts(away.storage).names(f"trainings/{made.id}/checkpoints")
        assert any(name.startswith("epoch-00001") for name in kept)
        found.release_job(job.id, job.epoch)
        self.run(found, away)
        assert [entry.epoch for entry in found.training_history(made.id)] == [1, 2]
        assert found.training(made.id).state is TrainingState.FINISHED
        assert found.jobs()[0].state is JobState.FINISHED

    @pytest.mark.ray
    @pytest.mark.cluster
    def test_a_cluster_that_is_away_puts_the_training_off(
        self, found: Store, settings: Settings, shared_ray: ExitStack
    ) -> None:
        shared_ray.close()  # a training uses the Ray that its process has already
        made = found.submit_training(parse_training({**WANTED, "processes": 2}))
        self.run(found, settings.model_copy(update={"ray_address": "127.0.0.1:1"}))
        waits = found.training(made.id)
        assert waits.state is TrainingState.QUEUED
        assert "no Ray cluster answers at 127.0.0.1:1" in str(waits.reason)

    @pytest.mark.long
    @pytest.mark.usefixtures("ray_here")
    def test_two_processes_on_a_cluster_stop_resume_and_end_as_one(
        self, found: Store, settings: Settings, api: TestClient, tmp_path: Path
    ) -> None:
        changes = {"epochs": 3, "batch_size": 12, "statistics": "synchronized", "optimizer": "sgd"}
        wanted = {**WANTED, "settings": changes}
        there = settings.model_copy(update={"ray_address": "auto"})  # the Ray that runs already
        made = found.submit_training(parse_training({**wanted, "processes": 2}))
        address = f"/api/v1/trainings/{made.id}"
        stopped = stop_after_the_first_epoch(found, there)
        assert stopped.state is TrainingState.STOPPED
        assert 1 <= stopped.done < 3
        assert api.get(f"{address}/checkpoints").json()["count"] >= 1
        found.resume_training(made.id)
        self.run(found, there)
        shown = api.get(address).json()
        assert (shown["state"], shown["done"]) == ("finished", 3)
        curve = [entry["metrics"]["loss"] for entry in api.get(f"{address}/history").json()["epochs"]]
        alone = found.submit_training(parse_training(wanted))
        self.run(found, settings)
        expected = [entry.metrics["loss"] for entry in found.training_history(alone.id)]
        assert curve == pytest.approx(expected, rel=1e-3)


def stop_after_the_first_epoch(store: Store, settings: Settings) -> Training:
    """Run the waiting training, and request a stop when its first epoch is recorded, as a worker passes it on."""
    job = store.lease_job("here", kinds=[JobKind.TRAIN], seconds=600)
    assert job is not None
    recorded = Store.record_training_epoch

    def stop(self: Store, training: str, record: Any) -> None:
        recorded(self, training, record)
        if record.epoch == 1:
            store.stop_training(training)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "record_training_epoch", stop)
        run_job(store, settings, job.id, job.epoch)
    store.release_job(job.id, job.epoch)
    return store.training(str(job.payload["training"]))
