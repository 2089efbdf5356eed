"""``nas train``: trains a fixed architecture, from scratch or from exported weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from nas.commands.options import CandidateRef, Database, DataRoots, Storage, settings_from
from nas.commands.remote import Server, server_of
from nas.commands.train_run import Keeping, Place, check_sight, print_forecast, start_training
from nas.commands.train_settings import data_spec, given_settings, settings_of
from nas.definition.recipe import SCRATCH_RATE, WEIGHTS_RATE
from nas.errors import InputError
from partialnet.architecture import Architecture
from partialnet.errors import PackageError
from partialnet.train.named_recipes import recipe_names
from partialnet.train.recipe import Precision

KEPT = 3
_RECIPE = "How it is trained"
_PLACE = "Where and how it runs"


def train(
    architecture: Annotated[
        Path | None, typer.Option("--architecture", metavar="FILE", help="architecture.json of an export or a trial.")
    ] = None,
    package: Annotated[
        Path | None,
        typer.Option("--package", metavar="DIR", help="An exported network: its architecture and its weights."),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option("--study", metavar="STUDY", help="Study whose trial found the network; needs --trial."),
    ] = None,
    trial: Annotated[int | None, typer.Option("--trial", metavar="NUMBER", min=0, help="Trial of --study.")] = None,
    candidate: CandidateRef = None,
    from_weights: Annotated[
        bool, typer.Option("--from-weights", help="Start from the weights of the trial instead of random ones.")
    ] = False,
    queue: Annotated[
        bool, typer.Option("--queue", help="Leave the training of --study to a worker.", rich_help_panel=_PLACE)
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            help="Weights to start from: model.safetensors, or a checkpoint, also one of timm; needs --architecture.",
        ),
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Use random weights instead of those of --package.")
    ] = False,
    data: Annotated[str | None, typer.Option("--data", metavar="NAME", help="Data set; see nas datasets.")] = None,
    folder: Annotated[
        str | None,
        typer.Option("--folder", metavar="NAME", help="Folder under a data root; for images of your own (image_...)."),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", metavar="PIXELS", help="Side \\[the package's or the data set's]")
    ] = None,
    train_limit: Annotated[
        int | None, typer.Option("--train-limit", metavar="N", help="Use only N training images.")
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave images out that cannot be read, and count them.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for checkpoints and the result (DIR/package).")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="DIR", help="Resume the training in DIR with its own settings.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", metavar="NAME", help=f"Settings by name: {', '.join(recipe_names())}.", rich_help_panel=_RECIPE
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting of the recipe, such as mixup=0.2; may be given several times.",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="\\[that of the recipe; 20]", rich_help_panel=_RECIPE)
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            min=2,
            help="Images in a step, over all processes \\[that of the recipe; 128]",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            min=1e-9,
            max=10.0,
            help=f"Peak rate \\[that of the recipe; {SCRATCH_RATE:g} from scratch, {WEIGHTS_RATE:g} from weights]",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, rich_help_panel=_RECIPE)] = 0,
    precision: Annotated[
        Precision | None,
        typer.Option(
            "--precision",
            help="bfloat16 and float16 by autocast; float16 scales gradients as well \\[that of the recipe; float32]",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    compile_steps: Annotated[
        bool,
        typer.Option(
            "--compile", help="Steps by torch.compile: worth its minutes on a GPU.", rich_help_panel=_RECIPE
        ),
    ] = False,
    processes: Annotated[
        int,
        typer.Option(
            "--processes", metavar="N", min=1, max=1024, help="Processes that share each batch: one for each GPU.",
            rich_help_panel=_PLACE,
        ),
    ] = 1,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            max=256,
            help="Threads of each process that decode and augment image files \\[its processors, at most 8]",
            rich_help_panel=_PLACE,
        ),
    ] = None,
    worker_processes: Annotated[
        bool,
        typer.Option(
            "--worker-processes", help="Decode and augment in processes instead of threads, N of --workers.",
            rich_help_panel=_PLACE,
        ),
    ] = False,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="ADDRESS",
            help="Run the processes on a Ray cluster: HOST:PORT, 'auto', or 'local' for a private Ray.",
            rich_help_panel=_PLACE,
        ),
    ] = None,
    least: Annotated[
        int | None,
        typer.Option(
            "--least-processes",
            metavar="M",
            min=1,
            help="Continue with as few as M processes where a cluster has lost some; batches stay the same.",
            rich_help_panel=_PLACE,
        ),
    ] = None,
    minutes: Annotated[
        float,
        typer.Option(
            "--checkpoint-minutes",
            metavar="M",
            min=0,
            help="Checkpoints within an epoch, M minutes apart; 0 for none.",
            rich_help_panel=_PLACE,
        ),
    ] = 10.0,
    keep: Annotated[
        int,
        typer.Option(
            "--keep", metavar="K", min=1, help="Newest checkpoints to keep, besides the best.", rich_help_panel=_PLACE
        ),
    ] = KEPT,
    loggers: Annotated[
        list[str] | None,
        typer.Option(
            "--logger",
            metavar="NAME",
            help="Send the curves to mlflow or wandb as well; TensorBoard's are in DIR/events.",
            rich_help_panel=_PLACE,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Take a few steps on this machine; print steps, memory, speed, hours. Writes nothing.",
            rich_help_panel=_PLACE,
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --dry-run or --queue: print JSON.", rich_help_panel=_PLACE)
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            "--device", metavar="NAME", help="cpu, cuda or cuda:1 \\[a GPU if there is one]", rich_help_panel=_PLACE
        ),
    ] = None,
    data_root: DataRoots = None,
    database: Database = None,
    storage: Storage = None,
    server: Server = None,
) -> None:
    """Train a fixed architecture, from scratch or from exported weights.

    A checkpoint is written after each epoch and every few minutes. Ctrl-C and SIGTERM write one as well, and --resume
    continues at the very image. Test images are used once, at the end; the score is of kind 'retrained'.

    With --study, the training belongs to the database: nas trainings shows, stops and resumes it, its score goes back
    to the network of the trial, and its data set is that of the study unless --data names another one.

    \b
    Examples:
      nas train --architecture digits-3.json --data digits --out runs/scratch
      nas train --package digits-3 --data digits --recipe finetune --epochs 5 --out runs/on
      nas train --architecture t2.json --data image_folder --folder imagenet --recipe paper_t2 --processes 8 --out t2
      nas train --study latest --trial 3 --recipe small_images --epochs 20 --out trained
      nas train --study latest --trial 3 --queue
      nas train --resume runs/scratch
    """
    settings = settings_from(database, storage, data_root, ray_address if study is not None else None)
    if as_json and not (dry_run or queue):
        raise InputError("--json works only with --dry-run and --queue")
    if loggers:
        from nas.training.loggers import check_loggers

        check_loggers(loggers)
    keeping = Keeping(minutes, keep, tuple(loggers or ()))
    place = Place(settings.data_roots, device, processes, keeping, workers, ray_address, least, worker_processes)
    place.check()
    flags = {
        "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "precision": precision,
        "compile": compile_steps or None, "image_size": image_size,
    }  # fmt: skip
    others = {
        "--architecture": architecture, "--package": package, "--weights": weights, "--from-scratch": from_scratch,
        "--resume": resume, "--dry-run": dry_run, "--keep": None if keep == KEPT else keep, "--workers": workers,
        "--worker-processes": worker_processes, "--least-processes": least, "--logger": loggers or None,
    }  # fmt: skip
    own = {
        "--trial": trial, "--candidate": candidate, "--from-weights": from_weights, "--queue": queue,
        "--database": database, "--storage": storage, "--server": server,
    }  # fmt: skip
    _refuse_together(study is not None, "--study", others if study is not None else own)
    if study is not None:
        if ray_address is not None and (queue or server_of(server, database, settings) is not None):
            raise InputError(
                "--ray-address works only for a training in this process, without --queue and a service: the worker's "
                "own --ray-address decides"
            )
        from nas.commands.train_study import requested, start_study_training

        data_of = _data_given(data, folder, train_limit, skip_broken)
        wanted = requested({
            "study": study, "trial": trial, "candidate": candidate, "start": "weights" if from_weights else None,
            "data": data_of, "recipe": recipe, "settings": given_settings(flags, changes or ()), "seed": seed,
            "processes": processes, "device": device, "checkpoint_minutes": minutes,
        })  # fmt: skip
        start_study_training(wanted, settings, out, server=server, database=database, queue=queue, as_json=as_json)
        return
    if resume is not None:
        given = (architecture, package, weights, data, folder, train_limit, out, recipe, changes, *flags.values())
        if from_scratch or dry_run or skip_broken or any(value is not None for value in given):
            raise InputError(
                "--resume takes everything from its folder; only --processes, --ray-address, --least-processes, "
                "--workers, --worker-processes, --checkpoint-minutes, --keep, --logger, --device and --data-root can "
                "be added"
            )
        start_training(None, resume, place)
        return
    if out is None and not dry_run:
        raise InputError("--out is missing: the folder for checkpoints and the result")
    if data is None:
        raise InputError("--data is missing: the name of a data set; `nas datasets` lists them")
    found, start, size = _source(architecture, package, weights, from_scratch)
    chosen = settings_of(recipe, flags, changes or (), from_weights=start is not None)
    spec = data_spec(data, folder, chosen.image_size or size, train_limit, skip_broken=skip_broken)
    check_sight(spec, {text.partition("=")[0].strip() for text in changes or ()})
    from nas.definition.training import TrainRequest

    request = TrainRequest(found, spec, chosen.recipe(), chosen.epochs, chosen.batch_size, seed, start)
    if dry_run:
        print_forecast(request, place, as_json=as_json)
        return
    assert out is not None
    start_training(request, out, place)


def _refuse_together(with_study: bool, name: str, flags: Mapping[str, object]) -> None:
    """Refuse flags that do not work with ``name``, or only with it."""
    given = [flag for flag, value in flags.items() if value is not None and value is not False]
    if given:
        raise InputError(f"{given[0]} {'does not work' if with_study else 'works only'} with {name}")


def _data_given(
    name: str | None, folder: str | None, train_limit: int | None, skip_broken: bool
) -> dict[str, Any] | None:
    """Return the data section of a request; None for that of the study."""
    if name is None and (folder is not None or train_limit is not None or skip_broken):
        raise InputError("--folder, --train-limit and --skip-broken need --data")
    skipping = {"skip_broken": True} if skip_broken else {}
    return None if name is None else {"name": name, "folder": folder, "train_limit": train_limit, **skipping}


def _source(
    architecture: Path | None, package: Path | None, weights: Path | None, from_scratch: bool
) -> tuple[Architecture, Path | None, int | None]:
    """Return the architecture, the weights to start from, and the image size that it was built for."""
    if (architecture is None) == (package is None):
        raise InputError("give either --architecture FILE or --package DIR")
    if architecture is not None:
        if from_scratch:
            raise InputError("--from-scratch works only with --package; --architecture alone starts from scratch")
        if weights is not None and not weights.is_file():
            raise PackageError(f"--weights {weights}: there is no such file")
        return Architecture.load(architecture), weights, None
    assert package is not None
    if weights is not None:
        raise InputError("--weights works only with --architecture; --package brings its own weights")
    from partialnet.package import WEIGHTS, load_package

    loaded = load_package(package)
    size = loaded.preprocessing.input_shape[1]
    return loaded.architecture, None if from_scratch else package / WEIGHTS, size
