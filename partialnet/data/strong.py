"""RandAugment, random erasing, mixup and cutmix by timm, with random numbers that depend on seed and position alone.

timm draws from the generators of the whole process. Here they are seeded for each image or batch and restored
afterwards, under one lock, so that neither the number of threads nor an interruption changes a pixel.

timm is loaded when it is needed: who only reads data would wait two seconds for it.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from partialnet.data.augmentation import Augmentation, Interpolation
from partialnet.data.images import FILTERS, to_array, to_image

_PROCESS_GENERATORS = threading.Lock()  # guards the generators of `random` and `numpy.random`
Edits = tuple[Callable[[Image.Image], Image.Image], ...]
"""Operations on one image, in their order."""


def counted_seed(*position: int) -> int:
    """Return a 32-bit seed for numbers such as (seed, epoch, place): equal positions give equal seeds."""
    text = ":".join(map(str, position)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")


@contextmanager
def _seedable() -> Iterator[Callable[[int], None]]:
    """Yield a function that seeds the process's generators; restore these afterwards."""
    with _PROCESS_GENERATORS:
        plain, arrays = random.getstate(), np.random.get_state()

        def seed(value: int) -> None:
            random.seed(value)
            np.random.seed(value)

        try:
            yield seed
        finally:
            random.setstate(plain)
            np.random.set_state(arrays)


class RandAugment:
    """timm's RandAugment of single images, safe in threads.

    Args:
        text: Setting in timm's words, such as ``"m7-mstd0.5-inc1"``.
        mean: Mean of the pixels in [0, 1] for each channel: the colour behind moved images.
        size: Height and width of the images in pixels.
        interpolation: Filter that moves pixels.
    """

    def __init__(self, text: str, mean: Sequence[float], size: int, interpolation: Interpolation) -> None:
        from timm.data.auto_augment import rand_augment_transform

        grey = tuple(min(255, round(255 * value)) for value in mean)
        hparams = {
            "translate_const": int(size * 0.45),
            "img_mean": grey if len(grey) == 3 else grey[0],
            "interpolation": FILTERS[interpolation],
        }
        self._draw = rand_augment_transform(text if text.startswith("rand-") else f"rand-{text}", hparams)
        # Drawing needs the process's generators, but editing pixels does not: operations are noted, and run later.
        for operation in self._draw.ops:
            edit = _posterized if operation.name.startswith("Posterize") else operation.aug_fn
            operation.aug_fn = partial(_note, edit)

    def drawn(self, seeds: Sequence[int]) -> list[Edits]:
        """Return the operations that each seed draws: a batch at once, since the generators are restored only once."""
        with _seedable() as restart:
            return [self._drawn(seed, restart) for seed in seeds]

    def _drawn(self, seed: int, restart: Callable[[int], None]) -> Edits:
        restart(seed)
        edits: Edits = self._draw(())
        return edits

    def pixels(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Return uint8 [B, C, H, W] on the CPU after the operations that the seeds [B] draw."""
        found = []
        for image, edits in zip(images, self.drawn(seeds), strict=True):
            pixels = edited(image.permute(1, 2, 0).numpy(), edits)
            found.append(torch.from_numpy(pixels).permute(2, 0, 1))
        return torch.stack(found)


def edited(pixels: NDArray[np.uint8], edits: Edits) -> NDArray[np.uint8]:
    """Return pixels [H, W, C] after some operations."""
    if not edits:
        return pixels
    image = to_image(pixels)
    for edit in edits:
        image = edit(image)
    return to_array(image)


def _posterized(image: Image.Image, bits: int, **options: Any) -> Image.Image:
    from timm.data.auto_augment import posterize

    # The largest magnitude would keep no bit, which Pillow refuses.
    edited: Image.Image = posterize(image, max(1, bits), **options)
    return edited


def _note(edit: Callable[..., Image.Image], earlier: Edits, *args: Any, **options: Any) -> Edits:
    return (*earlier, lambda image: edit(image, *args, **options))


def erase(inputs: Tensor, probability: float, seeds: Sequence[int]) -> Tensor:
    """Replace random parts of normalised inputs [B, C, H, W] in place by noise, as the seeds [B] draw."""
    from timm.data.random_erasing import RandomErasing

    eraser = RandomErasing(probability, mode="pixel", device="cpu")
    with torch.random.fork_rng(devices=[]), _seedable() as restart:
        for place, seed in enumerate(seeds):
            restart(seed)
            torch.default_generator.manual_seed(seed)
            # Noise is drawn on the CPU, so that it is the same on each device.
            eraser(inputs[place])
    return inputs


def mix(inputs: Tensor, targets: Tensor, settings: Augmentation, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Mix each image with its mirror image in the order of the batch: 0 with B - 1, 1 with B - 2, ...

    Args:
        inputs: Normalised images [B, C, H, W], which are changed in place; the last one of an odd number stays.
        targets: Classes, int64 [B].
        settings: Settings that mix.
        classes: Number of classes.
        seed: Seed of the batch.

    Returns:
        Inputs, and probabilities of the classes, float32 [B, classes].
    """
    from timm.data.mixup import Mixup, mixup_target

    even = len(inputs) // 2 * 2
    mixer = Mixup(
        settings.mixup, settings.cutmix, prob=settings.mix_probability, label_smoothing=0.0, num_classes=classes
    )
    if even == 0:
        return inputs, mixup_target(targets, classes)
    with _seedable() as restart:
        restart(seed)
        _, soft = mixer(inputs[:even], targets[:even])
    return inputs, torch.cat((soft, mixup_target(targets[even:], classes))) if even < len(targets) else soft
