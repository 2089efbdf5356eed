"""Timing of networks in turn with the reference network, on this machine. One probe at a time for each device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import torch
from filelock import FileLock, Timeout
from torch import nn

from nas.definition.sections import LatencySpec
from nas.probes.runtimes import check_runtime, device_clock, example_images, file_runner, ready, write_onnx
from nas.probes.server import Run, lock_path, take_turns
from nas.probes.timing import Precision, Timing, time_in_turn
from nas.scratch import scratch_folder


@contextmanager
def exclusive(device: str, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold the machine-wide lock of ``device``; all other probes of this machine wait, in any process.

    Args:
        device: Device to lock: ``"cpu"`` or ``"cuda"``.
        waiting: Function to call if another probe holds the lock for more than two seconds.
    """
    lock = FileLock(lock_path(device), mode=0o666)
    try:
        held = lock.acquire(timeout=2)
    except Timeout:
        waiting()
        held = lock.acquire()
    with held:
        yield


@contextmanager
def thread_limit(count: int) -> Iterator[None]:
    """Limit the threads of PyTorch to ``count`` inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def precision_of(spec: LatencySpec) -> Precision:
    """Return when a timing with these settings may end."""
    return Precision(spec.interval, spec.n, spec.seconds)


def reference_network(input_shape: tuple[int, int, int]) -> nn.Module:
    """Return the network that takes turns with each probed one: three blocks of 3x3 and pointwise convolutions.

    Args:
        input_shape: Shape of one image: channels, height, width.
    """
    stride = 4 if min(input_shape[1:]) >= 32 else 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        blocks = [
            layer
            for _ in range(3)
            for layer in (
                nn.Conv2d(32, 32, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(32, 64, 1),
                nn.ReLU(),
                nn.Conv2d(64, 32, 1),
            )
        ]
        network = nn.Sequential(
            nn.Conv2d(input_shape[0], 32, stride, stride),
            nn.ReLU(),
            *blocks,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 10),
        )
    return network.eval().to(memory_format=torch.channels_last)


@lru_cache(maxsize=8)
def onnx_reference(input_shape: tuple[int, int, int], batch: int) -> bytes:
    """Return the ONNX file of the reference network, exported once: that takes seconds, and each probe needs it.

    Args:
        input_shape: Shape of one image: channels, height, width.
        batch: Number of images.
    """
    with scratch_folder("bench") as folder:
        network, images = reference_network(input_shape), example_images(input_shape, batch)
        return write_onnx(network, images, folder / "reference.onnx").read_bytes()


class Timer(Protocol):
    """Times networks in turn with the reference network, on any machine."""

    def time(self, network: nn.Module, images: torch.Tensor) -> Timing:
        """Time a network in eval mode, in the form in which it is to run, on images [B, C, H, W]."""


class LocalTimer:
    """Times networks on this machine; a context.

    Args:
        spec: Runtime, device, threads, batch, and when to end.
        input_shape: Shape of one image of the reference network: channels, height, width.
        waiting: Function to call if another probe holds the device for more than two seconds.

    Raises:
        InputError: If the device is missing, or lacks the runtime.
    """

    def __init__(
        self,
        spec: LatencySpec,
        input_shape: tuple[int, int, int],
        waiting: Callable[[], object] = lambda: None,
    ) -> None:
        check_runtime(spec.runtime, spec.device)
        self._spec = spec
        self._input_shape = input_shape
        self._reference = (reference_network(input_shape), example_images(input_shape, spec.batch))
        self._waiting = waiting
        self._stack = ExitStack()
        self._run: Run | None = None

    def __enter__(self) -> Self:
        self._stack.enter_context(thread_limit(self._spec.threads))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def time(self, network: nn.Module, images: torch.Tensor) -> Timing:
        """Time a network in eval mode, in the form in which it is to run, on images [B, C, H, W]."""
        spec = self._spec
        with ExitStack() as stack:
            if spec.runtime == "onnx":
                runs = [self._exported_reference(), *stack.enter_context(self._ready([(network, images)]))]
            else:
                runs = stack.enter_context(self._ready([self._reference, (network, images)]))
            return self._in_turn(runs)

    def time_file(self, file: Path, images: torch.Tensor) -> Timing:
        """Time the network in an ONNX file on images [B, C, H, W]; the runtime must be ``onnx``."""
        return self._in_turn([self._exported_reference(), file_runner(file, images, self._spec.threads)])

    def _in_turn(self, runs: list[Run]) -> Timing:
        """Time the second of two networks in turn with the first one, the reference."""
        spec = self._spec
        clock = device_clock(spec.device)
        with exclusive(spec.device, self._waiting):
            return time_in_turn(
                lambda count, seconds: take_turns(runs, count, seconds=seconds, clock=clock),
                precision_of(spec),
                spec.warmup,
                one_thread=spec.device == "cpu" and spec.threads == 1,
            )

    def _exported_reference(self) -> Run:
        if self._run is None:
            file = self._stack.enter_context(scratch_folder("bench")) / "reference.onnx"
            file.write_bytes(onnx_reference(self._input_shape, self._spec.batch))
            self._run = file_runner(file, self._reference[1], self._spec.threads)
        return self._run

    def _ready(self, networks: Sequence[tuple[nn.Module, torch.Tensor]]) -> AbstractContextManager[list[Run]]:
        return ready(networks, self._spec.runtime, self._spec.device, self._spec.threads)
