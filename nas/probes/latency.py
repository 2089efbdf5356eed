"""Latency as a measurement: with its uncertainty and the circumstances that it depends on.

One pass after another is timed; the figure is the median, with the distribution-free interval that the binomial
distribution of ranks gives it. A machine-wide lock per device keeps two probes from timing each other.
"""

from __future__ import annotations

import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import nn

from nas.definition.sections import LatencySpec
from nas.errors import InputError
from nas.metrics import Measurement
from partialnet.fuse import fuse


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the quantile of sorted values, linear between neighbours."""
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def median_interval(ordered: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return a confidence interval of the median of independent draws, from order statistics.

    With n draws, the median lies below the k-th smallest with the probability that a fair coin shows at most k - 1
    heads in n throws, whatever the distribution: the widest ranks that leave at most half of ``1 - confidence`` on each
    side. With fewer than 6 draws no pair of ranks reaches 95 %, and the extremes are returned.

    Args:
        ordered: Sorted, at least one.
        confidence: Between 0 and 1.
    """
    count = len(ordered)
    tail = (1.0 - confidence) / 2
    cumulative, rank = 0.0, 0
    for heads in range(count // 2):
        cumulative += math.exp(
            math.lgamma(count + 1) - math.lgamma(heads + 1) - math.lgamma(count - heads + 1) - count * math.log(2)
        )
        if cumulative > tail:
            break
        rank = heads
    return ordered[rank], ordered[count - 1 - rank]


def device_name(device: str) -> str:
    """Return what the processor or the accelerator calls itself."""
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: the platform's own word has to do
    return platform.processor() or platform.machine()


@contextmanager
def exclusive(device: str, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold the machine-wide lock of ``device``; other probes of this machine wait, whoever runs them.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        waiting: Called if another probe has the lock for more than two seconds.
    """
    lock = FileLock(Path(tempfile.gettempdir()) / f"nas-latency-{device}.lock", mode=0o666)
    try:
        held = lock.acquire(timeout=2)
    except Timeout:
        waiting()
        held = lock.acquire()
    with held:
        yield


@contextmanager
def thread_limit(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def time_passes(forward: Callable[[], object], device: str, warmup: int, n: int) -> list[float]:
    """Return the times of ``n`` single passes in milliseconds, sorted, after ``warmup`` untimed ones."""
    synchronize: Callable[[], object] = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    for _ in range(warmup):
        forward()
    synchronize()
    times = []
    for _ in range(n):
        start = time.perf_counter_ns()
        forward()
        synchronize()
        times.append((time.perf_counter_ns() - start) / 1e6)
    return sorted(times)


def latency_fingerprint(spec: LatencySpec, input_shape: tuple[int, int, int]) -> str:
    """Return the name of the circumstances of a probe on this machine; only figures of one name compare.

    Raises:
        InputError: If the device is not there.
    """
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise InputError("latency.device is 'cuda', but this machine has no CUDA device; use 'cpu'")
    resolution = "x".join(map(str, input_shape))
    return f"{spec.runtime}/{spec.device}/t{spec.threads}/b{spec.batch}/{resolution}/{device_name(spec.device)}"


def probe_latency(network: nn.Module, input_shape: tuple[int, int, int], spec: LatencySpec) -> Measurement:
    """Time the inference form of a network.

    Args:
        network: A fixed network; it is copied, not changed or moved.
        input_shape: Channels, height, width of one image.
        spec: Device, threads, batch, warm-up and number of passes.

    Returns:
        ``latency_ms``: the median of single passes over a batch, with n, p90 and the 95 % interval of the median.

    Raises:
        InputError: If the device is not there.
    """
    fingerprint = latency_fingerprint(spec, input_shape)
    fused = fuse(network).to(spec.device).eval()
    images = torch.randn(spec.batch, *input_shape, generator=torch.Generator().manual_seed(0)).to(spec.device)
    with exclusive(spec.device), thread_limit(spec.threads), torch.inference_mode():
        times = time_passes(lambda: fused(images), spec.device, spec.warmup, spec.n)
    low, high = median_interval(times)
    median = quantile(times, 0.5)
    figures = {
        "n": spec.n,
        "warmup": spec.warmup,
        "median": median,
        "p90": quantile(times, 0.9),
        "interval": [low, high],
        "confidence": 0.95,
        "device": spec.device,
        "device_name": device_name(spec.device),
        "threads": spec.threads,
        "batch": spec.batch,
        "resolution": "x".join(map(str, input_shape)),
        "runtime": spec.runtime,
        "precision": "float32",
        "cpus": os.cpu_count(),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
    return Measurement("latency_ms", median, figures, fingerprint)
