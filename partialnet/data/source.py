"""Images with their classes, and the batches drawn from them."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from partialnet.data.augment import flip_batch, place_box, random_boxes, shift_batch
from partialnet.data.digest import digest_of_files, digest_of_pixels
from partialnet.data.images import cut_out, normalize, open_image, square, to_pixels
from partialnet.errors import DataError
from partialnet.transfer import to_device

Augment = Literal["none", "standard"]
_CHUNK = 100


@dataclass(frozen=True)
class Transform:
    """How pixels become inputs.

    Args:
        mean: Per channel, of pixels in [0, 1].
        std: Likewise.
        flip: Whether the standard augmentation mirrors images.
        size: Height and width of the inputs, in pixels.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    size: int

    @property
    def padding(self) -> int:
        """Largest shift of the standard augmentation: 4 pixels of 32, 1 of 8."""
        return max(1, self.size // 8)


class ImageSource(ABC):
    """Images of one split, in a fixed order.

    Attributes:
        targets: Class of each image, int64 [N].
    """

    def __init__(self, targets: Tensor, transform: Transform) -> None:
        self.targets = targets
        self._transform = transform

    def __len__(self) -> int:
        return len(self.targets)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        augment: Augment = "none",
        device: torch.device | str = "cpu",
        drop_last: bool = False,
    ) -> Batches:
        """Return batches that can be iterated again and again.

        Args:
            batch_size: Images per batch; the last one may have fewer.
            shuffle_seed: Order of the images, another one each epoch; None keeps the source's.
            augment: ``"standard"`` shifts (images of up to 64 pixels) or cuts out a part, and mirrors where that
                keeps the class.
            device: Where the batches are.
            drop_last: Leave an incomplete last batch out.

        Raises:
            DataError: If ``batch_size`` is not positive or ``augment`` is unknown.
        """
        if batch_size < 1:
            raise DataError(f"batch_size is {batch_size}, but must be at least 1")
        if augment not in ("none", "standard"):
            raise DataError(f"augment is {augment!r}, but must be none or standard")
        return Batches(self, batch_size, shuffle_seed, augment, torch.device(device), drop_last)

    @abstractmethod
    def check(self) -> None:
        """Read every image once, where they are not in memory.

        Raises:
            DataError: If some cannot be read; says how many, and names the first three.
        """

    @abstractmethod
    def digest(self) -> str:
        """Return what the images and their classes are, as a SHA-256 in hexadecimal.

        Raises:
            DataError: If an image cannot be read; names the file.
        """

    @abstractmethod
    def pixels(
        self, chunks: Iterable[Tensor], augment: Augment, generator: torch.Generator, device: torch.device
    ) -> Iterator[Tensor]:
        """Yield uint8 [B, C, H, W] on ``device`` for each chunk of indices [B]."""

    def inputs(
        self, chunks: Iterable[Tensor], augment: Augment, generator: torch.Generator, device: torch.device
    ) -> Iterator[Tensor]:
        """Yield normalised float32 [B, C, H, W] on ``device`` for each chunk of indices [B]."""
        for images in self.pixels(chunks, augment, generator, device):
            if augment == "standard" and self._transform.flip:
                images = flip_batch(images, generator)
            yield normalize(images, self._transform.mean, self._transform.std)


class Batches:
    """Batches of inputs, float32 [B, C, H, W], and targets, int64 [B]; each iteration is the next epoch."""

    def __init__(
        self,
        source: ImageSource,
        batch_size: int,
        shuffle_seed: int | None,
        augment: Augment,
        device: torch.device,
        drop_last: bool,
    ) -> None:
        self._source = source
        self._batch_size = batch_size
        self._shuffle_seed = shuffle_seed
        self._augment: Augment = augment
        self._device = device
        self._drop_last = drop_last
        self._epoch = 0

    def __len__(self) -> int:
        images = len(self._source)
        return images // self._batch_size if self._drop_last else math.ceil(images / self._batch_size)

    @property
    def images(self) -> int:
        """Images per epoch."""
        images = len(self._source)
        return len(self) * self._batch_size if self._drop_last else images

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration that of ``epoch`` (zero-based)."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        generator = torch.Generator().manual_seed((self._shuffle_seed or 0) * 1_000_003 + epoch)
        count = len(self._source)
        shuffled = self._shuffle_seed is not None
        order = torch.randperm(count, generator=generator) if shuffled else torch.arange(count)
        chunks = torch.split(order, self._batch_size)[: len(self)]
        inputs = self._source.inputs(chunks, self._augment, generator, self._device)
        for chunk, images in zip(chunks, inputs, strict=True):
            yield images, to_device(self._source.targets[chunk], self._device)


