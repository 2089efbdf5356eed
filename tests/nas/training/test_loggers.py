"""The curves of a training in other tools: read with TensorBoard's own reader; a logger never ends a training."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nas.definition.sections import DataSpec
from nas.definition.training import TrainRequest
from nas.errors import InputError
from nas.training.loggers import Loggers, check_loggers, logged
from nas.training.standalone import Watch, train_alone
from partialnet.architecture import Architecture
from partialnet.errors import PartialNetError
from partialnet.train import EpochProgress, EvaluationResult, Recipe
from tests.waiting import wait_for

REQUEST = TrainRequest(
    Architecture("partialnet_micro", {"num_classes": 10, "in_chans": 1, "patch_size": 1, "depths": [1, 1, 1, 1]}),
    DataSpec(name="digits", train_limit=60),
    Recipe(ema_decay=0.9),
    epochs=2,
    batch_size=30,
)


def progress(epoch: int, loss: float = 0.5) -> EpochProgress:
    return EpochProgress(epoch, 3, loss, 0.1, 100.0, EvaluationResult(0.5, 1.0, 0.7, 10))


def curves(out: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(out / "events"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_a_training_writes_events_that_tensorboard_reads(tmp_path: Path) -> None:
    told: list[EpochProgress] = []
    train_alone(REQUEST, tmp_path, (), watch=Watch(epoch=told.append))
    found = curves(tmp_path)
    assert found["loss/train"] == [(entry.epoch, pytest.approx(entry.loss)) for entry in told]
    assert {"top1/validation", "top1/averaged", "learning_rate", "images_per_second"} < set(found)
    assert [step for step, _ in found["top1/test"]] == [2]


def test_a_resumed_training_continues_its_curves_and_its_runs(tmp_path: Path) -> None:
    for epochs in ((1, 2), (3,)):
        with logged(tmp_path, REQUEST, (), print) as loggers:
            loggers.start()
            for epoch in epochs:
                loggers.epoch(progress(epoch, float("nan") if epoch == 2 else 0.5))
    assert curves(tmp_path)["top1/validation"] == [(1, 0.5), (2, 0.5), (3, 0.5)]
    assert curves(tmp_path)["loss/train"] == [(1, 0.5), (3, 0.5)]
    assert json.loads((tmp_path / "loggers.json").read_text()) == {"tensorboard": "events"}


class _Broken(types.ModuleType):
    """Stands for MLflow with a server that goes away: the package itself is an extra."""

    told = 0

    def start_run(self, **_options):
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="run-7"))

    def log_params(self, _settings):
        pass

    def log_metrics(self, _numbers, step):
        self.told += 1
        if step > 1:
            raise ConnectionError("the server\nis gone")


def test_a_logger_that_fails_is_noted_once_and_left_out(tmp_path: Path, monkeypatch) -> None:
    broken = _Broken("mlflow")
    monkeypatch.setitem(sys.modules, "mlflow", broken)
    notes: list[str] = []
    loggers = Loggers(tmp_path, REQUEST, ("mlflow",), notes.append)
    loggers.start()
    for epoch in (1, 2, 3):
        loggers.epoch(progress(epoch))
    loggers.close(complete=True)
    assert notes == ["mlflow: ConnectionError: the server is gone; the training continues without it"]
    assert broken.told == 2
    assert len(curves(tmp_path)["loss/train"]) == 3
    assert json.loads((tmp_path / "loggers.json").read_text())["mlflow"] == "run-7"


def test_a_logger_that_is_away_when_a_training_resumes_keeps_its_run(tmp_path: Path, monkeypatch) -> None:
    runs = {"tensorboard": "events", "mlflow": "run-7"}
    (tmp_path / "loggers.json").write_text(json.dumps(runs))
    monkeypatch.setitem(sys.modules, "mlflow", None)
    notes: list[str] = []
    loggers = Loggers(tmp_path, REQUEST, (), notes.append)
    loggers.start()
    loggers.close(complete=True)
    assert [note.partition(":")[0] for note in notes] == ["mlflow"]
    assert json.loads((tmp_path / "loggers.json").read_text()) == runs


def test_nothing_is_written_before_data_and_network_are_good(tmp_path: Path) -> None:
    bad = [replace(REQUEST, data=DataSpec(name="cifar10")), replace(REQUEST, weights=Path("/nowhere"))]
    for request in bad:
        with pytest.raises(PartialNetError):
            train_alone(request, tmp_path / "out", ())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_costs_only_the_curves(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("in the way")
    notes: list[str] = []
    result = train_alone(replace(REQUEST, epochs=1), tmp_path, (), watch=Watch(note=notes.append))
    assert result.package.is_dir()
    assert len([note for note in notes if note.startswith("tensorboard: ")]) == 1


def test_unknown_and_missing_loggers_are_named(monkeypatch) -> None:
    with pytest.raises(InputError, match="--logger comet: unknown; known: mlflow, wandb"):
        check_loggers(["comet"])
    monkeypatch.setattr("nas.training.loggers.find_spec", lambda _name: None)
    with pytest.raises(InputError, match=r"--logger wandb: not installed here; pip install 'partialnet-nas\[wandb\]'"):
        check_loggers(["wandb"])


@pytest.mark.long
def test_mlflow_has_the_curves(tmp_path: Path, monkeypatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is an extra of the package")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file://{tmp_path / 'runs'}")
    notes: list[str] = []
    for epochs in ((1, 2), (3,)):
        with logged(tmp_path / "out", REQUEST, ("mlflow",), notes.append) as loggers:
            loggers.start()
            for epoch in epochs:
                loggers.epoch(progress(epoch))
    assert notes == []
    run = json.loads((tmp_path / "out" / "loggers.json").read_text())["mlflow"]
    history = mlflow.MlflowClient().get_metric_history(run, "top1/validation")
    assert [(entry.step, entry.value) for entry in history] == [(1, 0.5), (2, 0.5), (3, 0.5)]
    assert mlflow.get_run(run).data.params["batch_size"] == "30"


@pytest.mark.long
def test_weights_and_biases_has_the_curves_offline(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("wandb", reason="Weights & Biases is an extra of the package")
    monkeypatch.setenv("WANDB_MODE", "offline")
    notes: list[str] = []
    with logged(tmp_path, REQUEST, ("wandb",), notes.append) as loggers:
        loggers.start()
        loggers.epoch(progress(1))
    assert notes == []
    [file] = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    wait_for(lambda: b"top1/validation" in file.read_bytes())  # its own process writes
