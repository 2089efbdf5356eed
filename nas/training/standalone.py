"""Training a fixed architecture: from scratch or from weights, with checkpoints, ending in a package. No Ray.

A training is a folder::

    training.json      the request: everything that a resumed training needs
    checkpoints/       the newest states, and that of the best epoch
    package/           the result, written when the training is complete
    package-average/   the same with averaged weights, if the recipe has them
    events/            curves for TensorBoard
    ray/               checkpoints that Ray keeps, if it ran on a cluster
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from nas.candidate import Candidate
from nas.definition.training import REQUEST, TrainRequest
from nas.errors import ConflictError, InputError
from nas.formatting import format_number
from nas.metrics import EvaluationKind
from nas.networks.card import training_card
from nas.training.data import open_splits, teacher_for, training_batches
from nas.training.device import memory_explained
from nas.training.files import CHECKPOINTS, STORAGE
from nas.training.loggers import Loggers, logged
from nas.training.scoring import EVALUATION_BATCH, candidate_of, evaluations_of
from partialnet.architecture import Architecture
from partialnet.data import Batches, DataSplits, Workers
from partialnet.errors import DataError
from partialnet.files import whole_file
from partialnet.models.partialnet import PartialNet
from partialnet.networks import create
from partialnet.package import Preprocessing, load_tensors, read_tensors, save_package
from partialnet.train import EpochProgress, EvaluationResult, FitResult, evaluate, fit, seeded
from partialnet.train.kept import KeptCheckpoints
from partialnet.train.processes import Processes

PACKAGE = "package"
AVERAGE = "package-average"
_FIRST_VERSION = "checkpoint.pt"  # a training that an older version began


@dataclass(frozen=True)
class TrainResult:
    """The result of a training.

    Args:
        package: Folder of the network.
        candidate: Its architecture, splits, evaluations (kind ``retrained``) and counts.
        notes: Notes for people, such as a new classifier or missing test images.
        average: Folder and candidate of the network with averaged weights, if the recipe has them.
        history: Progress of all epochs, including those before a resumption.
    """

    package: Path
    candidate: Candidate
    notes: tuple[str, ...]
    average: tuple[Path, Candidate] | None = None
    history: tuple[EpochProgress, ...] = ()


@dataclass(frozen=True)
class Keeping:
    """How a training keeps its states.

    Args:
        minutes: Time between two checkpoints within an epoch; 0 for none. Each epoch ends with one as well.
        keep: Number of the newest checkpoints that are kept, besides that of the best epoch.
        stop: Function that returns whether to write a checkpoint and stop.
        published: Function that all processes call together after each checkpoint; see :class:`KeptCheckpoints`.
        most: Largest number of processes, if it may change while the training is interrupted; see :func:`fit`.
        loggers: Loggers besides TensorBoard (``nas.training.loggers``); None for none at all.
    """

    minutes: float = 10.0
    keep: int = 3
    stop: Callable[[], bool] = lambda: False
    published: Callable[[Path | None], None] = lambda _path: None
    most: int | None = None
    loggers: tuple[str, ...] | None = ()


@dataclass(frozen=True)
class Watch:
    """Functions that receive the progress of a training.

    Args:
        start: Function that receives a sentence when data and network are ready.
        step: Function to call after each batch.
        epoch: Function that receives each epoch's progress, after its checkpoint is written.
        note: Function that receives notes for people.
    """

    start: Callable[[str], None] = lambda _text: None
    step: Callable[[], None] = lambda: None
    epoch: Callable[[EpochProgress], None] = lambda _progress: None
    note: Callable[[str], None] = lambda _text: None


def check_folder(out: Path) -> None:
    """Refuse a folder that cannot hold a new training.

    Raises:
        ConflictError: If it exists and is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        hint = f"`nas train --resume {out}` continues it" if (out / REQUEST).is_file() else "choose another folder"
        raise ConflictError(f"--out {out}: exists and is not empty; {hint}")


def build_model(request: TrainRequest, splits: DataSplits) -> tuple[nn.Module, list[str]]:
    """Build the network with outputs for the data set's classes, and load the weights to start from.

    If the data set has another number of classes than the weights, the classifier starts from random weights.

    Returns:
        The network, and notes for people.

    Raises:
        ArchitectureError: If the network cannot be built, or the images are too small for it.
        PackageError: If the weights cannot be read or do not fit.
        InputError: If the weights are for another number of image channels.
    """
    options = request.architecture.options
    channels, height, width = splits.info.input_shape
    classes = len(splits.info.class_names)
    wanted = replace(request.architecture, options={**options, "num_classes": classes, "in_chans": channels})
    with seeded(request.seed):
        model = create(wanted)
    if isinstance(model, PartialNet):
        model.map_sizes(height, width)
    if request.weights is None:
        return model, []
    trained_channels = options.get("in_chans", 3)
    if trained_channels != channels:
        raise InputError(
            f"{request.weights}: the weights are for images of {trained_channels} channels, but {request.data.name} "
            f"has {channels}; train from scratch, without the weights"
        )
    tensors = read_tensors(request.weights)
    notes = []
    own = model.state_dict()
    other = [name for name in _classifier(wanted) if name in tensors and tensors[name].shape != own[name].shape]
    if other:
        trained = len(tensors[other[0]])
        notes.append(f"the classifier starts from random weights: the weights are for {trained} classes, not {classes}")
        tensors |= {name: own[name] for name in other}
    load_tensors(model, tensors, request.weights)
    return model, notes


