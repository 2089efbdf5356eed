"""``nas predict``: what an exported network sees in images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nas.commands.options import as_name, console, plain_table


def predict(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An exported network.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    top: Annotated[int, typer.Option("--top", metavar="K", min=1, help="Classes shown per image.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Classify images with an exported network.

    \b
    Examples:
      nas predict digits-3 seven.png
      nas predict digits-3 *.png --top 1 --json
    """
    import torch

    from partialnet.data.images import preprocess_image
    from partialnet.fuse import fuse
    from partialnet.package import load_package

    package = load_package(folder)
    names = package.preprocessing.class_names
    # All images are read first: a broken one is reported before anything is printed.
    inputs = [preprocess_image(path, package.preprocessing) for path in images]
    network = fuse(package.model)
    rows: list[tuple[Path, list[tuple[str, float]]]] = []
    with torch.inference_mode():
        for path, image in zip(images, inputs, strict=True):
            best = network(image).softmax(1)[0].topk(min(top, len(names)))
            rows.append((path, [(names[int(k)], float(p)) for p, k in zip(*best, strict=True)]))
    if as_json:
        found = [
            {"image": str(path), "classes": [{"name": name, "probability": p} for name, p in best]}
            for path, best in rows
        ]
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    table = plain_table("image", *(f"{k + 1}." for k in range(min(top, len(names)))))
    for path, best in rows:
        table.add_row(as_name(path), *(f"{as_name(name)} ({100 * p:.1f} %)" for name, p in best))
    console().print(table)
