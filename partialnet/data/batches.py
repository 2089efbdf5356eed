"""Batches of a source: their order, their augmentation, and the place from which an interrupted epoch continues."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from partialnet.data.augmentation import Augmentation, SizeSchedule
from partialnet.data.pieces import Augment, Piece, Readable, Reading
from partialnet.data.strong import RandAugment, counted_seed, erase, mix
from partialnet.errors import DataError
from partialnet.transfer import to_device

if TYPE_CHECKING:
    from timm.data.scheduled_sampler import ScheduledBatchSampler


@dataclass(frozen=True)
class BatchOptions:
    """Arguments of :meth:`ImageSource.batches`; see there."""

    batch_size: int
    shuffle_seed: int | None
    augment: Augment
    device: torch.device
    drop_last: bool
    augmentation: Augmentation
    classes: int
    sizes: SizeSchedule | None
    part: tuple[int, int]
    uneven: bool = False

    def __post_init__(self) -> None:
        if self.augmentation.mixes and self.classes < 2:
            raise DataError("mixup and cutmix need the number of classes, at least 2")
        rank, processes = self.part
        # Images are mixed in pairs, and both of a pair must be in one process.
        unit = 2 * processes if self.augmentation.mixes and processes > 1 else processes
        sizes = self.sizes.batch_sizes if self.sizes and self.sizes.batch_sizes else (self.batch_size,)
        for size in sizes:
            if self.drop_last and size % unit and not self.uneven:
                raise DataError(f"batch_size is {size}, but must be divisible by {unit} for {processes} processes")
        if not 0 <= rank < processes:
            raise DataError(f"part is {self.part}, but must be an index below the number of processes")


class Batches:
    """Batches of inputs, float32 [B, C, H, W], and targets; each iteration is the next epoch.

    Targets are classes, int64 [B], or probabilities, float32 [B, classes], if images are mixed.

    Args:
        source: Source of the images.
        options: Size, order and augmentation of the batches.
    """

    def __init__(self, source: Readable, options: BatchOptions) -> None:
        self._source = source
        self._options = options
        self._epoch = 0
        self._start = 0
        transform, strong = source.transform, options.augmentation
        self._rand_augment = None
        if strong.rand_augment:
            text, filtered = strong.rand_augment, transform.interpolation
            self._rand_augment = RandAugment(text, transform.mean, transform.size, filtered)
        self._drawn_sizes = self._sampler() if options.sizes and not options.sizes.epochs else None

    def _sampler(self) -> ScheduledBatchSampler:
        from timm.data.scheduled_sampler import ScheduledBatchSampler  # with all of timm

        schedule, options = self._options.sizes, self._options
        assert schedule is not None
        batches = [schedule.batch_size(place, options.batch_size) for place in range(len(schedule.sizes))]
        if min(batches) > len(self._source):
            raise DataError(f"batch_size is {min(batches)}, but there are only {len(self._source)} images")
        return ScheduledBatchSampler(
            range(len(self._source)), batches, seed=options.shuffle_seed or 0, drop_last=options.drop_last
        )

    def __len__(self) -> int:
        """Return the number of batches in the present epoch; it varies only if sizes follow each other."""
        return self.steps_in(self._epoch)

    def steps_in(self, epoch: int) -> int:
        """Return the number of batches in ``epoch`` (zero-based)."""
        if self._drawn_sizes is not None:
            return len(self._drawn_sizes)
        images, size = len(self._source), self._batch_size(epoch)
        return images // size if self._options.drop_last else math.ceil(images / size)

    def _batch_size(self, epoch: int) -> int:
        sizes, default = self._options.sizes, self._options.batch_size
        return default if sizes is None or not sizes.epochs else sizes.batch_size(sizes.choice_at(epoch), default)

    @property
    def uneven(self) -> bool:
        """Whether processes that share a batch may have different numbers of its images."""
        return self._options.uneven or self._source.skips

    @property
    def images(self) -> int:
        """Number of images in an epoch."""
        return self.images_in(self._epoch)

    def images_in(self, epoch: int) -> int:
        """Return the number of images in ``epoch`` (zero-based), over all processes."""
        if self._drawn_sizes is not None:
            # Each epoch has the same batches, in another order.
            return sum(count for _, count in self._drawn_sizes.schedule)
        images = len(self._source)
        return self.steps_in(epoch) * self._batch_size(epoch) if self._options.drop_last else images

    def set_epoch(self, epoch: int) -> None:
        """Start ``epoch`` (zero-based) at the next iteration."""
        self.seek(epoch, 0)

    def seek(self, epoch: int, step: int) -> None:
        """Start at batch ``step`` of ``epoch`` (both zero-based) at the next iteration; earlier ones are not read."""
        self._epoch, self._start = epoch, step

    def _plan(self, epoch: int) -> list[tuple[int, int | None]]:
        """Return the number of images and their size for each batch of ``epoch``, over all processes."""
        schedule = self._options.sizes
        if self._drawn_sizes is not None:
            assert schedule is not None
            self._drawn_sizes.set_epoch(epoch)
            return [(len(batch), schedule.sizes[batch[0][1]]) for batch in self._drawn_sizes]
        size = None if schedule is None else schedule.sizes[schedule.choice_at(epoch)]
        batch, steps, images = self._batch_size(epoch), self.steps_in(epoch), len(self._source)
        return [(min(batch, images - step * batch), size) for step in range(steps)]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch, start = self._epoch, self._start
        self._epoch, self._start = epoch + 1, 0
        options = self._options
        # A process may have no share of an incomplete last batch.
        pieces = [piece for piece in self._pieces(epoch)[start:] if len(piece.indices)]
        reading = Reading(options.device, options.augmentation.smallest_crop, self._rand_augment)
        for step, (piece, images) in enumerate(self._source.inputs(pieces, reading), start):
            targets = to_device(self._source.targets[piece.indices], options.device)
            yield self._strengthened(images, targets, piece, epoch, step)

    def _strengthened(
        self, images: Tensor, targets: Tensor, piece: Piece, epoch: int, step: int
    ) -> tuple[Tensor, Tensor]:
        strong, seed = self._options.augmentation, self._options.shuffle_seed or 0
        if strong.erasing > 0:
            erase(images, strong.erasing, piece.seeds)
        if not strong.mixes:
            return images, targets
        return mix(images, targets, strong, self._options.classes, counted_seed(seed, epoch, step, -1))

    def _pieces(self, epoch: int) -> list[Piece]:
        """Return this process's images of each batch of ``epoch`` with their random numbers."""
        options, seed = self._options, self._options.shuffle_seed or 0
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        count, shuffled = len(self._source), options.shuffle_seed is not None
        order = torch.randperm(count, generator=generator) if shuffled else torch.arange(count)
        plan = self._plan(epoch)
        draws = self._source.standard(options.augment).draws((images for images, _ in plan), generator)
        seeded = bool(options.augmentation.rand_augment) or options.augmentation.erasing > 0
        pieces, first = [], 0
        for (images, size), draw in zip(plan, draws, strict=True):
            rows = rows_of(images, *options.part, pairs=options.augmentation.mixes)
            seeds = tuple(counted_seed(seed, epoch, first + row) for row in rows.tolist()) if seeded else ()
            pieces.append(Piece(order[first : first + images][rows], draw.rows(rows), size, seeds))
            first += images
        return pieces


def rows_of(images: int, rank: int, processes: int, *, pairs: bool = False) -> Tensor:
    """Return the places of one process's images in a batch that several processes share.

    Args:
        images: Number of images in the batch.
        rank: Index of the process.
        processes: Number of processes.
        pairs: Whether the places p and images - 1 - p must be in one process, at mirrored places.

    Returns:
        Places, int64 [B], ascending; those of all processes together are each place once.
    """
    if not pairs or processes == 1:
        return torch.arange(images * rank // processes, images * (rank + 1) // processes)
    half = images // 2
    low = torch.arange(half * rank // processes, half * (rank + 1) // processes)
    odd = [torch.tensor([half])] if images % 2 and rank == processes - 1 else []
    return torch.cat((low, *odd, images - 1 - low.flip(0)))
