"""A network ready to run: by torch, compiled, or in ONNX Runtime; on the processor or on a GPU. One vocabulary for all.

``torch`` runs the modules one by one, ``compile`` by ``torch.compile``, ``onnx`` in ONNX Runtime.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from nas.errors import InputError
from nas.probes.server import Pass, Run, onnx_session, timed
from nas.scratch import scratch_folder

Runtime = Literal["torch", "compile", "onnx"]
Device = Literal["cpu", "cuda"]


def check_runtime(runtime: Runtime, device: Device) -> None:
    """Refuse a runtime or device that this machine lacks, before work is spent on it.

    Raises:
        InputError: If the device is missing, or the runtime does not support it.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda: this machine has no CUDA device; use cpu")
    if runtime == "onnx" and device == "cuda":
        raise InputError("runtime onnx runs on the processor here; give device cpu, or runtime compile")
    if runtime == "compile" and device == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        raise InputError("runtime compile needs a C++ compiler (g++ or clang++) on the processor; none was found")


def runtime_version(runtime: Runtime) -> str:
    """Return the library that a runtime belongs to, with its version."""
    return f"onnxruntime {version('onnxruntime')}" if runtime == "onnx" else f"torch {torch.__version__}"


def precision(device: Device) -> str:
    """Return the precision in which ``nas bench`` times networks on a device."""
    return "bfloat16" if device == "cuda" else "float32"


def example_images(input_shape: tuple[int, int, int], batch: int) -> torch.Tensor:
    """Return the same random images [B, C, H, W] in each call."""
    return torch.randn(batch, *input_shape, generator=torch.Generator().manual_seed(0))


@contextmanager
def ready(
    networks: Sequence[tuple[nn.Module, torch.Tensor]],
    runtime: Runtime,
    device: Device,
    threads: int,
    dtype: torch.dtype = torch.float32,
) -> Iterator[list[Run]]:
    """Yield a function for each network that runs its images through it; it does not wait for a GPU.

    Args:
        networks: Networks in eval mode, which are moved to the device, each with its images [B, C, H, W].
        runtime: Runtime of the networks.
        device: Device of the networks.
        threads: Number of threads of ONNX Runtime; the caller sets those of PyTorch.
        dtype: Type of weights and maps; half precision uses channels last.
    """
    if runtime == "onnx":
        with scratch_folder("bench") as folder:
            yield [onnx_runner(network, images, folder / "network.onnx", threads) for network, images in networks]
        return
    if device == "cuda":
        layout: dict[str, Any] = {} if dtype == torch.float32 else {"memory_format": torch.channels_last}
        networks = [
            (network.to(device, dtype, **layout), images.to(device, dtype, **layout)) for network, images in networks
        ]
    if runtime == "compile":
        # All networks of a family share the code that is compiled, and dynamo gives up after a few of them.
        torch._dynamo.reset()
    # compiled code does not always accept tensors of the inference mode
    with torch.no_grad() if runtime == "compile" else torch.inference_mode():
        yield [_runner(network, images, runtime) for network, images in networks]


def _runner(network: nn.Module, images: torch.Tensor, runtime: Runtime) -> Run:
    forward: Callable[[torch.Tensor], object] = network
    if runtime == "compile":
        forward = torch.compile(network, dynamic=False)
    return lambda: forward(images)


def onnx_runner(network: nn.Module, images: torch.Tensor, path: Path, threads: int) -> Run:
    """Return a function that runs ``images`` through a network in ONNX Runtime; the file is written to ``path``."""
    return file_runner(write_onnx(network, images, path), images, threads)


def file_runner(path: Path, images: torch.Tensor, threads: int) -> Run:
    """Return a function that runs ``images`` through the network in an ONNX file, whose batch size may be free."""
    session = onnx_session(path, threads, len(images))
    feed = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, feed)


def write_onnx(network: nn.Module, images: torch.Tensor, path: Path) -> Path:
    """Write a network as an ONNX file with the sizes of ``images``, and return ``path``.

    Sizes are fixed, unlike in exported files: the runtime may plan for them, and more networks can be exported.
    """
    with torch.no_grad():
        torch.onnx.export(network, (images,), path, dynamo=True, external_data=False, verbose=False)
    return path


def device_clock(device: Device) -> Callable[[Run], Pass]:
    """Return the function that times a pass: by the wall's clock, or by events of the GPU."""
    return timed if device == "cpu" else _timed_by_events


def _timed_by_events(run: Run) -> Pass:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    run()
    end.record()
    end.synchronize()
    ms = begin.elapsed_time(end)
    return ms, ms, False
