"""Digests of images and their classes: equal data have equal digests, in any folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from torch import Tensor

from partialnet.data.stored import StoredImage, names_and_sizes
from partialnet.errors import DataError

_READ = 2000


def digest_of_pixels(images: Tensor, targets: Tensor) -> str:
    """Return the SHA-256 of uint8 [N, C, H, W] and of their classes, int64 [N]; hexadecimal."""
    digest = hashlib.sha256(f"{tuple(images.shape)}".encode())
    digest.update(targets.cpu().numpy().tobytes())
    digest.update(images.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def digest_of_files(images: Sequence[StoredImage], targets: Tensor) -> str:
    """Return the SHA-256 of stored images and of their classes; hexadecimal.

    The digest covers the names of all files below their common folder, their sizes, and the content of up to 2000
    evenly spread files: reading a million images would take as long as an epoch.

    Args:
        images: N images.
        targets: Classes, int64 [N].

    Raises:
        DataError: If an image cannot be read; the message names it.
    """
    digest = hashlib.sha256(targets.cpu().numpy().tobytes())
    stride = max(1, -(-len(images) // _READ))
    facts = names_and_sizes(images)
    for place, image in enumerate(images):
        try:
            name, size = next(facts)
            digest.update(b"\0%b\0%d\0" % (os.fsencode(name), size))
            if place % stride == 0:
                digest.update(image.read_bytes())
        except OSError as error:
            raise DataError(f"{image}: cannot be read ({error.strerror or error})") from error
        except DataError as error:
            raise DataError(f"{image}: {error}") from None
    return digest.hexdigest()
