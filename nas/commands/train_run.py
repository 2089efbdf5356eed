"""Running a training for ``nas train``: alone, as one of several processes, or only its first steps."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nas.commands.options import console, note, say
from nas.definition.requested_training import IDLE_SIGHT, idle_sight
from nas.definition.sections import DataSpec
from nas.errors import InputError, NasError
from nas.formatting import format_value
from nas.host.interrupts import INTERRUPTED, stop_requests
from nas.metrics import METRICS, Evaluation
from nas.sweep.joined import check_address
from nas.sweep.stop_flag import StopFlag
from nas.training.processes import LOST_CONNECTION, lost_connection, run_processes
from partialnet.train.launching import first, launched, restarted

if TYPE_CHECKING:
    from nas.definition.training import TrainRequest
    from nas.training.standalone import Keeping as Kept
    from nas.training.standalone import TrainResult, Watch
    from nas.worker.training_run import Display
    from partialnet.data import Workers
    from partialnet.train import EpochProgress

_GIB = 2**30


@dataclass(frozen=True)
class Keeping:
    """The flags about checkpoints; see :class:`nas.training.standalone.Keeping`."""

    minutes: float
    keep: int
    loggers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where and how a training runs.

    Args:
        data_roots: Folders to search for data sets.
        device: Name of the device, if given.
        processes: Number of processes on this machine, or on the cluster.
        keeping: Flags about checkpoints.
        workers: Number of threads or processes that decode in each process, if given.
        ray_address: Address of a Ray cluster; None for processes on this machine alone.
        least: Smallest number of processes with which a training on a cluster may continue; None for all.
        worker_processes: Whether processes decode, and not threads.
    """

    data_roots: tuple[Path, ...]
    device: str | None
    processes: int
    keeping: Keeping
    workers: int | None = None
    ray_address: str | None = None
    least: int | None = None
    worker_processes: bool = False

    @property
    def decoding(self) -> Workers:
        """What decodes image files."""
        from partialnet.data import Workers

        return Workers(self.workers, self.worker_processes)

    def check(self) -> None:
        """Refuse flags that do not fit together.

        Raises:
            InputError: If some do not, or nothing answers at the address.
        """
        if self.least is not None and self.ray_address is None:
            raise InputError("--least-processes works only with --ray-address")
        if self.least is not None and self.least > self.processes:
            raise InputError(f"--least-processes is {self.least}, but must be at most --processes {self.processes}")
        if self.ray_address is not None:
            check_address(self.ray_address, "--ray-address")


def check_sight(spec: DataSpec, given: Set[str]) -> None:
    """Refuse settings of image files that were given for data without any.

    Raises:
        InputError: If there are some.
    """
    idle = idle_sight(spec, given)
    if idle is not None:
        raise InputError(f"--set {idle}: {IDLE_SIGHT}")


def print_forecast(request: TrainRequest, place: Place, *, as_json: bool) -> None:
    """Take a few steps of a training, and print what all of it takes."""
    from nas.training.dry_run import forecast
    from partialnet.train import select_device

    device = select_device(place.device)
    found = forecast(request, place.data_roots, device=device, processes=place.processes, workers=place.decoding)
    printer = console()
    if place.ray_address is not None:
        note("measured on this machine, not on the Ray cluster: its processes are taken to be as fast, each")
    if as_json:
        printer.print_json(json.dumps(asdict(found)))
        return
    shared = f" in each of {place.processes} processes" if place.processes > 1 else ""
    steps = f"{found.measured_steps} steps on {device}{shared}"
    kind = "GPU memory" if device.type == "cuda" else "memory of the process"
    for name, text in {
        "steps": f"{found.steps:,} ({found.epochs:,} epochs, {found.images:,} images)",
        "memory": f"{found.memory_bytes / _GIB:.2f} GiB ({kind})",
        "speed": f"{found.images_per_second:,.0f} images/s, measured over {steps}",
        "time": f"{found.hours:.2f} h, with an evaluation after each epoch",
    }.items():
        say(printer, f"{name:8}{text}")


