"""``nas cam``: where a network looks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.commands.model import NetworkRef, Options, Ratio, Size, load_named
from nas.commands.options import console, note, say
from nas.errors import InputError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from nas.networks.cam import Map, Tile
    from nas.networks.named import LoadedNetwork
    from partialnet.package import Preprocessing


def cam(
    network: NetworkRef,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Picture to write, such as overlay.png.")],
    target: Annotated[
        str | None, typer.Option("--class", metavar="NAME|INDEX", help="Class to explain; the predicted one if absent.")
    ] = None,
    tile: Annotated[
        int, typer.Option("--tile", metavar="PIXELS", min=32, max=2048, help="Side of each picture.")
    ] = 224,
    size: Size = None,
    ratio: Ratio = None,
    option: Options = None,
) -> None:
    """Show where a network looks: Grad-CAM over an image, for each stage, and the gates of its spatial attention.

    First row: the image, and over it what speaks for the class in the map of each stage, the last map at the right.
    Second row, of a PartialNet: the gate that PAT_sp of the last block of each stage puts on every position, from its
    least (dark blue) to its greatest value (yellow).

    \b
    Examples:
      nas cam my-network seven.png --out overlay.png
      nas cam my-network seven.png --class 3 --out three.png
    """
    from PIL import Image as Pillow

    _check_out(out, Pillow.registered_extensions())
    from nas.networks.cam import sheet
    from partialnet.data.images import preprocess_image

    loaded = load_named(network, size, ratio, option)
    inputs = preprocess_image(image, loaded.preprocessing)
    label, rows = _rows(loaded, image, inputs, target, tile)
    out_image = sheet(rows, tile)
    try:
        out_image.save(out)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written to ({error.strerror or error})") from error
    say(console(), f"{loaded.title}: {label}")
    if not loaded.trained:
        note("the weights are random: the picture shows how it is made, and nothing that a network has learned")
    say(console(), f"wrote {out}")


def _check_out(path: Path, known: dict[str, str]) -> None:
    if path.suffix.lower() not in known:
        raise InputError(f"--out {path}: the suffix says no picture format, such as .png or .jpg")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--out {path}: the folder {path.absolute().parent} does not exist")


def _rows(
    loaded: LoadedNetwork, image: Path, inputs: Tensor, target: str | None, side: int
) -> tuple[str, list[list[Tile]]]:
    """Return what is explained, in words, and the pictures."""
    import torch

    from nas.networks.cam import Tile, grad_cams, overlay, spatial_gates, stages

    with torch.no_grad():
        probabilities = loaded.network(inputs).softmax(1)[0]
    index = int(probabilities.argmax()) if target is None else _class_index(target, loaded, len(probabilities))
    label = f"{_class_name(index, loaded.preprocessing)}, probability {100 * float(probabilities[index]):.1f} %"
    picture = _picture(image, loaded.preprocessing, side)
    layers = stages(loaded.network)
    maps = grad_cams(loaded.network, inputs, layers, index)
    rows = [[Tile("image", picture), *(Tile(name, overlay(picture, found)) for name, found in maps.items())]]
    gates = spatial_gates(loaded.network, inputs)
    last = {stage: name for stage in layers for name in gates if name.startswith(f"{stage}.")}
    if last:
        rows.append([Tile("gates of PAT_sp", picture), *(_gate_tile(s, gates[name], side) for s, name in last.items())])
    return label, rows


def _gate_tile(stage: str, gate: Map, side: int) -> Tile:
    """Return a gate as a picture; its colours span the range that its name tells."""
    from nas.networks.cam import Tile, colored

    low, high = float(gate.min()), float(gate.max())
    scaled = (gate - low) / max(high - low, 1e-6)
    return Tile(f"{stage}: {low:.2f}-{high:.2f}", colored(scaled, (side, side)))


def _class_name(index: int, preprocessing: Preprocessing) -> str:
    return f"class {preprocessing.class_names[index]}" if preprocessing.class_names else f"class {index}"


def _class_index(given: str, loaded: LoadedNetwork, count: int) -> int:
    names = loaded.preprocessing.class_names
    if given in names:
        return names.index(given)
    if given.isdigit() and int(given) < count:
        return int(given)
    known = f"{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}, or an index" if names else "an index"
    raise InputError(f"--class {given}: give {known} from 0 to {count - 1}")


def _picture(path: Path, preprocessing: Preprocessing, side: int) -> Image.Image:
    """Return the image as the network sees it, cut to a square, in the size of a tile."""
    from partialnet.data.images import open_image, square

    seen = square(open_image(path, preprocessing.input_shape[0]), preprocessing.input_shape[1])
    return seen.convert("RGB").resize((side, side))
