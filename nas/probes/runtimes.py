"""A network made ready to run: eager, compiled, or by ONNX Runtime; on the processor, or on a GPU in half precision."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from nas.errors import InputError
from nas.scratch import scratch_folder

Runtime = Literal["eager", "compile", "onnx"]
Device = Literal["cpu", "cuda"]


def check_runtime(runtime: Runtime, device: Device) -> None:
    """Refuse what cannot run here, before work is spent on it.

    Raises:
        InputError: If the device is missing, or the runtime does not serve it.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine has no CUDA device; use cpu")
    if runtime == "onnx" and device == "cuda":
        raise InputError("--runtime onnx runs on the processor here; give --device cpu, or --runtime compile")
    if runtime == "compile" and device == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        raise InputError("--runtime compile needs a C++ compiler (g++ or clang++) on the processor; none was found")


def precision(device: Device) -> str:
    """Return the precision that networks are timed in on a device."""
    return "bfloat16" if device == "cuda" else "float32"


@contextmanager
def ready(
    network: nn.Module, size: int, batch: int, runtime: Runtime, device: Device, threads: int
) -> Iterator[Callable[[], object]]:
    """Yield a function that runs one batch of RGB images through a network; it does not wait for a GPU.

    Args:
        network: In eval mode; on a GPU it is moved there, in bfloat16 and with channels last.
        size: Height and width in pixels.
        batch: Images.
        runtime: What runs it.
        device: Where.
        threads: Of ONNX Runtime; PyTorch's are set by the caller.
    """
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    if runtime == "onnx":
        with scratch_folder("bench") as folder:
            yield onnx_runner(network, images, folder / "network.onnx", threads)
        return
    if device == "cuda":
        layout = torch.channels_last
        network = network.to(device, torch.bfloat16, memory_format=layout)  # type: ignore[call-overload]
        images = images.to(device, torch.bfloat16, memory_format=layout)
    forward: Callable[[torch.Tensor], object] = network
    if runtime == "compile":
        # The code that is compiled is the same for all networks of a family, and dynamo gives up after a few of them.
        torch._dynamo.reset()
        forward = torch.compile(network, dynamic=False)
    # compiled code and tensors of the inference mode do not always go together
    with torch.no_grad() if runtime == "compile" else torch.inference_mode():
        yield lambda: forward(images)


def onnx_runner(network: nn.Module, images: torch.Tensor, path: Path, threads: int) -> Callable[[], object]:
    """Return a function that runs ``images`` through a network in ONNX Runtime; the file is written to ``path``."""
    import onnxruntime

    # Sizes are fixed, unlike in files that are handed out: the runtime may plan for them, and more networks export.
    with torch.no_grad():
        torch.onnx.export(network, (images,), path, dynamo=True, external_data=False, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, feed)
