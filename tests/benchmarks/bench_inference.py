"""How fast the inference form is, next to other networks and to what the machine's matrix product would allow.

Our networks in inference form against timm's FasterNet, MobileNetV2, EfficientNet-B0 and ResNet-50, at 224x224, random
weights, interleaved: one thread at batch 1, all threads at batch 32; eager, ``torch.compile``, ONNX Runtime. On a GPU:
``python -m tests.benchmarks gpu``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import onnxruntime
import timm
import torch
from torch import nn

import partialnet  # noqa: F401 (registers the networks)
from nas.probes.flops import count_operations
from nas.probes.runtimes import onnx_runner
from partialnet.fuse import fuse
from tests.benchmarks.timing import Timing, interleave, machine

SIZES = ("t0", "t1", "t2", "s")
OURS = tuple(f"partialnet_{size}" for size in SIZES)
BASELINES = dict(zip(OURS, (f"fasternet_{size}" for size in SIZES), strict=True))
PEERS = ("mobilenetv2_100", "efficientnet_b0", "resnet50")
RUNTIMES = ("eager", "compile", "onnx")
MATRIX = 1024  # side of the matrices whose product is the bound


def network(name: str) -> nn.Module:
    """Return a network in eval mode, ours in inference form, with random weights."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    return fuse(model) if name in OURS else model


def runner(model: nn.Module, runtime: str, images: torch.Tensor, folder: Path) -> Callable[[], object]:
    """Return a function that runs ``model`` on ``images`` once; all that is done once is done here."""
    if runtime == "onnx":
        path = folder / f"{len(list(folder.iterdir()))}.onnx"
        return onnx_runner(model, images, path, torch.get_num_threads())
    model.requires_grad_(False)
    compiled = torch.compile(model, dynamic=False) if runtime == "compile" else model

    def run() -> torch.Tensor:
        with torch.no_grad():
            return compiled(images)

    run()
    return run


def product() -> Callable[[], torch.Tensor]:
    """Return a function that multiplies two square matrices: the bound."""
    left, right = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    return lambda: torch.mm(left, right)


def report(timings: dict[str, Timing], macs: dict[str, int], batch: int) -> list[str]:
    """Return a text table: median, quartiles, share of FasterNet's time, and of the bound."""
    bound = MATRIX**3 / timings["product"].median
    rows = [f"a matrix product does {bound / 1e9:.1f} G multiply-adds a second; last column: share of that"]
    rows.append(f"{'':18} median ms (quartiles)       of FasterNet (quartiles)")
    for name, timing in timings.items():
        if name == "product":
            continue
        low, _, high = statistics.quantiles(timing.seconds, n=4)
        row = f"{name:18} {1e3 * timing.median:9.2f} ({1e3 * low:.2f}-{1e3 * high:.2f})"
        ratio = ""
        if name in BASELINES:
            ratio = "{:.3f} ({:.3f}-{:.3f})".format(*timing.ratio_to(timings[BASELINES[name]]))
        rows.append(f"{row:46} {ratio:27} {100 * batch * macs[name] / bound / timing.median:3.0f} %")
    return rows


def measure(runtime: str, batch: int, threads: int, names: Sequence[str], rounds: int) -> list[str]:
    """Time all networks in one runtime and return the table."""
    torch.set_num_threads(threads)
    torch.compiler.reset()
    images = torch.randn(batch, 3, 224, 224)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        contenders: dict[str, Callable[[], object]] = {"product": product()}
        contenders |= {name: runner(network(name), runtime, images, Path(folder)) for name in names}
        timings = interleave(contenders, rounds=rounds)
    macs = {name: sum(count_operations(network(name), (3, 224, 224)).counted.values()) for name in names}
    title = f"\n{runtime}, {threads} thread(s), batch {batch}, n = {rounds}"
    return [title, *report(timings, macs, batch)]


def main(arguments: Sequence[str] = ()) -> None:
    """Print one table for each runtime, at one thread and batch 1, and at all threads and batch 32."""
    parser = argparse.ArgumentParser(prog="bench_inference")
    parser.add_argument("--runtimes", nargs="+", default=RUNTIMES, choices=RUNTIMES)
    parser.add_argument("--networks", nargs="+", default=(*OURS, *BASELINES.values(), *PEERS))
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--batches", nargs="+", type=int, default=(1, 32), help="1 runs on one thread, others on all")
    given = parser.parse_args(arguments)
    names = sorted(given.networks, key=[*OURS, *BASELINES.values(), *PEERS].index)
    print(machine(), f"ONNX Runtime {onnxruntime.__version__}", f"timm {timm.__version__}", sep=", ")
    for batch in given.batches:
        for runtime in given.runtimes:
            threads = 1 if batch == 1 else os.cpu_count() or 1
            started = time.perf_counter()
            rounds = given.rounds if batch == 1 else max(5, given.rounds // 4)
            print("\n".join(measure(runtime, batch, threads, names, rounds)), flush=True)
            print(f"({time.perf_counter() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
