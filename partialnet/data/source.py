"""Images with their classes, in memory or as files."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partialnet.data.augment import Standard, flip_batch, place_box, shift_batch
from partialnet.data.augmentation import Augmentation, SizeSchedule
from partialnet.data.batches import Batches, BatchOptions
from partialnet.data.digest import digest_of_files, digest_of_pixels
from partialnet.data.images import normalize, open_image, open_part, resize_pixels, square, to_array
from partialnet.data.pieces import Augment, Piece, Reading, Transform
from partialnet.data.stored import StoredImage
from partialnet.data.strong import Edits, edited
from partialnet.data.workers import Workers, read_ahead
from partialnet.errors import DataChanged, DataError
from partialnet.transfer import to_device

_CHUNK = 100
_log = logging.getLogger(__name__)


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

    @property
    def transform(self) -> Transform:
        """Conversion of pixels to inputs."""
        return self._transform

    def standard(self, augment: Augment) -> Standard:
        """Return the random numbers that ``augment`` draws for these images."""
        if augment == "none":
            return Standard(False, 0, False)
        cut = self.cuts
        return Standard(cut, 0 if cut else self._transform.padding, self._transform.flip)

    @property
    def cuts(self) -> bool:
        """Whether random parts are cut out of images when they are read."""
        return False

    def batches(
        self,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        augment: Augment = "none",
        device: torch.device | str = "cpu",
        drop_last: bool = False,
        augmentation: Augmentation | None = None,
        classes: int = 0,
        sizes: SizeSchedule | None = None,
        part: tuple[int, int] = (0, 1),
        uneven: bool = False,
    ) -> Batches:
        """Return batches that can be iterated repeatedly.

        Args:
            batch_size: Number of images in a batch over all parts; the last batch may have fewer.
            shuffle_seed: Seed of the order of images, which differs between epochs; None keeps the source's order.
            augment: Augmentation; ``"standard"`` shifts small images (up to 64 pixels) or cuts out a part of larger
                ones, and mirrors images if that keeps their class.
            device: Device of the batches.
            drop_last: Whether an incomplete last batch is left out.
            augmentation: Further augmentation.
            classes: Number of classes; only mixed batches need it.
            sizes: Sizes of the images; None for that of the source.
            part: Index and number of the processes that share each batch. Each gets an equal share of it; an incomplete
                batch is shared as evenly as possible.
            uneven: Whether every batch is, where the number of processes is not the user's choice.

        Raises:
            DataError: If ``batch_size`` is not positive or not divisible by the number of processes, or ``augment`` is
                unknown.
        """
        if batch_size < 1:
            raise DataError(f"batch_size is {batch_size}, but must be at least 1")
        if augment not in ("none", "standard"):
            raise DataError(f"augment is {augment!r}, but must be none or standard")
        options = BatchOptions(
            batch_size, shuffle_seed, augment, torch.device(device), drop_last, augmentation or Augmentation(), classes,
            sizes, part, uneven,
        )  # fmt: skip
        return Batches(self, options)

    @property
    def skips(self) -> bool:
        """Whether images that cannot be read are left out of batches."""
        return False

    @property
    def skipped(self) -> tuple[str, ...]:
        """Reasons why images were skipped so far in this process, one for each image."""
        return ()

    @abstractmethod
    def check(self) -> None:
        """Read every image once, where they are not in memory.

        Raises:
            DataError: If some cannot be read; says how many, and names the first three.
        """

    @abstractmethod
    def digest(self) -> str:
        """Return the digest of the images and their classes, a SHA-256 in hexadecimal.

        Raises:
            DataError: If an image cannot be read; the message names the file.
        """

    @abstractmethod
    def pixels(self, pieces: Iterable[Piece], reading: Reading) -> Iterator[tuple[Piece, Tensor]]:
        """Yield each piece with its images, uint8 [B, C, H, W] on the device; see :meth:`Readable.inputs`."""

    def inputs(self, pieces: Sequence[Piece], reading: Reading) -> Iterator[tuple[Piece, Tensor]]:
        """See :meth:`Readable.inputs`."""
        for piece, images in self.pixels(pieces, reading):
            mirrored = piece.draw.mirrored
            images = images if mirrored is None else flip_batch(images, mirrored)
            yield piece, normalize(images, self._transform.mean, self._transform.std)


class TensorImages(ImageSource):
    """Images held in memory as bytes and augmented by the batch.

    Args:
        images: Images, uint8 [N, C, H, W].
        targets: Classes, int64 [N].
        transform: Conversion of pixels to inputs; its ``size`` is that of ``images``.
        digest: Digest of the images before they were scaled; None for that of ``images``.
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

    def pixels(self, pieces: Iterable[Piece], reading: Reading) -> Iterator[tuple[Piece, Tensor]]:
        """See :meth:`ImageSource.pixels`. The images move to a GPU once, not in each batch."""
        device = reading.device
        if self._images.device != device:
            self._images = self._images.to(device)
        for piece in pieces:
            images = self._images[to_device(piece.indices, device)]
            shifts = piece.draw.shifts
            images = images if shifts is None else shift_batch(images, self._transform.padding, shifts)
            if reading.rand_augment is not None:
                images = to_device(reading.rand_augment.pixels(images.cpu(), piece.seeds), device)
            yield piece, images if piece.size is None else resize_pixels(images, piece.size)


