"""Threads or processes that decode image files ahead of their use; which of them, and how many, changes no pixel."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from partialnet.data.pieces import Piece
from partialnet.errors import DataError

Outcome = DataError | None
"""Fate of an image: the error if it cannot be read."""
Columns = Callable[[Piece], Iterable[Sequence[Any]]]
"""Function that returns columns with a value for each image of a piece."""
Decode = Callable[..., Outcome]
"""Function that writes an image into an array, uint8 [C, H, W], given its values of the columns."""
Shape = Callable[[Piece], tuple[int, int, int, int]]
"""Function that returns the shape of the images of a piece, [B, C, H, W]."""
_Part = tuple[Tensor, list[Outcome]]
_AHEAD = 2  # parts that wait in each process: two batches in total, as with threads
_GRACE_SECONDS = 20


@dataclass(frozen=True)
class Workers:
    """What decodes and augments image files within one process of a training.

    Threads share the interpreter, which decoding and scaling release. Processes do not, at the cost of a start in each
    epoch and of shared memory for two batches.

    Args:
        count: Number of threads or processes; None for the number of CPUs, at most 8.
        processes: Whether they are processes.
    """

    count: int | None = None
    processes: bool = False

    @property
    def number(self) -> int:
        """Number of threads or processes."""
        return self.count or default_workers()


def default_workers() -> int:
    """Return the number of CPUs that this process may use, at most 8; processes of one training share them."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cpus // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def read_ahead(
    pieces: Iterable[Piece], workers: Workers, shape: Shape, columns: Columns, decode: Decode, *, pinned: bool
) -> Iterator[tuple[Piece, Tensor, list[Outcome]]]:
    """Yield each piece with its images, uint8 [B, C, H, W], and their outcomes, while the next one is decoded.

    Args:
        pieces: Images to decode, in this order.
        workers: Threads or processes that decode them.
        shape: Function that returns the shape of a piece's images.
        columns: Function that returns the arguments of ``decode``.
        decode: Function that decodes one image.
        pinned: Whether the images lie in memory from which a GPU can copy while the host continues.

    Raises:
        DataError: If a process that decodes has died.
    """
    if workers.processes:
        return _in_processes(list(pieces), workers.number, shape, columns, decode, pinned)
    return _in_threads(pieces, workers.number, shape, columns, decode, pinned)


def _in_threads(
    pieces: Iterable[Piece], count: int, shape: Shape, columns: Columns, decode: Decode, pinned: bool
) -> Iterator[tuple[Piece, Tensor, list[Outcome]]]:
    with ThreadPoolExecutor(count) as pool:
        ahead: tuple[Piece, Tensor, Iterator[Outcome]] | None = None
        for piece in chain(pieces, [None]):
            coming = None
            if piece is not None:
                images = torch.empty(shape(piece), dtype=torch.uint8, pin_memory=pinned)
                # Executor.map submits at once: the next batch is decoded while the last one is in use.
                coming = piece, images, pool.map(decode, images.numpy(), *columns(piece))
            if ahead is not None:
                yield ahead[0], ahead[1], list(ahead[2])
            ahead = coming


class _Parts(Dataset[_Part]):
    """The parts of pieces, one for each process: a batch comes as early as it can, and two batches bound the memory."""

    def __init__(
        self, pieces: Sequence[Piece], count: int, shape: Shape, columns: Columns, decode: Decode
    ) -> None:
        self._pieces, self._count = pieces, count
        self._shape, self._columns, self._decode = shape, columns, decode

    def __len__(self) -> int:
        return len(self._pieces) * self._count

    def __getitem__(self, place: int) -> _Part:
        whole, share = self._pieces[place // self._count], place % self._count
        length = len(whole.indices)
        part = whole.rows(range(length * share // self._count, length * (share + 1) // self._count))
        images = torch.empty(self._shape(part), dtype=torch.uint8)
        return images, list(map(self._decode, images.numpy(), *self._columns(part)))


def _in_processes(
    pieces: Sequence[Piece], count: int, shape: Shape, columns: Columns, decode: Decode, pinned: bool
) -> Iterator[tuple[Piece, Tensor, list[Outcome]]]:
    if not pieces:
        return
    parts = _started(_Parts(pieces, count, shape, columns, decode), count)
    try:
        for piece in pieces:
            images, outcomes = torch.empty(shape(piece), dtype=torch.uint8, pin_memory=pinned), list[Outcome]()
            for _ in range(count):
                part, told = _taken(parts)
                images[len(outcomes) : len(outcomes) + len(part)] = part
                outcomes += told
            yield piece, images, outcomes
    finally:
        parts._shutdown_workers()  # its own finaliser would wait for an exception that still refers to it


def _started(parts: _Parts, count: int) -> Any:
    """Start the processes, and return the iterator over what they decode."""
    # A fork shares the list of images, which others would receive as a copy each.
    forks = "fork" in multiprocessing.get_all_start_methods()
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD) if main else None
    loader = DataLoader(
        parts, batch_size=None, num_workers=count, collate_fn=_as_it_is, worker_init_fn=_outlive_requests,
        prefetch_factor=_AHEAD, multiprocessing_context="fork" if forks else None,
        generator=torch.Generator(),  # the global one belongs to the training
    )  # fmt: skip
    found = iter(loader)
    if main:
        # torch's handler would raise in the middle of a step; the next batch tells of a process that has died.
        signal.signal(signal.SIGCHLD, before if before is not None else signal.SIG_DFL)
    return found


def _as_it_is(part: Any) -> Any:
    return part


def _outlive_requests(_worker: int) -> None:
    """Leave requests to stop, which reach whole groups of processes, to the training: it still needs some batches.

    SIGTERM ends this process a while later, in case that it was meant for it alone.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)


def _end_later(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_GRACE_SECONDS)


def _taken(parts: Any) -> _Part:
    try:
        found: _Part = next(parts)
        return found
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise DataError(
            "a process that decodes images has died; if memory or shared memory (/dev/shm) is short, use fewer "
            "workers, or threads"
        ) from error
