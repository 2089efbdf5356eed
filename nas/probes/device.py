"""What a device calls itself, and what its figures depend on."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any

import torch


def device_name(device: str) -> str:
    """Return what the processor or the accelerator calls itself."""
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: the platform's own word has to do
    return platform.processor() or platform.machine()


def device_versions(device: str) -> dict[str, str]:
    """Return the versions that figures of a GPU depend on, of CUDA, cuDNN and NVIDIA's driver; none for a processor."""
    if device == "cpu":
        return {}
    driver = driver_version()
    cudnn: Any = torch.backends.cudnn
    found = {"cuda": str(torch.version.cuda), "cudnn": str(cudnn.version())}
    return found if driver is None else {**found, "driver": driver}


def float32_arithmetic(device: str) -> tuple[str, str]:
    """Return what float32 convolutions and float32 matrix products run in: ``"ieee"``, ``"tf32"`` or ``"bf16"``."""
    backends: Any = torch.backends
    convolutions = (backends.mkldnn if device == "cpu" else backends.cudnn).conv
    products = (backends.mkldnn if device == "cpu" else backends.cuda).matmul
    return _in_full(convolutions.fp32_precision), _in_full(products.fp32_precision)


def _in_full(value: object) -> str:
    return "ieee" if value == "none" else str(value)


def driver_version(place: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Return the version of NVIDIA's kernel driver; None where there is none."""
    try:
        found = re.search(r"\d+\.\d+(\.\d+)?", place.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return found[0] if found else None
