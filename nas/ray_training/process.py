"""One process of a training on a cluster. Ray Train has started it, and has joined it with the others."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from ray import train

from nas.candidate import Candidate
from nas.definition.training import TrainRequest
from nas.errors import NasError, one_line
from nas.ray_training.mailbox import Message, Sender
from nas.scratch import scratch_folder
from nas.training.files import CHECKPOINTS, Elsewhere
from nas.training.standalone import AVERAGE, PACKAGE, Keeping, TrainResult, Watch, adopt_newest, train_alone
from partialnet.data import Workers
from partialnet.errors import PartialNetError
from partialnet.train import EpochProgress
from partialnet.train.loop import TrainingStopped


@dataclass(frozen=True)
class Task:
    """What each process receives.

    Args:
        request: Request of the training.
        out: Folder of the training, whose own checkpoints count as well.
        data_roots: Folders to search for data sets, on each node.
        processes: Largest number of processes.
        elastic: Whether there may be fewer.
        gpu: Whether each process has a GPU.
        minutes: Time between two checkpoints within an epoch; 0 for none.
        mailbox: Handle of the actor :class:`nas.ray_training.mailbox.Mailbox`.
        workers: Threads or processes that decode image files in each process; None for threads, as many as its
            processors, at most 8.
        elsewhere: Files in a storage elsewhere, whose checkpoints and weights count instead of those of ``out``.
    """

    request: TrainRequest
    out: Path
    data_roots: tuple[Path, ...]
    processes: int
    elastic: bool
    gpu: bool
    minutes: float
    mailbox: Any
    workers: Workers | None = None
    elsewhere: Elsewhere | None = None


@dataclass(frozen=True)
class Trained:
    """What the first process returns at the end; the packages are in the last checkpoint.

    Args:
        candidate: Architecture and scores.
        average: The same for the averaged weights, if the recipe has them.
        notes: Notes for people.
        history: Progress of all epochs.
    """

    candidate: Candidate
    average: Candidate | None
    notes: tuple[str, ...]
    history: tuple[EpochProgress, ...]


def run_process(config: Mapping[str, Task]) -> Trained | None:
    """Train as one of the processes, from the newest checkpoint if there is one.

    Args:
        config: The task, under ``"task"``.

    Returns:
        The result in the first process; None if the training was stopped, or another start has failed for good.
    """
    import ray

    task = config["task"]
    if ray.get(task.mailbox.error.remote()) is not None:
        return None
    with scratch_folder("train") as folder:
        checkpoint = train.get_checkpoint()
        if checkpoint is not None:
            checkpoint.to_directory(folder)
        try:
            task = _with_earlier_files(task, folder)
            result = _train(task, folder)
        except TrainingStopped:
            return None
        except (NasError, PartialNetError) as error:
            # A new start would meet it again. The exception ends the others, which wait for this process.
            ray.get(task.mailbox.fail.remote(error))
            raise
        except Exception as error:
            # The reason of a new start: often a lost process, which the others name in the words of their backend.
            rank = train.get_context().get_world_rank()
            text = f"process {rank} failed: {type(error).__name__}: {one_line(error)[:200]}"
            ray.get(task.mailbox.put.remote(Message("note", text)))
            raise
        _publish_packages(folder)
        average = None if result.average is None else result.average[1]
        return Trained(result.candidate, average, result.notes, result.history)


def _with_earlier_files(task: Task, folder: Path) -> Task:
    """Copy the checkpoint with which this process continues what ran without a cluster; return what to train."""
    if task.elsewhere is None:
        adopt_newest(task.out / CHECKPOINTS, folder / CHECKPOINTS)
        return task
    weights = task.elsewhere.fetch(folder)
    return task if weights is None else replace(task, request=replace(task.request, weights=weights))


def _train(task: Task, folder: Path) -> TrainResult:
    sender = Sender(task.mailbox) if _first() else None
    keeping = Keeping(
        task.minutes,
        keep=1,  # Ray keeps the published ones
        stop=_never if sender is None else sender.stop_requested,
        published=_publish,
        most=task.processes if task.elastic else None,
        loggers=None,  # the driver has them
    )
    device = train.torch.get_device() if task.gpu else torch.device("cpu")
    return train_alone(
        task.request,
        folder,
        task.data_roots,
        device=device,
        resume=True,
        watch=_watch(sender),
        keeping=keeping,
        workers=task.workers,
    )


def _first() -> bool:
    return bool(train.get_context().get_world_rank() == 0)


def _never() -> bool:
    return False


def _watch(sender: Sender | None) -> Watch:
    if sender is None:
        return Watch()

    def tell(kind: Any) -> Callable[[Any], None]:
        return lambda value: sender.tell(kind, value)

    return Watch(start=tell("start"), step=sender.step, epoch=tell("epoch"), note=tell("note"))


def _publish(path: Path | None) -> None:
    """Give Ray the checkpoint of the first process; Ray waits for all processes here."""
    if path is None:
        train.report({})
        return
    with scratch_folder("checkpoint") as folder:
        target = folder / CHECKPOINTS / path.name
        target.parent.mkdir()
        shutil.copyfile(path, target)
        train.report({}, checkpoint=train.Checkpoint.from_directory(folder))


def _publish_packages(folder: Path) -> None:
    """Give Ray the result, with the last checkpoint: a training that is resumed after its end then ends at once."""
    if not _first():
        train.report({})
        return
    with scratch_folder("export") as result:
        for name in (CHECKPOINTS, PACKAGE, AVERAGE):
            if (folder / name).is_dir():
                (folder / name).rename(result / name)
        train.report({}, checkpoint=train.Checkpoint.from_directory(result))
