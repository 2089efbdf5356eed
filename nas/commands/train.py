"""``nas train``: a fixed architecture, from scratch or from exported weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nas.candidate import Candidate
from nas.commands.options import DataRoots, console, note, say, settings_from
from nas.definition.sections import DataSpec
from nas.definition.words import in_words
from nas.errors import InputError
from nas.formatting import format_value
from nas.metrics import METRICS
from partialnet.architecture import Architecture
from partialnet.errors import PackageError
from partialnet.train.recipe import Precision, Recipe

if TYPE_CHECKING:
    from nas.definition.training import TrainRequest
    from nas.training.standalone import Watch
    from partialnet.train import EpochProgress

_SCRATCH_RATE, _WEIGHTS_RATE = 2e-3, 5e-4
_RECIPE = "How it is trained"


def train(
    architecture: Annotated[
        Path | None, typer.Option("--architecture", metavar="FILE", help="architecture.json of an export or a trial.")
    ] = None,
    package: Annotated[
        Path | None,
        typer.Option("--package", metavar="DIR", help="An exported network: its architecture and its weights."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", metavar="FILE", help="With --architecture: model.safetensors to start from."),
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="With --package: random weights instead of the exported ones.")
    ] = False,
    data: Annotated[str | None, typer.Option("--data", metavar="NAME", help="Data set; see nas datasets.")] = None,
    folder: Annotated[
        str | None, typer.Option("--folder", metavar="NAME", help="image_folder only: folder under a data root.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", metavar="PIXELS", help="The package's, else the data set's own.")
    ] = None,
    train_limit: Annotated[
        int | None, typer.Option("--train-limit", metavar="N", help="Use N training images only.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for checkpoints and the result (DIR/package).")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="DIR", help="Go on with the training in DIR; takes all from it.")
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, rich_help_panel=_RECIPE)] = 20,
    batch_size: Annotated[int, typer.Option("--batch-size", min=2, rich_help_panel=_RECIPE)] = 128,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            min=1e-9,
            max=10.0,
            help=f"Peak; {_SCRATCH_RATE:g} from scratch, {_WEIGHTS_RATE:g} from weights if not given.",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, rich_help_panel=_RECIPE)] = 0,
    precision: Annotated[
        Precision,
        typer.Option(
            "--precision",
            help="bfloat16 and float16 by autocast; float16 scales gradients as well.",
            rich_help_panel=_RECIPE,
        ),
    ] = "float32",
    compile_steps: Annotated[
        bool,
        typer.Option(
            "--compile", help="Steps by torch.compile: worth its minutes on a GPU.", rich_help_panel=_RECIPE
        ),
    ] = False,
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1; a GPU if there is one.")
    ] = None,
    data_root: DataRoots = None,
) -> None:
    """Train a fixed architecture, from scratch or from exported weights.

    A checkpoint is written after every epoch; Ctrl-C loses at most the epoch it interrupts. Test images are looked at
    once, at the end; the score is of kind 'retrained'.

    \b
    Examples:
      nas train --architecture digits-3.json --data digits --out runs/scratch
      nas train --package digits-3 --data digits --epochs 5 --out runs/on
      nas train --resume runs/scratch
    """
    settings = settings_from(data_roots=data_root)
    if resume is not None:
        given = (architecture, package, weights, data, folder, image_size, train_limit, out)
        if from_scratch or any(value is not None for value in given):
            raise InputError("--resume takes everything from its folder; give --device and --data-root besides at most")
        _run(None, resume, settings.data_roots, device)
        return
    if out is None:
        raise InputError("--out is missing: the folder for checkpoints and the result")
    if data is None:
        raise InputError("--data is missing: the name of a data set; `nas datasets` lists them")
    found, start, size = _source(architecture, package, weights, from_scratch)
    rate = learning_rate or (_SCRATCH_RATE if start is None else _WEIGHTS_RATE)
    spec = _data_spec(data, folder, image_size or size, train_limit)
    from nas.definition.training import TrainRequest
    from nas.training.standalone import check_folder

    check_folder(out)
    recipe = Recipe(learning_rate=rate, precision=precision, compile=compile_steps)
    _run(
        TrainRequest(found, spec, recipe, epochs, batch_size, seed, start),
        out,
        settings.data_roots,
        device,
    )


def _source(
    architecture: Path | None, package: Path | None, weights: Path | None, from_scratch: bool
) -> tuple[Architecture, Path | None, int | None]:
    """Return the architecture, the weights to start from, and the image size it was made for."""
    if (architecture is None) == (package is None):
        raise InputError("give either --architecture FILE or --package DIR")
    if architecture is not None:
        if from_scratch:
            raise InputError("--from-scratch goes with --package; --architecture alone starts from scratch")
        if weights is not None and not weights.is_file():
            raise PackageError(f"--weights {weights}: there is no such file")
        return Architecture.load(architecture), weights, None
    assert package is not None
    if weights is not None:
        raise InputError("--weights goes with --architecture; --package brings its own weights")
    from partialnet.package import WEIGHTS, load_package

    loaded = load_package(package)
    size = loaded.preprocessing.input_shape[1]
    return loaded.architecture, None if from_scratch else package / WEIGHTS, size


def _data_spec(name: str, folder: str | None, image_size: int | None, train_limit: int | None) -> DataSpec:
    values: dict[str, Any] = {
        "name": name, "folder": folder, "image_size": image_size, "train_limit": train_limit
    }  # fmt: skip
    try:
        return DataSpec(**values)
    except ValidationError as error:
        item = error.errors()[0]
        flags = {"name": "--data", "folder": "--folder", "image_size": "--image-size", "train_limit": "--train-limit"}
        where = flags.get(str(item["loc"][0]), "") if item["loc"] else "--data"
        value = name if where == "--data" else item.get("input")
        raise InputError(f"{where} {value}: {in_words(item)}") from None


def _run(request: TrainRequest | None, out: Path, data_roots: tuple[Path, ...], device: str | None) -> None:
    from nas.definition.training import TrainRequest
    from nas.training.standalone import train_alone
    from partialnet.train import select_device

    where = select_device(device)
    resume = request is None
    request = TrainRequest.load(out) if request is None else request
    printer = console()
    try:
        with _progress(printer) as watch:
            result = train_alone(request, out, data_roots, device=where, resume=resume, watch=watch)
    except KeyboardInterrupt:
        if (out / "training.json").is_file():
            note(f"stopped; go on with: nas train --resume {out}")
        raise typer.Exit(130) from None
    _print_result(printer, result.candidate)
    say(printer, f"wrote {result.package}; try: nas predict {result.package} IMAGE")


@contextmanager
def _progress(printer: Console) -> Iterator[Watch]:
    from nas.training.standalone import Watch

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
        validation = progress.evaluation
        score = "" if validation is None else f"  validation top-1 {100 * validation.top1:.2f} %"
        say(
            printer,
            f"epoch {progress.epoch}/{progress.epochs}  loss {progress.loss:.4f}{score}  "
            f"learning rate {progress.learning_rate:.2g}  {progress.images_per_second:,.0f} images/s",
        )

    with bar:
        yield Watch(start=lambda text: say(printer, text), step=lambda: bar.advance(task), epoch=epoch, note=note)


def _print_result(printer: Console, candidate: Candidate) -> None:
    for split in dict.fromkeys(item.data_split for item in candidate.evaluations):
        scores = ", ".join(
            f"{METRICS[item.metric].label} {format_value(item.metric, item.value)}"
            for item in candidate.evaluations
            if item.data_split == split
        )
        say(printer, f"retrained, {split} data: {scores}")
