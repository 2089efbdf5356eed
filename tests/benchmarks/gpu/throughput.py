"""Images per second of the inference form next to timm's FasterNet of the same size: bfloat16, channels last.

Both run compiled, eager, and eager as a CUDA graph, in which the host's launches do not count.
"""

from __future__ import annotations

from collections.abc import Callable

import timm
import torch
from torch import nn

import partialnet  # noqa: F401 (registers the networks)
from partialnet.captured import CapturedNetwork
from partialnet.fuse import fuse
from tests.benchmarks.gpu.clock import channels_last, in_turn
from tests.benchmarks.gpu.report import Report, Row

SIZES = ("t0", "t1", "t2", "s")
GOALS = {
    "graph": {"t2": ">= 1.25", "s": ">= 1.25"},
    "compile": {"t2": ">= 1.25", "s": ">= 1.25"},
    "eager": dict.fromkeys(SIZES, ">= 0.90"),
}


def network(name: str) -> nn.Module:
    """Return a network with random weights in eval mode, ours in inference form."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    return (fuse(model) if name.startswith("partialnet") else model).requires_grad_(False)


def runner(name: str, runtime: str, images: torch.Tensor) -> Callable[[], object]:
    """Return a function that runs the images through a network once."""
    model = channels_last(network(name), images.device).to(images.dtype)
    forward: Callable[[torch.Tensor], object] = model
    if runtime == "compile":
        forward = torch.compile(model, dynamic=False)
    elif runtime == "graph":
        forward = CapturedNetwork(model, images)

    def run() -> object:
        with torch.no_grad():
            return forward(images)

    return run


def compare(report: Report, size: str, runtime: str, *, batch: int, pixels: int, rounds: int) -> None:
    """Time one of our networks in turn with FasterNet of its size."""
    dtype = torch.bfloat16 if report.device.type == "cuda" else torch.float32
    images = torch.randn(batch, 3, pixels, pixels).to(
        device=report.device, dtype=dtype, memory_format=torch.channels_last
    )
    torch.compiler.reset()
    names = (f"partialnet_{size}", f"fasternet_{size}")
    repeat = 10 if report.device.type == "cuda" else 1
    timings = in_turn(
        {name: runner(name, runtime, images) for name in names}, report.device, rounds=rounds, repeat=repeat
    )
    ours, theirs = (timings[name] for name in names)
    ratio, low, high = theirs.ratio_to(ours)
    goal = GOALS[runtime].get(size, ">= 1.0")
    note = f"{batch / ours.median:,.0f} of {batch / theirs.median:,.0f} images/s, quartiles {low:.3f}-{high:.3f}"
    report.add(Row("throughput", f"{names[0]} / {names[1]}, {runtime}, batch {batch}", ratio, "x", goal, note))


def run(report: Report, *, tiny: bool, compile_too: bool) -> None:
    """Compare every size in each runtime."""
    sizes, batch, pixels, rounds = (("t0",), 2, 32, 2) if tiny else (SIZES, 256, 224, 10)
    graph = ("graph",) if report.device.type == "cuda" else ()
    for runtime in (*graph, "eager", *(("compile",) if compile_too else ())):
        for size in sizes:
            if not report.late:
                with report.case("throughput", f"{size}, {runtime}"):
                    compare(report, size, runtime, batch=batch, pixels=pixels, rounds=rounds)
