"""The curves of a training for people's own tools: TensorBoard always, MLflow and Weights & Biases where named.

A logger never ends a training: its first error is noted, and the training continues without it.
"""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nas.candidate import Candidate
from nas.definition.training import TrainRequest
from nas.errors import InputError, one_line
from partialnet.files import whole_file
from partialnet.train import EpochProgress

EVENTS = "events"
_RUNS = "loggers.json"  # the run of each logger, which a resumed training continues
_WAIT_SECONDS = 30


class _Logger(ABC):
    """A tool that draws numbers over epochs.

    Args:
        out: Folder of the training, whose name is that of the run.
        settings: Settings of the training, as plain values.
        run: Id of the run to continue; None for a new one.
    """

    @abstractmethod
    def __init__(self, out: Path, settings: Mapping[str, Any], run: str | None) -> None:
        self.run = run

    @abstractmethod
    def log(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Add the numbers of an epoch."""

    @abstractmethod
    def close(self, *, complete: bool) -> None:
        """Write what is left; ``complete`` tells a training's end from its interruption."""


class _TensorBoard(_Logger):
    def __init__(self, out: Path, settings: Mapping[str, Any], run: str | None) -> None:
        from tensorboardX import SummaryWriter

        super().__init__(out, settings, run)
        # A training that is resumed within a second must not overwrite its first file.
        self._writer = SummaryWriter(str(out / EVENTS), filename_suffix=f".{time.monotonic_ns()}")
        if run is None:
            rows = "\n".join(f"| {key} | {value} |" for key, value in settings.items())
            self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}")
            self.run = EVENTS

    def log(self, epoch: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self, *, complete: bool) -> None:
        del complete
        self._writer.close()


class _MLflow(_Logger):
    """MLflow's own variables name its server and experiment (``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME``)."""

    def __init__(self, out: Path, settings: Mapping[str, Any], run: str | None) -> None:
        import mlflow

        super().__init__(out, settings, run)
        self._mlflow = mlflow
        started = mlflow.start_run(run_id=run, run_name=None if run else out.name)
        if run is None:
            mlflow.log_params(dict(settings))
        self.run = str(started.info.run_id)

    def log(self, epoch: int, numbers: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(numbers), step=epoch)

    def close(self, *, complete: bool) -> None:
        self._mlflow.end_run("FINISHED" if complete else "KILLED")


class _WandB(_Logger):
    """Its own variables name project, key and mode (``WANDB_PROJECT``, ``WANDB_API_KEY``, ``WANDB_MODE``)."""

    def __init__(self, out: Path, settings: Mapping[str, Any], run: str | None) -> None:
        import wandb

        super().__init__(out, settings, run)
        self._run = wandb.init(
            dir=str(out), name=out.name, id=run, resume="allow", config=dict(settings),
            settings=wandb.Settings(init_timeout=_WAIT_SECONDS, silent=True),
        )  # fmt: skip
        self.run = str(self._run.id)

    def log(self, epoch: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=epoch)

    def close(self, *, complete: bool) -> None:
        self._run.finish(exit_code=0 if complete else 1)


_KINDS: Mapping[str, type[_Logger]] = MappingProxyType(
    {"tensorboard": _TensorBoard, "mlflow": _MLflow, "wandb": _WandB}
)
LOGGERS = tuple(name for name in _KINDS if name != "tensorboard")
"""Loggers that a training uses only where they are named; each is an extra of the package."""


def check_loggers(names: Sequence[str]) -> None:
    """Refuse loggers that are unknown or not installed.

    Raises:
        InputError: If one is.
    """
    for name in names:
        if name not in LOGGERS:
            raise InputError(f"--logger {name}: unknown; known: {', '.join(LOGGERS)} (TensorBoard always writes)")
        if find_spec(name) is None:
            raise InputError(f"--logger {name}: not installed here; pip install 'partialnet-nas[{name}]'")


class Loggers:
    """The loggers of one training; they write nothing before they are opened.

    Args:
        out: Folder of the training, which :meth:`open` creates.
        request: Request of the training.
        names: Loggers besides TensorBoard.
        note: Function that receives the first error of each logger.
    """

    def __init__(self, out: Path, request: TrainRequest, names: Sequence[str], note: Callable[[str], None]) -> None:
        self._out = out
        self._request = request
        self._names = names
        self._note = note
        self._open: dict[str, _Logger] = {}

    def start(self) -> None:
        """Start or continue the run of each logger, once data and network are known to be good."""
        self._out.mkdir(parents=True, exist_ok=True)
        runs = _runs(self._out)
        wanted = dict.fromkeys(("tensorboard", *self._names, *(name for name in runs if name in _KINDS)))
        for name in wanted:
            with self._harmless(name):
                self._open[name] = _KINDS[name](self._out, _settings(self._request), runs.get(name))
        # A logger that cannot be reached now keeps its run for the next resumption.
        found = runs | {name: logger.run for name, logger in self._open.items()}
        with suppress(OSError), whole_file(self._out / _RUNS) as fresh:
            fresh.write_text(json.dumps(found), encoding="utf-8")

    @contextmanager
    def _harmless(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each tool raises its own
            self._open.pop(name, None)
            self._note(f"{name}: {type(error).__name__}: {one_line(error)[:300]}; the training continues without it")

    def epoch(self, progress: EpochProgress) -> None:
        """Give all loggers the numbers of an epoch."""
        self.log(progress.epoch, numbers_of(progress))

    def log(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Give all loggers the finite ones of the numbers of an epoch."""
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        for name, logger in list(self._open.items()):
            with self._harmless(name):
                logger.log(epoch, finite)

    def result(self, epochs: int, candidate: Candidate) -> None:
        """Give all loggers the final scores on test images, if there are any."""
        found = {f"{item.metric}/{item.data_split}": item.value for item in candidate.evaluations}
        self.log(epochs, {name: value for name, value in found.items() if name.endswith("/test")})

    def close(self, *, complete: bool) -> None:
        """Let all loggers write what is left."""
        for name, logger in list(self._open.items()):
            with self._harmless(name):
                logger.close(complete=complete)


@contextmanager
def logged(
    out: Path, request: TrainRequest, names: Sequence[str], note: Callable[[str], None]
) -> Iterator[Loggers]:
    """Yield the loggers of a training, and close them after the block; an exception marks its run as interrupted.

    Args:
        out: Folder of the training.
        request: Request of the training.
        names: Loggers besides TensorBoard and those of an earlier part of the training.
        note: Function that receives the first error of each logger.
    """
    loggers, complete = Loggers(out, request, names, note), False
    try:
        yield loggers
        complete = True
    finally:
        loggers.close(complete=complete)


def numbers_of(progress: EpochProgress) -> dict[str, float]:
    """Return the numbers of an epoch by name."""
    found = {
        "loss/train": progress.loss,
        "learning_rate": progress.learning_rate,
        "images_per_second": progress.images_per_second,
    }
    for name, scores in {"validation": progress.evaluation, "averaged": progress.average}.items():
        if scores is not None:
            found |= {f"{key}/{name}": getattr(scores, key) for key in ("loss", "top1", "top5")}
    return found


def _settings(request: TrainRequest) -> dict[str, Any]:
    return {
        "model": request.architecture.model,
        "data": request.data.name,
        "started_from": request.origin,
        "epochs": request.epochs,
        "batch_size": request.batch_size,
        "seed": request.seed,
        **request.recipe.decisive(),
    }


def _runs(out: Path) -> dict[str, str]:
    with suppress(OSError, ValueError):
        found = json.loads((out / _RUNS).read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return {str(name): str(run) for name, run in found.items()}
    return {}