def start_training(request: TrainRequest | None, out: Path, place: Place) -> None:
    """Train, and print progress and result.

    Args:
        request: Request of a new training; None to resume the one in ``out``.
        out: Folder of the training.
        place: Device, processes and checkpoints.

    Raises:
        InputError: If processes are to be started within one that a launcher has started.
        ConflictError: If ``out`` cannot hold a new training.
        typer.Exit: If the training was interrupted.
    """
    from nas.definition.training import REQUEST, TrainRequest
    from nas.training.standalone import check_folder

    if launched() and place.processes > 1:
        raise InputError("--processes: a launcher such as torchrun has started this process; leave --processes out")
    if request is not None and restarted() and (out / REQUEST).is_file():
        request = None
    if request is not None and first():
        check_folder(out)
    if place.processes == 1 and place.ray_address is None:
        _train_here(request, out, place)
        return
    resume = request is None
    request = TrainRequest.load(out) if request is None else request
    if place.least in (None, place.processes):
        _check_shares(request, place.processes)
    with nullcontext() if resume else saved_request(request, out):
        if place.ray_address is not None:
            _train_there(request, out, place, place.ray_address)
            return
        command = [sys.executable, "-m", "nas", *_arguments(out, place)]
        code = run_processes(command, place.processes, f"nas train --resume {out}", note)
        if code == INTERRUPTED:
            note(f"stopped; continue with: nas train --resume {out} --processes {place.processes}")
        if code:
            raise typer.Exit(code)


@contextmanager
def saved_request(request: TrainRequest, out: Path) -> Iterator[None]:
    """Keep the request in ``out`` for the processes inside the block; remove both if it fails before they train.

    Args:
        request: Request of a new training.
        out: Folder of the training, missing or empty.
    """
    from nas.definition.training import REQUEST
    from nas.training.files import STORAGE

    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    request.save(out)
    try:
        yield
    except Exception as error:
        # A stop, and processes that died again and again: their message says how to continue.
        kept = type(error) is NasError or (isinstance(error, typer.Exit) and error.exit_code == INTERRUPTED)
        # What trains opens its loggers first, and they write here; Ray makes its folder before.
        if not kept and {path.name for path in out.iterdir()} <= {REQUEST, STORAGE}:
            (out / REQUEST).unlink()
            shutil.rmtree(out / STORAGE, ignore_errors=True)
            if made:
                out.rmdir()
        raise


def _check_shares(request: TrainRequest, processes: int) -> None:
    if request.batch_size % processes:
        raise InputError(f"batch_size is {request.batch_size}, but must be divisible by the {processes} processes")


def _arguments(out: Path, place: Place) -> list[str]:
    roots = [text for root in place.data_roots for text in ("--data-root", str(root))]
    device = [] if place.device is None else ["--device", place.device]
    kept = ["--checkpoint-minutes", str(place.keeping.minutes), "--keep", str(place.keeping.keep)]
    kept += [text for name in place.keeping.loggers for text in ("--logger", name)]
    workers = [] if place.workers is None else ["--workers", str(place.workers)]
    workers += ["--worker-processes"] if place.worker_processes else []
    return ["train", "--resume", str(out), *kept, *device, *workers, *roots]


def _train_here(request: TrainRequest | None, out: Path, place: Place) -> None:
    """Train in this process, alone or as one of several."""
    from nas.definition.training import TrainRequest
    from partialnet.train.loop import TrainingStopped

    resume = request is None
    request = TrainRequest.load(out) if request is None else request
    printer = console()
    try:
        result = _trained(request, out, place, resume, printer)
    except (KeyboardInterrupt, TrainingStopped):
        if first() and not launched() and (out / "training.json").is_file():
            note(f"stopped; continue with: nas train --resume {out}")
        raise typer.Exit(INTERRUPTED) from None
    except RuntimeError as error:
        if launched() and lost_connection(error):
            raise typer.Exit(LOST_CONNECTION) from None
        raise
    if first():
        _print_results(printer, result)


