"""What images and their classes are, as a number: equal ones have equal ones, wherever their files lie."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from partialnet.errors import DataError

_READ = 2000


def digest_of_pixels(images: Tensor, targets: Tensor) -> str:
    """Return the SHA-256 of uint8 [N, C, H, W] and of their classes, int64 [N]; hexadecimal."""
    digest = hashlib.sha256(f"{tuple(images.shape)}".encode())
    digest.update(targets.cpu().numpy().tobytes())
    digest.update(images.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def digest_of_files(paths: Sequence[Path], targets: Tensor) -> str:
    """Return the SHA-256 of images in files and of their classes; hexadecimal.

    Their names below the folder that holds them all count, their sizes, and the content of up to 2000 files that are
    spread evenly: to read a million images would take as long as an epoch.

    Args:
        paths: N files.
        targets: int64 [N].

    Raises:
        DataError: If a file cannot be read; names it.
    """
    digest = hashlib.sha256(targets.cpu().numpy().tobytes())
    base = os.path.commonpath(paths) if len(paths) > 1 else paths[0].parent
    stride = max(1, -(-len(paths) // _READ))
    for place, path in enumerate(paths):
        try:
            name = os.fsencode(path.relative_to(base).as_posix())
            digest.update(b"\0%b\0%d\0" % (name, path.stat().st_size))
            if place % stride == 0:
                digest.update(path.read_bytes())
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    return digest.hexdigest()