class TensorImages(ImageSource):
    """Images held in memory as bytes and augmented by the batch.

    Args:
        images: uint8 [N, C, H, W].
        targets: int64 [N].
        transform: Pixels to inputs; its ``size`` is that of ``images``.
        digest: What the images were before they were scaled; that of ``images`` if absent.
    """

    def __init__(
        self, images: Tensor, targets: Tensor, transform: Transform, digest: Callable[[], str] | None = None
    ) -> None:
        if len(images) != len(targets):
            raise DataError(f"there are {len(images)} images, but {len(targets)} targets")
        super().__init__(targets, transform)
        self._images = images
        self._digest = digest

    def digest(self) -> str:
        """See :meth:`ImageSource.digest`."""
        return digest_of_pixels(self._images, self.targets) if self._digest is None else self._digest()

    def check(self) -> None:
        """See :meth:`ImageSource.check`: these were read when they were opened."""

    def pixels(
        self, chunks: Iterable[Tensor], augment: Augment, generator: torch.Generator, device: torch.device
    ) -> Iterator[Tensor]:
        """See :meth:`ImageSource.pixels`. The images move to a GPU once, not by the batch."""
        if self._images.device != device:
            self._images = self._images.to(device)
        for chunk in chunks:
            images = self._images[to_device(chunk, device)]
            yield shift_batch(images, self._transform.padding, generator) if augment == "standard" else images


class FileImages(ImageSource):
    """Images decoded when they are needed, by several threads and ahead of their use.

    Threads, not processes: Pillow decodes without the interpreter's lock, and a trial inside a worker process
    should not start processes of its own.

    Args:
        paths: N files.
        targets: int64 [N].
        channels: 1 or 3.
        transform: Pixels to inputs.
        threads: Decoding at once; as many as there are CPUs, up to 8, if absent.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        targets: Tensor,
        channels: int,
        transform: Transform,
        threads: int | None = None,
    ) -> None:
        super().__init__(targets, transform)
        self._paths = paths
        self._channels = channels
        self._threads = threads or default_threads()

    def pixels(
        self, chunks: Iterable[Tensor], augment: Augment, generator: torch.Generator, device: torch.device
    ) -> Iterator[Tensor]:
        """See :meth:`ImageSource.pixels`.

        Raises:
            DataError: If an image cannot be read; names the file.
        """
        cut = augment == "standard" and self._transform.size > 64
        with ThreadPoolExecutor(self._threads) as pool:
            ahead = None
            for chunk in chain(chunks, [None]):
                coming = None
                if chunk is not None:
                    draws = random_boxes(len(chunk), generator) if cut else [None] * len(chunk)
                    # Executor.map submits at once: the next batch is decoded while the last one is in use.
                    coming = pool.map(self._decode, chunk.tolist(), draws)
                if ahead is not None:
                    images = to_device(torch.stack(list(ahead)), device)
                    shifted = augment == "standard" and not cut
                    yield shift_batch(images, self._transform.padding, generator) if shifted else images
                ahead = coming

    def check(self) -> None:
        """See :meth:`ImageSource.check`."""
        starts = range(0, len(self._paths), _CHUNK)
        with ThreadPoolExecutor(self._threads) as pool:
            faults = list(chain.from_iterable(pool.map(self._faults, starts)))
        if faults:
            more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
            raise DataError(f"{len(faults)} of {len(self)} images cannot be used: {'; '.join(faults[:3])}{more}")

    def digest(self) -> str:
        """See :meth:`ImageSource.digest`."""
        return digest_of_files(self._paths, self.targets)

    def _faults(self, start: int) -> list[str]:
        found = []
        for path in self._paths[start : start + _CHUNK]:
            try:
                open_image(path, self._channels)
            except DataError as error:
                found.append(str(error))
        return found

    def _decode(self, index: int, draw: Tensor | None) -> Tensor:
        image = open_image(self._paths[index], self._channels)
        size = self._transform.size
        if draw is None:
            return to_pixels(square(image, size))
        return to_pixels(cut_out(image, place_box(draw, *image.size), size))


def default_threads() -> int:
    """Return the number of CPUs this process may use, at most 8."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cpus)