def _train_there(request: TrainRequest, out: Path, place: Place, address: str) -> None:
    """Train on a Ray cluster."""
    from nas.ray_training.driver import Cluster, train_on_cluster
    from partialnet.train.loop import TrainingStopped

    printer = console()
    cluster = Cluster(address, place.processes, place.least or place.processes, place.device, place.decoding)
    try:
        with _progress(printer) as watch, StopFlag() as stop:
            result = train_on_cluster(
                request, out, place.data_roots, cluster, watch=watch, keeping=_kept(place, stop.__bool__),
                started=stop.listen,
            )  # fmt: skip
    except (KeyboardInterrupt, TrainingStopped):
        elastic = "" if place.least is None else f" --least-processes {place.least}"
        note(
            f"stopped; continue with: nas train --resume {out} --ray-address {address} --processes "
            f"{place.processes}{elastic}"
        )
        raise typer.Exit(INTERRUPTED) from None
    _print_results(printer, result)


def _print_results(printer: Console, result: TrainResult) -> None:
    print_scores(printer, "retrained", result.candidate.evaluations)
    say(printer, f"wrote {result.package}; try: nas predict {result.package} IMAGE")
    if result.average is not None:
        print_scores(printer, "averaged weights", result.average[1].evaluations)
        say(printer, f"wrote {result.average[0]}")


def _trained(request: TrainRequest, out: Path, place: Place, resume: bool, printer: Console) -> TrainResult:
    from nas.training.standalone import train_alone
    from partialnet.train import select_device
    from partialnet.train.processes import joined, local_device

    where = select_device(local_device(place.device))
    with joined(where), _progress(printer) as watch, stop_requests() as stop:
        keeping = _kept(place, stop.is_set)
        return train_alone(
            request,
            out,
            place.data_roots,
            device=where,
            resume=resume,
            watch=watch,
            keeping=keeping,
            workers=place.decoding,
        )


def _kept(place: Place, stop: Callable[[], bool]) -> Kept:
    from nas.training.standalone import Keeping as Kept

    return Kept(place.keeping.minutes, place.keeping.keep, stop, loggers=place.keeping.loggers)


@contextmanager
def _progress(printer: Console) -> Iterator[Watch]:
    from nas.training.standalone import Watch

    if not first():
        yield Watch()
        return
    with progress_display(printer) as display:
        yield Watch(start=display.start, step=display.step, epoch=display.epoch, note=display.note)


@contextmanager
def progress_display(printer: Console) -> Iterator[Display]:
    """Yield functions that print a training, with a bar for its steps on a terminal."""
    from nas.worker.training_run import Display

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=printer,
        transient=True,
        disable=not printer.is_terminal,
    )
    task = bar.add_task("epoch 1", total=None)

    def epoch(progress: EpochProgress) -> None:
        steps = bar.tasks[0].completed
        bar.update(task, description=f"epoch {progress.epoch + 1}", total=steps or None, completed=0)
        scores = {"validation top-1": progress.evaluation, "averaged": progress.average}
        shown = "".join(f"  {name} {100 * score.top1:.2f} %" for name, score in scores.items() if score is not None)
        say(
            printer,
            f"epoch {progress.epoch}/{progress.epochs}  loss {progress.loss:.4f}{shown}  "
            f"learning rate {progress.learning_rate:.2g}  {progress.images_per_second:,.0f} images/s",
        )

    with bar:
        yield Display(start=lambda text: say(printer, text), step=lambda: bar.advance(task), epoch=epoch, note=note)


def print_scores(printer: Console, name: str, evaluations: Sequence[Evaluation]) -> None:
    """Print the scores of a network, a line for each data split."""
    for split in dict.fromkeys(item.data_split for item in evaluations):
        scores = ", ".join(
            f"{METRICS[item.metric].label} {format_value(item.metric, item.value)}"
            for item in evaluations
            if item.data_split == split
        )
        say(printer, f"{name}, {split} data: {scores}")
