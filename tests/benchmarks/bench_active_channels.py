"""Which numbers of active channels are fast: a 3x3 convolution of n channels, time for each multiply-add, by n.

Levels of a search are halvings of the width. Others would pay if the kernels of a runtime were faster at some n between
them. All numbers of one width take turns in ONNX Runtime on one thread, and the fastest pass counts.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from nas.probes.runtimes import onnx_runner
from partialnet.layers.partial_conv import PartialConv2d
from tests.benchmarks.timing import machine

PLACES = ((64, 28), (128, 14), (192, 14), (256, 7), (320, 7))
"""Widths C, and height and width of their maps."""
PASSES, ROUNDS = 20, 40


def numbers(channels: int) -> list[int]:
    """Return the numbers of active channels that are compared: multiples of 4, 8 and 16, and odd ones beside."""
    return sorted({*range(8, channels // 2 + 1, 8), 12, 20, 28, 36, channels // 4 - 1, channels // 4 + 1})


def fastest(channels: int, size: int) -> dict[int, float]:
    """Return the shortest time of a pass in microseconds, by number of active channels."""
    images = torch.zeros(1, channels, size, size)
    found: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            n: onnx_runner(PartialConv2d(channels, n).eval(), images, Path(folder) / f"{n}.onnx", 1)
            for n in numbers(channels)
        }
        for _ in range(ROUNDS):
            for n, run in runs.items():
                started = time.perf_counter()
                for _ in range(PASSES):
                    run()
                seconds = (time.perf_counter() - started) / PASSES
                found[n] = min(found.get(n, seconds), seconds)
    return {n: 1e6 * seconds for n, seconds in found.items()}


def main() -> None:
    """Print a line for each width: time by n, and that for a multiply-add relative to n = C / 4."""
    torch.set_num_threads(1)
    print(machine())
    for channels, size in PLACES:
        times = fastest(channels, size)
        usual = times[channels // 4] / (channels // 4) ** 2
        print(f"C = {channels}, {size}x{size}: n: microseconds (per multiply-add, n = C/4 is 1)")
        print("  " + "  ".join(f"{n}: {t:.1f} ({t / n**2 / usual:.2f})" for n, t in times.items()), flush=True)


if __name__ == "__main__":
    main()
