"""How many training images a second one core prepares, next to torchvision's reference loader on the same files.

Both read the same JPEG files of photograph size, cut out random parts at 224x224, mirror, and normalise to float32
batches. The reference is ``ImageFolder`` with ``RandomResizedCrop``, ``RandomHorizontalFlip``, ``ToTensor`` and
``Normalize`` in a ``DataLoader``. Each runs in this process with one thread: workers would only add the cost of passing
tensors between processes to the reference. Times are those of the processor, which other work does not stretch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from partialnet.data.augmentation import Augmentation
from partialnet.data.catalog import DATASETS
from partialnet.data.pieces import Transform
from partialnet.data.source import FileImages
from partialnet.data.workers import Workers
from tests.benchmarks.timing import interleave, machine

SIZE, BATCH, SMALLEST = 224, 64, 0.08
RAND_AUGMENT = "m7-mstd0.5-inc1"
KINDS: Mapping[str, tuple[int, int]] = {"500x400": (500, 400), "1600x1200": (1600, 1200)}
FACTS = DATASETS["image_folder"]
_OCTAVES = ((3, 60.0), (9, 35.0), (27, 22.0), (81, 14.0), (200, 10.0))  # waves across the picture, and their height


def photograph(width: int, height: int, random: np.random.Generator) -> Image.Image:
    """Return a picture with the spectrum of a photograph: waves of many lengths, edges, and a grain."""
    total = np.full((height, width, 3), 128.0, dtype=np.float32)
    for waves, strength in _OCTAVES:
        coarse = random.normal(128, strength, (max(2, waves * height // width), waves, 3)).clip(0, 255).astype(np.uint8)
        total += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)) - 128.0
    for _ in range(12):
        left, top = random.integers(0, width - 20), random.integers(0, height - 20)
        total[top : top + height // 5, left : left + width // 6] += random.normal(0, 40, 3)
    total += random.normal(0, 4, total.shape)
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


def write_photographs(folder: Path, counts: Mapping[str, int], classes: int = 10) -> None:
    """Write class folders ``folder/KIND/CLASS`` of JPEG files, unless they are there."""
    for kind, count in counts.items():
        random = np.random.default_rng(len(kind))
        for index in range(count):
            path = folder / kind / f"{index % classes:02d}" / f"{index:05d}.jpg"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                photograph(*KINDS[kind], random).save(path, quality=92)


def reference(paths: Sequence[Path], rand_augment: str) -> Callable[[], object]:
    """Return a function that takes an epoch of torchvision's loader."""
    steps: list[Callable[[object], object]] = [
        transforms.RandomResizedCrop(SIZE, scale=(SMALLEST, 1.0)),
        transforms.RandomHorizontalFlip(),
    ]
    if rand_augment:
        grey = tuple(round(255 * value) for value in FACTS.mean)
        hparams = {"translate_const": int(SIZE * 0.45), "img_mean": grey, "interpolation": Image.Resampling.BILINEAR}
        steps.append(rand_augment_transform(f"rand-{rand_augment}", hparams))
    steps += [transforms.ToTensor(), transforms.Normalize(FACTS.mean, FACTS.std)]
    images = datasets.ImageFolder(str(paths[0].parents[2]), transforms.Compose(steps), allow_empty=True)
    images.samples = [(str(path), int(path.parent.name)) for path in paths]
    loader = DataLoader(images, BATCH, shuffle=True)
    return lambda: sum(len(batch) for batch, _ in loader)


def ours(paths: Sequence[Path], rand_augment: str, threads: int = 1) -> Callable[[], object]:
    """Return a function that takes an epoch of this project's loader."""
    targets = torch.tensor([int(path.parent.name) for path in paths])
    source = FileImages(paths, targets, 3, Transform(FACTS.mean, FACTS.std, True, SIZE), Workers(threads))
    augmentation = Augmentation(smallest_crop=SMALLEST, rand_augment=rand_augment)
    batches = source.batches(BATCH, shuffle_seed=0, augment="standard", augmentation=augmentation)
    return lambda: sum(len(batch) for batch, _ in batches)


def compare(folder: Path, rand_augment: str, kinds: Sequence[str], rounds: int, images: int) -> str:
    """Return a row of the table: images per second and core of both, and their ratio with quartiles."""
    paths = sorted(path for kind in kinds for path in (folder / kind).glob("*/*.jpg"))
    np.random.default_rng(0).shuffle(paths)
    chosen = paths[:images]
    # Whole epochs, so that no batch is prepared while the other loader is on the clock.
    loaders = {"reference": reference(chosen, rand_augment), "ours": ours(chosen, rand_augment)}
    timings = interleave(loaders, rounds=rounds, warmup=1, clock=time.process_time)
    median, low, high = timings["reference"].ratio_to(timings["ours"])
    what = f"crop, mirror{', RandAugment' if rand_augment else ''}"
    row = [" and ".join(kinds), what, *(f"{len(chosen) / timings[name].median:.0f}" for name in loaders)]
    return f"| {' | '.join(row)} | {median:.2f} ({low:.2f}-{high:.2f}) |"


def main(arguments: Sequence[str] = ()) -> None:
    """Print one row for each kind of images and each augmentation."""
    parser = argparse.ArgumentParser(prog="bench_loader")
    parser.add_argument("--folder", type=Path, help="folder of the images, kept for the next time")
    parser.add_argument("--small", type=int, default=2000, help="images of 500x400 pixels")
    parser.add_argument("--large", type=int, default=300, help="images of 1600x1200 pixels")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=192, help="images of an epoch; each round is one")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        write_photographs(folder, dict(zip(KINDS, (given.small, given.large), strict=True)))
        sizes = [path.stat().st_size / 1024 for path in (folder / "500x400").glob("*/*.jpg")]
        print(f"{machine()}, Pillow {Image.__version__}; files of 500x400 have {np.mean(sizes):.0f} KiB")
        print("| images | augmentation | reference, images/s/core | ours | ratio (quartiles) |")
        print("|---" * 5 + "|")
        for rand_augment in ("", RAND_AUGMENT):
            for kinds in (["500x400"], ["1600x1200"], list(KINDS)):
                print(compare(folder, rand_augment, kinds, given.rounds, given.images), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
