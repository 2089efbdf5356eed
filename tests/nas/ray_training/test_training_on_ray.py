"""Trainings on a Ray cluster: the same result as without, lost processes, a stop, another number of processes."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from nas.definition.sections import DataSpec
from nas.definition.training import TrainRequest
from nas.errors import InputError
from nas.ray_training.driver import Cluster, train_on_cluster
from nas.training.standalone import Keeping, Watch, train_alone
from partialnet.architecture import Architecture
from partialnet.errors import DataError
from partialnet.package import load_package
from partialnet.train import EpochProgress, Recipe

REQUEST = TrainRequest(
    Architecture("partialnet_micro", {"num_classes": 10, "in_chans": 1, "patch_size": 1, "depths": [1, 1, 1, 1]}),
    DataSpec(name="digits", train_limit=60),
    Recipe(optimizer="sgd", learning_rate=0.05, statistics="synchronized", ema_decay=0.9),
    epochs=2,
    batch_size=18,
)
TWO = Cluster("local", processes=2, least=2, device="cpu")


class Told:
    """What a training tells, and what happens at its epochs."""

    def __init__(self, at_epoch: dict[int, object] | None = None) -> None:
        self.epochs: list[EpochProgress] = []
        self.notes: list[str] = []
        self.starts: list[str] = []
        self.steps = 0
        self.at_epoch = dict(at_epoch or {})

    def watch(self) -> Watch:
        return Watch(start=self.starts.append, step=self._step, epoch=self._epoch, note=self.notes.append)

    def _step(self) -> None:
        self.steps += 1

    def _epoch(self, progress: EpochProgress) -> None:
        self.epochs.append(progress)
        action = self.at_epoch.pop(progress.epoch, None)
        if callable(action):
            action()


def train_processes() -> list[int]:
    """Return the processes of Ray Train on this machine, youngest first."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _command(entry).startswith(b"ray::RayTrainWorker"):
            found.append(int(entry.name))
    return sorted(found, reverse=True)


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def run(request: TrainRequest, out: Path, cluster: Cluster = TWO, told: Told | None = None, **keeping):
    told = told or Told()
    return train_on_cluster(request, out, (), cluster, watch=told.watch(), keeping=Keeping(**keeping))


@pytest.mark.usefixtures("ray_here")
def test_two_processes_on_a_cluster_train_like_one(tmp_path: Path) -> None:
    told, alone = Told(), Told()
    result = run(REQUEST, tmp_path / "cluster", told=told)
    train_alone(REQUEST, tmp_path / "alone", (), watch=alone.watch())
    assert [entry.loss for entry in told.epochs] == pytest.approx([entry.loss for entry in alone.epochs], rel=1e-3)
    assert told.starts[0].endswith("on cpu, 2 processes")
    assert told.steps == alone.steps == 6
    assert result.package == tmp_path / "cluster" / "package"
    assert result.candidate.evaluations
    assert result.average is not None
    load_package(result.average[0])


@pytest.mark.usefixtures("ray_here")
def test_too_few_processors_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--processes 9: the Ray cluster has 4 CPUs, but each of at least 8 processes"):
        run(REQUEST, tmp_path, Cluster("local", processes=9, least=8, device="cpu"))


@pytest.mark.long
@pytest.mark.usefixtures("ray_here")
def test_an_error_of_the_training_ends_it_at_once(tmp_path: Path) -> None:
    request = replace(REQUEST, data=DataSpec(name="image_folder", folder="nothing-of-that-name", image_size=32))
    told = Told()
    with pytest.raises(DataError, match="nothing-of-that-name"):
        run(request, tmp_path, told=told)
    assert told.notes == []


@pytest.mark.long
@pytest.mark.usefixtures("ray_here")
def test_a_killed_process_is_replaced_and_costs_nothing(tmp_path: Path) -> None:
    undisturbed = Told()
    run(REQUEST, tmp_path / "whole", told=undisturbed)
    told = Told({1: lambda: os.kill(train_processes()[0], signal.SIGKILL)})
    run(replace(REQUEST, epochs=2), tmp_path / "run", told=told)
    assert told.notes[-1].startswith("a process was lost or added; continuing from the newest checkpoint (training ")
    assert all(note.startswith("process 0 failed: ") for note in told.notes[:-1])
    assert [entry.epoch for entry in told.epochs] == [1, 2]
    assert [entry.loss for entry in told.epochs] == [entry.loss for entry in undisturbed.epochs]
