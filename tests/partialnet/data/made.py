"""Small data sets in the true formats, made by the tests."""

from __future__ import annotations

import gzip
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def pixels(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    """Random bytes [count, *shape]."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def labels(count: int, classes: int) -> list[int]:
    """Return every class in turn."""
    return [index % classes for index in range(count)]


def python2_pickle(rows: np.ndarray, targets: Sequence[int], key: bytes = b"labels") -> bytes:
    """Write a batch opcode by opcode as Python 2 did: byte strings, and NumPy's names of that time."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value  # BINSTRING

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)  # BININT

    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + integer(0) + integer(1) + b"tR("
    dtype += integer(3) + text(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + integer(0) + b"t" + text(b"b") + b"tR("
    array += integer(1) + b"(" + b"".join(integer(size) for size in rows.shape) + b"t" + dtype
    array += b"\x89" + text(rows.tobytes()) + b"tb"  # NEWFALSE: row by row
    numbers = b"](" + b"".join(integer(target) for target in targets) + b"e"
    batch = text(b"batch_label") + text(b"training batch") + text(key) + numbers + text(b"data") + array
    return b"\x80\x02}(" + batch + b"u."


def cifar10_pickles(folder: Path, per_batch: int = 20, protocol: int | None = None) -> np.ndarray:
    """Write ``cifar-10-batches-py`` into ``folder``; ``protocol`` None writes as Python 2 did.

    Returns:
        The training images, uint8 [5 * per_batch, 3, 32, 32].
    """
    base = folder / "cifar-10-batches-py"
    base.mkdir(parents=True)
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    parts = []
    for seed, name in enumerate(names):
        rows, targets = pixels(per_batch, 3072, seed=seed), labels(per_batch, 10)
        if protocol is None:
            content = python2_pickle(rows, targets)
        else:
            content = pickle.dumps({b"data": rows, b"labels": targets}, protocol=protocol)
        (base / name).write_bytes(content)
        parts.append(rows)
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CIFAR10_CLASSES)}, protocol=2))
    return np.concatenate(parts[:5]).reshape(-1, 3, 32, 32)


def cifar100_pickles(folder: Path, count: int = 200) -> None:
    """Write ``cifar-100-python`` into ``folder``."""
    base = folder / "cifar-100-python"
    base.mkdir(parents=True)
    for name in ("train", "test"):
        (base / name).write_bytes(python2_pickle(pixels(count, 3072), labels(count, 100), b"fine_labels"))
    meta = {"fine_label_names": [f"class{label:02d}" for label in range(100)]}
    (base / "meta").write_bytes(pickle.dumps(meta, protocol=2))


def class_folders(
    base: Path,
    splits: Sequence[str],
    classes: Sequence[str],
    per_class: int = 4,
    size: tuple[int, int] = (32, 32),
    suffix: str = ".png",
) -> None:
    """Write ``base``/<split>/<class>/<image>; each class has a grey of its own, so that an image tells its class."""
    for split in splits:
        for label, name in enumerate(classes):
            folder = base / split / name
            folder.mkdir(parents=True)
            for index in range(per_class):
                grey = 10 + 20 * label + index
                Image.new("RGB", size, (grey, grey, grey)).save(folder / f"{index:04d}{suffix}")


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write an IDX file of bytes, packed if ``path`` ends in ``.gz``."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def fashion_mnist(folder: Path, count: int = 100, suffix: str = ".gz") -> np.ndarray:
    """Write the four files; return the training images, uint8 [count, 28, 28]."""
    folder.mkdir(parents=True)
    for prefix in ("t10k", "train"):
        images = pixels(count, 28, 28)
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", np.array(labels(count, 10), dtype=np.uint8))
    return images
