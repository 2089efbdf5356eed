"""Latency as a measurement, with its uncertainty and the circumstances that it depends on.

A network takes turns with a reference network (``nas.probes.timing``), so that a drift of the machine cancels in their
ratio. A machine-wide lock for each device keeps two probes from slowing each other.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.definition.sections import LatencySpec
from nas.metrics import Measurement
from nas.probes.device import device_name, device_versions, float32_arithmetic
from nas.probes.runtimes import check_runtime, example_images, runtime_version
from nas.probes.timers import LocalTimer, precision_of
from nas.probes.timing import CONFIDENCE, Timing
from partialnet.fuse import fuse

_LONGEST = 255  # as the column of the database
_THROTTLES = "devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"


def latency_fingerprint(spec: LatencySpec, input_shape: tuple[int, int, int]) -> str:
    """Return a fingerprint of a probe's circumstances on this machine; only figures with the same one can be compared.

    Raises:
        InputError: If the device is missing, or lacks the runtime.
    """
    check_runtime(spec.runtime, spec.device)
    name = fingerprint_of(runtime_name(spec), device_name(spec.device), spec, input_shape)
    if spec.device == "cpu":
        return name
    versions = [f"{name} {number}" for name, number in device_versions(spec.device).items()]
    return "/".join([name, *versions, float32_arithmetic(spec.device)[0]])[:_LONGEST]


def fingerprint_of(runtime: str, device: str, spec: LatencySpec, input_shape: tuple[int, int, int]) -> str:
    """Return the fingerprint of circumstances on any machine.

    Args:
        runtime: Runtime with the version of its library.
        device: Name that the processor or the accelerator reports.
        spec: Settings of the timings.
        input_shape: Shape of one image: channels, height, width.
    """
    resolution = "x".join(map(str, input_shape))
    return "/".join([runtime, spec.device, f"t{spec.threads}", f"b{spec.batch}", resolution, device])[:_LONGEST]


def runtime_name(spec: LatencySpec) -> str:
    """Return the runtime with the version of its library, such as ``onnx (onnxruntime 1.31.1)``."""
    return f"{spec.runtime} ({runtime_version(spec.runtime)})"


def probe_latency(
    network: nn.Module, input_shape: tuple[int, int, int], spec: LatencySpec, *, usual_ms: float | None = None
) -> Measurement:
    """Time the inference form of a network in turn with the reference network.

    Args:
        network: Fixed network; the probe copies it, and neither changes nor moves it.
        input_shape: Shape of one image: channels, height, width.
        spec: Runtime, device, threads, batch, warm-up, and when to end.
        usual_ms: Time of the reference network to which the figure refers; None for its time in this probe. With one
            value for several probes, a drift between them cancels as well.

    Returns:
        ``latency_ms``: the ratio to the reference, times the reference's usual time. Its figures have the ratio with
        its 95 % interval, the times as they were measured, and what makes them uncertain.

    Raises:
        InputError: If the device is missing, or lacks the runtime.
    """
    images = example_images(input_shape, spec.batch)
    return _probed(lambda timer: timer.time(fuse(network), images), input_shape, spec, usual_ms, "float32")


def probe_file(file: Path, input_shape: tuple[int, int, int], spec: LatencySpec, precision: str) -> Measurement:
    """Time the network in an ONNX file as :func:`probe_latency` times a module.

    Args:
        file: ONNX file, whose batch size may be free.
        input_shape: Shape of one image: channels, height, width.
        spec: Threads, batch, warm-up, and when to end; the runtime must be ``onnx``.
        precision: Type of most products, ``"float32"`` or ``"int8"``, which the fingerprint names.
    """
    images = example_images(input_shape, spec.batch)
    return _probed(lambda timer: timer.time_file(file, images), input_shape, spec, None, precision)


def _probed(
    time: Callable[[LocalTimer], Timing],
    input_shape: tuple[int, int, int],
    spec: LatencySpec,
    usual_ms: float | None,
    precision: str,
) -> Measurement:
    fingerprint = latency_fingerprint(spec, input_shape)
    if precision != "float32":
        fingerprint = f"{fingerprint}/{precision}"[:_LONGEST]
    throttles = _throttle_count()
    with LocalTimer(spec, input_shape) as timer:
        timing = time(timer)
    faults = timing.faults(precision_of(spec), usual_ms)
    if _throttle_count() > throttles:
        faults.append("the processor reports that heat throttled it during the run")
    usual = timing.reference_ms if usual_ms is None else usual_ms
    value = timing.ratio * usual
    figures = {**_figures(timing, spec, input_shape, usual, faults), "precision": precision}
    return Measurement("latency_ms", value, figures, fingerprint)


def _figures(
    timing: Timing, spec: LatencySpec, input_shape: tuple[int, int, int], usual_ms: float, faults: Sequence[str]
) -> dict[str, Any]:
    return {
        "n": timing.n,
        "warmup": spec.warmup,
        "median": timing.ratio * usual_ms,
        "p90": timing.p90_ms * usual_ms / timing.reference_ms,
        "interval": [ratio * usual_ms for ratio in timing.ratio_interval],
        "confidence": CONFIDENCE,
        "ratio": timing.ratio,
        "measured_ms": timing.median_ms,
        "reference_ms": timing.reference_ms,
        "usual_reference_ms": usual_ms,
        "held": timing.held,
        "clock": timing.clock,
        "outliers": timing.outliers,
        "drift": timing.drift,
        "faults": list(faults),
        "device": spec.device,
        "device_name": device_name(spec.device),
        "threads": spec.threads,
        "batch": spec.batch,
        "resolution": "x".join(map(str, input_shape)),
        "runtime": spec.runtime,
        "convolutions": float32_arithmetic(spec.device)[0],
        "cpus": os.cpu_count(),
        "versions": {
            "torch": torch.__version__,
            "python": platform.python_version(),
            **dict([runtime_version(spec.runtime).split(" ")]),
            **device_versions(spec.device),
        },
    }


def _throttle_count(root: Path = Path("/sys")) -> int:
    """Return how often heat has throttled the cores, as Linux counts it; 0 where it does not."""
    total = 0
    for path in root.glob(_THROTTLES):
        with suppress(OSError, ValueError):
            total += int(path.read_text(encoding="ascii"))
    return total
