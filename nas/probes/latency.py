"""Latency as a measurement, with its uncertainty and the circumstances that it depends on.

Passes are timed one by one. The figure is their median with its distribution-free interval, which follows from the
binomial distribution of ranks. A machine-wide lock for each device keeps two probes from slowing each other.
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
from nas.probes.device import device_name, device_versions, float32_arithmetic
from partialnet.fuse import fuse


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the quantile of sorted values, interpolated linearly between neighbours."""
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def median_interval(ordered: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return a confidence interval of the median of independent draws, from order statistics.

    With n draws, the median lies below the k-th smallest with the probability of at most k - 1 heads in n throws of a
    fair coin, whatever the distribution. The interval has the narrowest ranks that leave at most half of ``1 -
    confidence`` on each side. With fewer than 6 draws no pair of ranks reaches 95 %, and the extremes are returned.

    Args:
        ordered: Sorted draws, at least one.
        confidence: Probability between 0 and 1.
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


@contextmanager
def exclusive(device: str, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold the machine-wide lock of ``device``; all other probes of this machine wait, in any process.

    Args:
        device: Device to lock: ``"cpu"`` or ``"cuda"``.
        waiting: Function to call if another probe holds the lock for more than two seconds.
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
    """Limit the threads of PyTorch to ``count`` inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def time_passes(forward: Callable[[], object], device: str, warmup: int, n: int) -> list[float]:
    """Return the sorted times of ``n`` single passes in milliseconds, after ``warmup`` untimed passes."""
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
    """Return a fingerprint of a probe's circumstances on this machine; only figures with the same one can be compared.

    Raises:
        InputError: If the device is missing.
    """
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise InputError("latency.device is 'cuda', but this machine has no CUDA device; use 'cpu'")
    resolution = "x".join(map(str, input_shape))
    return f"{spec.runtime}/{spec.device}/t{spec.threads}/b{spec.batch}/{resolution}/{device_name(spec.device)}"


def probe_latency(network: nn.Module, input_shape: tuple[int, int, int], spec: LatencySpec) -> Measurement:
    """Time the inference form of a network.

    Args:
        network: Fixed network; the probe copies it, and neither changes nor moves it.
        input_shape: Shape of one image: channels, height, width.
        spec: Device, threads, batch, warm-up and number of passes.

    Returns:
        ``latency_ms``: the median of single passes over a batch, with n, p90 and the 95 % interval of the median.

    Raises:
        InputError: If the device is missing.
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
        "convolutions": float32_arithmetic(spec.device)[0],
        "cpus": os.cpu_count(),
        "versions": {
            "torch": torch.__version__,
            "python": platform.python_version(),
            **device_versions(spec.device),
        },
    }
    return Measurement("latency_ms", median, figures, fingerprint)