class FileImages(ImageSource):
    """Images that several threads or processes decode ahead of their use.

    Threads are the default: Pillow decodes without the interpreter's lock, and a trial inside a worker process should
    not start processes of its own.

    Args:
        images: N encoded images, such as paths of files.
        targets: Classes, int64 [N].
        channels: Number of colour channels, 1 or 3.
        transform: Conversion of pixels to inputs.
        workers: Threads or processes that decode them; None for threads.
        skip_broken: Whether an image that cannot be read is left out, with a warning, and counted.
    """

    def __init__(
        self,
        images: Sequence[StoredImage],
        targets: Tensor,
        channels: int,
        transform: Transform,
        workers: Workers | None = None,
        *,
        skip_broken: bool = False,
    ) -> None:
        super().__init__(targets, transform)
        self._images = images
        self._channels = channels
        self._workers = workers or Workers()
        self._skip_broken = skip_broken
        self._broken: dict[int, str] = {}

    @property
    def cuts(self) -> bool:
        """See :meth:`ImageSource.cuts`."""
        return self._transform.cuts

    @property
    def skips(self) -> bool:
        """See :meth:`ImageSource.skips`."""
        return self._skip_broken

    @property
    def skipped(self) -> tuple[str, ...]:
        """See :meth:`ImageSource.skipped`."""
        return tuple(self._broken.values())

    def pixels(self, pieces: Iterable[Piece], reading: Reading) -> Iterator[tuple[Piece, Tensor]]:
        """See :meth:`ImageSource.pixels`.

        Raises:
            DataError: If an image cannot be read, and is not to be skipped; the message names it.
        """
        columns, decode = partial(_columns, reading=reading), partial(self._decode, smallest=reading.smallest_crop)
        pinned = reading.device.type == "cuda"
        for piece, images, outcomes in read_ahead(pieces, self._workers, self._shape, columns, decode, pinned=pinned):
            whole, kept = self._without_broken(piece, images, outcomes)
            shifts, kept = whole.draw.shifts, to_device(kept, reading.device)
            yield whole, kept if shifts is None else shift_batch(kept, self._transform.padding, shifts)

    def _shape(self, piece: Piece) -> tuple[int, int, int, int]:
        size = piece.size or self._transform.size
        return len(piece.indices), self._channels, size, size

    def _decode(
        self, out: NDArray[np.uint8], index: int, box: Tensor | None, edits: Edits, smallest: float
    ) -> DataError | None:
        """Write an image into ``out`` [C, H, W]; return the error if it cannot be read."""
        file, channels, size = self._images[index], self._channels, out.shape[-1]
        crop, filtered = self._transform.crop, self._transform.interpolation
        try:
            if box is None:
                pixels = to_array(square(open_image(file, channels), size, crop, filtered))
            else:
                place = partial(place_box, box, smallest=smallest)
                pixels = open_part(file, channels, place, size, filtered)
        except DataError as error:
            return error
        out[:] = edited(pixels, edits).transpose(2, 0, 1)
        return None

    def _without_broken(
        self, piece: Piece, images: Tensor, errors: Sequence[DataError | None]
    ) -> tuple[Piece, Tensor]:
        """Return a piece without the images that are skipped."""
        whole = []
        for place, error in enumerate(errors):
            if error is None:
                whole.append(place)
            elif self._skip_broken and not isinstance(error, DataChanged):
                self._skip(int(piece.indices[place]), error)
            else:
                raise error
        if len(whole) == len(images):
            return piece, images
        if not whole:
            raise DataError(f"all {len(images)} images of a batch are broken; the first skipped: {self.skipped[0]}")
        return piece.rows(whole), images[whole]

    def _skip(self, index: int, error: DataError) -> None:
        if index not in self._broken:
            self._broken[index] = str(error)
            _log.warning("skipped (%d so far): %s", len(self._broken), error)

    def check(self) -> None:
        """See :meth:`ImageSource.check`; only warns of images that are skipped."""
        starts = range(0, len(self._images), _CHUNK)
        with ThreadPoolExecutor(self._workers.number) as pool:
            faults = list(chain.from_iterable(pool.map(self._faults, starts)))
        changed = any(isinstance(error, DataChanged) for _, error in faults)
        if self._skip_broken and not changed and len(faults) < len(self):
            for index, error in faults:
                self._skip(index, error)
        elif faults:
            told = [str(error) for _, error in faults]
            more = f"; and {len(told) - 3} more" if len(told) > 3 else ""
            raise DataError(f"{len(told)} of {len(self)} images cannot be used: {'; '.join(told[:3])}{more}")

    def digest(self) -> str:
        """See :meth:`ImageSource.digest`."""
        return digest_of_files(self._images, self.targets)

    def _faults(self, start: int) -> list[tuple[int, DataError]]:
        found = []
        for index, file in enumerate(self._images[start : start + _CHUNK], start):
            try:
                open_image(file, self._channels)
            except DataError as error:
                found.append((index, error))
        return found


def _columns(piece: Piece, reading: Reading) -> tuple[Sequence[int], Sequence[Tensor | None], Sequence[Edits]]:
    """Return the index, the numbers of the box and the operations of each image."""
    count = len(piece.indices)
    boxes = [None] * count if piece.draw.boxes is None else list(piece.draw.boxes)
    edits = [()] * count if reading.rand_augment is None else reading.rand_augment.drawn(piece.seeds)
    return piece.indices.tolist(), boxes, edits
