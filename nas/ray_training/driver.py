"""The driver of a training on a Ray cluster: it starts the processes, shows their progress, and fetches the result."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nas.artifacts import Artifacts
from nas.definition.training import TrainRequest
from nas.errors import ClusterFault, InputError, NasError, one_line
from nas.ray_training.mailbox import Mailbox, Message
from nas.ray_training.process import Task, Trained, run_process
from nas.scratch import scratch_folder
from nas.settings import LOCAL_RAY
from nas.sweep.cluster import quiet_ray, ray_session
from nas.training.files import STORAGE, Elsewhere
from nas.training.loggers import logged
from nas.training.standalone import AVERAGE, PACKAGE, Keeping, TrainResult, Watch, watched
from partialnet.data import Workers
from partialnet.train.loop import TrainingStopped

_RESTARTS = 3
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Cluster:
    """The processes of a training on a cluster.

    Args:
        address: Address of the cluster; ``local`` for a private Ray on this machine.
        processes: Number of processes, one CPU or GPU each.
        least: Smallest number with which the training may continue; equal to ``processes`` if it is fixed.
        device: ``cpu`` or ``cuda``; None for GPUs if the cluster has any.
        workers: Threads or processes that decode image files in each process; None for threads, as many as its
            processors, at most 8.
    """

    address: str
    processes: int
    least: int
    device: str | None = None
    workers: Workers | None = None


def train_on_cluster(
    request: TrainRequest,
    out: Path,
    data_roots: tuple[Path, ...],
    cluster: Cluster,
    *,
    watch: Watch,
    keeping: Keeping,
    started: Callable[[], None] = lambda: None,
    elsewhere: Elsewhere | None = None,
) -> TrainResult:
    """Train on a cluster and write the packages to ``out``; continue from the newest checkpoint in it, if there is one.

    If a process or its node dies, all start again from the newest checkpoint, up to three times.

    Args:
        request: Architecture, data, recipe and seed of the training.
        out: Folder of the training, which all nodes must share, unless its files are ``elsewhere``.
        data_roots: Folders to search for data sets, on each node.
        cluster: Address and number of processes.
        watch: Functions that receive the progress.
        keeping: Checkpoints, and when to stop.
        started: Function to call when Ray has started: Ray takes over SIGTERM then.
        elsewhere: Files in a storage elsewhere; None for those of ``out``.

    Raises:
        ClusterFault: If the cluster cannot be joined.
        InputError: If it has too few processors or GPUs.
        TrainingStopped: If ``keeping.stop`` returned true; the checkpoint is written.
        NasError: If a process died again and again. An error of the training itself is raised as it is.
    """
    import ray

    with quiet_ray(), ray_session(cluster.address, cpus=cluster.processes if cluster.address == LOCAL_RAY else None):
        started()
        gpu = _check_resources(cluster)
        mailbox = ray.remote(num_cpus=0)(Mailbox).remote()
        elastic = cluster.least < cluster.processes
        if request.weights is not None:
            request = replace(request, weights=request.weights.resolve())
        roots = tuple(root.resolve() for root in data_roots)
        task = Task(
            request, out.resolve(), roots, cluster.processes, elastic, gpu, keeping.minutes, mailbox, cluster.workers,
            elsewhere,
        )  # fmt: skip
        with logged(out, request, keeping.loggers or (), watch.note) as loggers:
            seen = watched(watch, loggers)
            result = _supervise(lambda: _trainer(task, cluster, keeping.keep).fit(), mailbox, seen, keeping.stop)
            if result.return_value is None:
                raise TrainingStopped
            fetched = _fetched(result, out)
            loggers.result(request.epochs, fetched.candidate)
        return fetched


def _check_resources(cluster: Cluster) -> bool:
    """Return whether the processes run on GPUs.

    Raises:
        InputError: If the cluster has too few of them, or of processors.
    """
    import ray

    resources = ray.cluster_resources()
    kind = "CPU" if cluster.device == "cpu" or not (cluster.device or resources.get("GPU", 0)) else "GPU"
    found = int(resources.get(kind, 0))
    if found < cluster.least:
        raise InputError(
            f"--processes {cluster.processes}: the Ray cluster has {found} {kind}s, but each of at least "
            f"{cluster.least} processes needs one"
        )
    return kind == "GPU"


def _storage(task: Task) -> tuple[Any, str]:
    """Return the file system and the folder in which Ray keeps checkpoints; None for a folder of the nodes."""
    if task.elsewhere is None:
        return None, str(task.out)
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    files, place = Artifacts(task.elsewhere.storage).place(task.elsewhere.folder)
    return PyFileSystem(FSSpecHandler(files)), place


def _trainer(task: Task, cluster: Cluster, keep: int) -> Any:
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    files, place = _storage(task)
    return TorchTrainer(
        run_process,
        train_loop_config={"task": task},
        scaling_config=ScalingConfig(
            num_workers=(cluster.least, cluster.processes) if task.elastic else cluster.processes, use_gpu=task.gpu
        ),
        run_config=RunConfig(
            name=STORAGE,
            storage_path=place,
            storage_filesystem=files,
            failure_config=FailureConfig(max_failures=_RESTARTS),
            checkpoint_config=CheckpointConfig(num_to_keep=keep),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


def _supervise(fit: Callable[[], Any], mailbox: Any, watch: Watch, stop: Callable[[], bool]) -> Any:
    """Run ``fit`` beside this thread, which alone receives signals; pass on messages and the request to stop.

    Returns:
        Result of ``fit``.

    Raises:
        ClusterFault: If the cluster is lost.
        NasError: If it fails; an error that a process has recorded is raised as it is.
    """
    from ray.exceptions import RayError

    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(fit())
        except Exception as error:
            outcome.append(error)

    # A daemon: a second request to stop ends this process without it.
    thread = threading.Thread(target=run, name="ray-train", daemon=True)
    thread.start()
    try:
        error = _watched(thread, mailbox, _Messages(watch), stop)
    except RayError as lost:
        raise ClusterFault(f"the Ray cluster was lost ({one_line(lost)[:300]}); the checkpoints are kept") from lost
    if error is not None:
        raise error
    [found] = outcome
    if isinstance(found, Exception):
        raise NasError(f"the training on the Ray cluster failed: {_reason(found)}") from found
    return found


def _watched(
    thread: threading.Thread, mailbox: Any, messages: _Messages, stop: Callable[[], bool]
) -> BaseException | None:
    """Wait for the end of ``thread``, and return the error that a process has recorded."""
    import ray

    asked, alive = False, True
    while alive:
        thread.join(_POLL_SECONDS)
        # The last messages are there when the thread has ended.
        alive = thread.is_alive()
        messages.pass_on(ray.get(mailbox.take.remote()))
        if not asked and stop():
            mailbox.request_stop.remote()
            asked = True
    found: BaseException | None = ray.get(mailbox.error.remote())
    return found


class _Messages:
    """Passes messages on to a watch; a second start means that a process was lost or added."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._started = False

    def pass_on(self, messages: list[Message]) -> None:
        for message in messages:
            value: Any = message.value
            if message.kind == "steps":
                for _ in range(value):
                    self._watch.step()
            elif message.kind == "epoch":
                self._watch.epoch(value)
            elif message.kind == "note":
                self._watch.note(value)
            elif self._started:
                self._watch.note(f"a process was lost or added; continuing from the newest checkpoint ({value})")
            else:
                self._started = True
                self._watch.start(value)


def _reason(error: Exception) -> str:
    """Return the failure of a process in one line; Ray's own text holds the traces of all of them."""
    failures = getattr(error, "worker_failures", {})
    told = [f"process {rank}: {one_line(failure)[:300]}" for rank, failure in failures.items()]
    return "; ".join(told) or one_line(error)


def _fetched(result: Any, out: Path) -> TrainResult:
    """Move the packages of the last checkpoint to ``out``."""
    found: Trained = result.return_value
    with scratch_folder("download") as folder:
        result.checkpoint.to_directory(folder)
        for name in (PACKAGE, AVERAGE):
            if (folder / name).is_dir():
                _replace(folder / name, out / name)
    average = None if found.average is None else (out / AVERAGE, found.average)
    return TrainResult(out / PACKAGE, found.candidate, found.notes, average, found.history)


def _replace(source: Path, target: Path) -> None:
    fresh = target.with_name(f".new-{target.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(source, fresh)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
