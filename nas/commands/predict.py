"""``nas predict``: classifies images with an exported network."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.commands.options import console, note, plain_table
from nas.errors import as_name

if TYPE_CHECKING:
    from partialnet.package import Package

Found = tuple[Path, list[tuple[str, float]]]


def predict(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An exported network.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    top: Annotated[int, typer.Option("--top", metavar="K", min=1, help="Number of classes shown for each image.")] = 3,
    background: Annotated[
        int,
        typer.Option(
            "--background", metavar="LEVEL", min=0, max=255,
            help="Grey level behind transparent pixels: 0 is black, 255 white.",
        ),
    ] = 255,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Classify images with an exported network.

    Any number of images: one at a time is in memory. Those that cannot be read are named at the end, with exit code 2.

    \b
    Examples:
      nas predict digits-3 seven.png
      nas predict digits-3 *.png --top 1 --json
    """
    from partialnet.package import load_package

    package = load_package(folder)
    shown = min(top, len(package.preprocessing.class_names))
    unreadable: list[str] = []
    found = _classify(package, images, shown, background, unreadable.append)
    if as_json:
        _print_json(found)
    else:
        _print_table(found, shown)
    for message in unreadable:
        note(f"nas: {message}")
    if unreadable:
        raise typer.Exit(2)


def _classify(
    package: Package, images: Sequence[Path], shown: int, background: int, refuse: Callable[[str], None]
) -> Iterator[Found]:
    """Yield each image with its likeliest classes; one image at a time is in memory.

    ``refuse`` receives the error of an image that cannot be read, so that the others are not lost.
    """
    import torch

    from partialnet.data.images import preprocess_image
    from partialnet.errors import DataError
    from partialnet.fuse import fuse

    names = package.preprocessing.class_names
    network = fuse(package.model)
    for path in images:
        try:
            image = preprocess_image(path, package.preprocessing, background=background)
        except DataError as error:
            refuse(str(error))
            continue
        with torch.inference_mode():
            best = network(image).softmax(1)[0].topk(shown)
        yield path, [(names[int(k)], float(p)) for p, k in zip(*best, strict=True)]


def _print_json(found: Iterator[Found]) -> None:
    """Print a JSON array, each entry as soon as it is there."""
    before = "["
    for path, best in found:
        classes = [{"name": name, "probability": probability} for name, probability in best]
        entry = json.dumps({"image": str(path), "classes": classes}, indent=2, ensure_ascii=False)
        print(before, textwrap.indent(entry, "  "), sep="\n", end="", flush=True)
        before = ","
    print("[]" if before == "[" else "\n]")


def _print_table(found: Iterator[Found], shown: int) -> None:
    table = plain_table("image", *(f"{k + 1}." for k in range(shown)))
    for path, best in found:
        table.add_row(as_name(path), *(f"{as_name(name)} ({100 * p:.1f} %)" for name, p in best))
    if table.row_count:
        console().print(table)
