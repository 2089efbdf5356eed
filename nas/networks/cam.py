"""Where a network looks: Grad-CAM of its stages (by pytorch-grad-cam), and the gates of its spatial attention.

Grad-CAM weighs the channels of a map by the mean gradient of a class's logit, and keeps what speaks for the class
(arXiv 1610.02391). The gate of PAT_sp is attention as the network itself computes it: one factor per position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from nas.errors import InputError
from partialnet.layers.spatial_attention import FullSpatialAttention, PartialSpatialAttention

Map = NDArray[np.float32]
_GAP, _BAND = 6, 22  # pixels between tiles, and above them for their names


class Tile(NamedTuple):
    """A picture with its name."""

    name: str
    image: Image.Image


def stages(network: nn.Module) -> dict[str, nn.Module]:
    """Return the modules whose outputs are the maps of the stages, by name, in forward order.

    Raises:
        InputError: If the network does not say what its stages are.
    """
    known = getattr(network, "feature_info", None)
    names = [entry["module"] for entry in known if entry.get("module")] if isinstance(known, list) else []
    if not names:
        raise InputError(f"{type(network).__name__} does not say what its stages are, so there is nothing to look at")
    return {name: network.get_submodule(name) for name in names}


def grad_cams(network: nn.Module, image: Tensor, layers: Mapping[str, nn.Module], target: int) -> dict[str, Map]:
    """Return how much each place of an image speaks for a class, seen in the map of each layer.

    Args:
        network: In eval mode.
        image: [1, C, H, W].
        layers: Name to module; outputs are maps [1, C, h, w].
        target: Index of the class.

    Returns:
        Per layer, values in [0, 1] at the image's size; 0 everywhere if nothing of the map speaks for the class.

    Raises:
        InputError: If pytorch-grad-cam is not installed, or an output is no map.
    """
    grad_cam, classifier_target = _library()
    found = {}
    for name, layer in layers.items():
        _check_map(network, image, name, layer)
        with grad_cam(model=network, target_layers=[layer]) as cam:
            found[name] = np.asarray(cam(input_tensor=image, targets=[classifier_target(target)])[0], dtype=np.float32)
    network.zero_grad(set_to_none=True)
    return found


def _library() -> tuple[Any, Any]:
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError as error:
        raise InputError(
            f"Grad-CAM needs the package grad-cam ({error}); install it: pip install 'partialnet-nas[cam]'"
        ) from None
    return GradCAM, ClassifierOutputTarget


def _check_map(network: nn.Module, image: Tensor, name: str, layer: nn.Module) -> None:
    outputs: list[Any] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        with torch.no_grad():
            network(image)
    finally:
        handle.remove()
    is_map = len(outputs) == 1 and isinstance(outputs[0], Tensor) and outputs[0].dim() == 4
    if not is_map or getattr(network, "output_fmt", "NCHW") != "NCHW":
        shape = list(outputs[0].shape) if outputs and isinstance(outputs[0], Tensor) else "nothing"
        raise InputError(f"{name} of {type(network).__name__} gives {shape}, but Grad-CAM needs a map [1, C, H, W]")


def spatial_gates(network: nn.Module, image: Tensor) -> dict[str, Map]:
    """Return the gate of every spatial attention (PAT_sp), by module name in forward order.

    Args:
        network: In eval mode, in the training form; others have none.
        image: [1, C, H, W].

    Returns:
        Per module, the factor in [0, 1] at every position of its map.
    """
    found: dict[str, Map] = {}

    def record(name: str, output: Tensor) -> None:
        found[name] = F.hardsigmoid(output)[0, 0].numpy()

    handles = [
        module.gate.register_forward_hook(lambda _module, _inputs, output, name=name: record(name, output))
        for name, module in network.named_modules()
        if isinstance(module, (PartialSpatialAttention, FullSpatialAttention))
    ]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    return found


def overlay(picture: Image.Image, values: Map, *, share: float = 0.5) -> Image.Image:
    """Lay values in [0, 1] over a picture as colours, from dark blue (0) to yellow (1).

    Args:
        picture: RGB.
        values: [H, W]; scaled to the picture's size.
        share: Of the colours in the result.
    """
    scaled = Image.fromarray(values.astype(np.float32)).resize(picture.size, Image.Resampling.BILINEAR)
    return Image.blend(picture, _colored(np.asarray(scaled)), share)


def colored(values: Map, size: tuple[int, int]) -> Image.Image:
    """Return values in [0, 1] as colours, each position a rectangle."""
    return _colored(values).resize(size, Image.Resampling.NEAREST)


def _colored(values: NDArray[Any]) -> Image.Image:
    # Brightness grows evenly with the value, so that it can be read without colours as well.
    from matplotlib import colormaps

    return Image.fromarray((colormaps["cividis"](np.clip(values, 0, 1))[..., :3] * 255).round().astype(np.uint8))


def sheet(rows: Sequence[Sequence[Tile]], side: int) -> Image.Image:
    """Put square pictures side by side, each under its name; a row below the other.

    Args:
        rows: Of tiles, not all of them as long.
        side: Of a tile, in pixels.
    """
    width = max(len(row) for row in rows) * (side + _GAP) - _GAP
    canvas = Image.new("RGB", (width, len(rows) * (side + _BAND + _GAP) - _GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=12)
    for i, row in enumerate(rows):
        top = i * (side + _BAND + _GAP)
        for j, tile in enumerate(row):
            left = j * (side + _GAP)
            draw.text((left, top + 4), tile.name, fill="black", font=font)
            canvas.paste(tile.image.resize((side, side), Image.Resampling.BICUBIC), (left, top + _BAND))
    return canvas