def _classifier(architecture: Architecture) -> list[str]:
    """Return the names of the tensors whose shape depends on the number of classes."""
    other = {**architecture.options, "num_classes": architecture.options["num_classes"] + 1}
    with torch.device("meta"):
        shapes = [
            {name: tensor.shape for name, tensor in create(known).state_dict().items()}
            for known in (architecture, replace(architecture, options=other))
        ]
    return [name for name, shape in shapes[0].items() if shape != shapes[1][name]]


def train_alone(
    request: TrainRequest,
    out: Path,
    data_roots: Sequence[Path],
    *,
    device: torch.device | str = "cpu",
    resume: bool = False,
    watch: Watch | None = None,
    keeping: Keeping | None = None,
    workers: Workers | None = None,
) -> TrainResult:
    """Train a fixed architecture and write it as a package; test images are read once, at the end.

    Within torch's process group, all processes call this function. The first one writes.

    Args:
        request: Architecture, data, recipe and seed of the training.
        out: Folder of the training, which is created if it is missing.
        data_roots: Folders to search for data sets.
        device: Device of the training.
        resume: Whether to continue from the checkpoint in ``out``, if there is one.
        watch: Functions that receive the progress.
        keeping: Checkpoints, and when to stop.
        workers: Threads or processes that decode and augment image files; None for threads, as many as CPUs, at most 8.

    Raises:
        TrainingDiverged: If the loss is not finite.
        TrainingStopped: If ``keeping.stop`` returned true; the checkpoint is written.
        DataError: If the data set is missing or damaged.
        ArchitectureError: If :func:`build_model` cannot build the network.
        PackageError: If :func:`build_model` cannot load the weights.
        InputError: If the weights are for another number of image channels.
        MemoryExhausted: If the device has no memory left; the message says what makes the training smaller.
    """
    watch, keeping = watch or Watch(), keeping or Keeping()
    splits = open_splits(request, data_roots, workers)
    model, notes = build_model(request, splits)
    if keeping.loggers is None or not Processes.current().first:
        return _train(model, splits, notes, request, out, device, resume, watch, keeping)
    # After the data and the network, whose faults must leave no folder behind.
    with logged(out, request, keeping.loggers, watch.note) as loggers:
        result = _train(model, splits, notes, request, out, device, resume, watched(watch, loggers), keeping)
        loggers.result(request.epochs, result.candidate)
        return result


def watched(watch: Watch, loggers: Loggers) -> Watch:
    """Return a watch that opens the loggers when the training starts, and gives them its epochs."""

    def start(text: str) -> None:
        loggers.start()
        watch.start(text)

    def epoch(progress: EpochProgress) -> None:
        loggers.epoch(progress)
        watch.epoch(progress)

    return replace(watch, start=start, epoch=epoch)


def _train(
    model: nn.Module,
    splits: DataSplits,
    notes: Sequence[str],
    request: TrainRequest,
    out: Path,
    device: torch.device | str,
    resume: bool,
    watch: Watch,
    keeping: Keeping,
) -> TrainResult:
    processes = Processes.current()
    notes = [*splits.left_out, *notes]
    shared = f", {processes.count} processes" if processes.several else ""
    watch.start(
        f"training {request.architecture.model} on {len(splits.train):,} images of {splits.info.name} "
        f"from {request.origin}, {format_number(request.epochs, 'epoch')} on {device}{shared}"
    )
    for text in notes:
        watch.note(text)
    if processes.first:
        out.mkdir(parents=True, exist_ok=True)
        request.save(out)
    result = _fit(model, splits, request, out, device, resume, watch, keeping)
    found = [(PACKAGE, model, result.history[-1].evaluation)]
    if result.average is not None:
        found.append((AVERAGE, result.average, result.history[-1].average))
    packages = []
    for name, network, validation in found:
        scores, missing = _final_scores(network, splits, validation, device, processes)
        candidate = _candidate(network.cpu().eval(), splits, request, scores)
        if processes.first:
            _write_package(out / name, network, candidate, request, splits)
        packages.append((out / name, candidate))
    for text in filter(None, (missing, told_skipped(splits, processes))):
        notes.append(text)
        watch.note(text)
    return TrainResult(*packages[0], tuple(notes), packages[1] if len(packages) > 1 else None, result.history)


def _checkpoints(out: Path, resume: bool, keeping: Keeping) -> Path | KeptCheckpoints:
    kept = KeptCheckpoints(out / CHECKPOINTS, keeping.keep, keeping.minutes, keeping.published)
    if resume and Processes.current().first:
        for folder in (out / STORAGE).glob(f"*/{CHECKPOINTS}"):
            adopt_newest(folder, kept.folder)
    Processes.current().wait()
    old = out / _FIRST_VERSION
    return old if resume and old.is_file() and not kept.files() else kept


def adopt_newest(source: Path, target: Path) -> None:
    """Copy the newest checkpoint of another folder, if any: a training continues wherever it was interrupted."""
    for path in KeptCheckpoints(source).files()[:1]:
        if not (target / path.name).exists():
            target.mkdir(parents=True, exist_ok=True)
            with whole_file(target / path.name) as fresh:
                shutil.copyfile(path, fresh)


def _final_scores(
    network: nn.Module,
    splits: DataSplits,
    validation: EvaluationResult | None,
    device: torch.device | str,
    processes: Processes,
) -> tuple[dict[str, EvaluationResult], str]:
    """Return the scores by data split, and why there is no test score; empty if there is one."""
    found = {} if validation is None else {"validation": validation}
    try:
        batches = splits.test.batches(EVALUATION_BATCH, device=device, part=processes.part)
        found["test"] = evaluate(network, batches, device=device, processes=processes)
    except DataError as error:  # the trained network is worth keeping without a test score
        return found, f"no test score: {error}"
    return found, ""


def told_skipped(splits: DataSplits, processes: Processes) -> str:
    """Return a sentence about the images that were skipped; "" if there are none."""
    # Several processes may have met one image, in different epochs.
    reasons = dict.fromkeys(reason for own in processes.gathered(splits.skipped) for reason in own)
    if not reasons:
        return ""
    return f"skipped {format_number(len(reasons), 'image')} that cannot be read, such as {next(iter(reasons))}"


def _fit(
    model: nn.Module,
    splits: DataSplits,
    request: TrainRequest,
    out: Path,
    device: torch.device | str,
    resume: bool,
    watch: Watch,
    keeping: Keeping,
) -> FitResult:
    part = Processes.current().part
    smaller = {"batch_size": request.batch_size, "image_size": request.data.size}
    with memory_explained(torch.device(device), smaller):
        return fit(
            model,
            batches_of(request, splits, device, part, uneven=keeping.most is not None),
            splits.validation.batches(EVALUATION_BATCH, device=device, part=part),
            recipe=request.recipe,
            epochs=request.epochs,
            seed=request.seed,
            device=device,
            callback=watch.epoch,
            checkpoint=_checkpoints(out, resume, keeping),
            resume=resume,
            teacher=teacher_for(request.recipe, splits),
            on_step=watch.step,
            stop=keeping.stop,
            most=keeping.most,
        )


def batches_of(
    request: TrainRequest,
    splits: DataSplits,
    device: torch.device | str,
    part: tuple[int, int] = (0, 1),
    *,
    uneven: bool = False,
) -> Batches:
    """Return the training batches of a request, or one process's part of them, which may be ``uneven``."""
    return training_batches(
        splits, request.batch_size, request.seed, request.data.augment, device, request.recipe, part=part, uneven=uneven
    )  # fmt: skip


def _write_package(
    folder: Path, model: nn.Module, candidate: Candidate, request: TrainRequest, splits: DataSplits
) -> None:
    info = splits.info
    preprocessing = Preprocessing(
        info.name, info.class_names, info.input_shape, info.mean, info.std, info.crop, info.interpolation
    )
    settings = {
        "started from": request.origin,
        "epochs": request.epochs,
        "batch size": request.batch_size,
        "seed": request.seed,
        **{key.replace("_", " "): value for key, value in request.recipe.decisive().items()},
    }
    card = training_card(candidate, request.data, settings)
    save_package(folder, model, preprocessing, readme=card, overwrite=True)


def _candidate(
    model: nn.Module, splits: DataSplits, request: TrainRequest, found: dict[str, EvaluationResult]
) -> Candidate:
    evaluations = tuple(
        evaluation
        for name, result in found.items()
        for evaluation in evaluations_of(EvaluationKind.RETRAINED, result, request.seed, request.epochs, name)
    )
    return candidate_of(model, splits.info.input_shape, evaluations)
