"""How much faster the 8-bit form is than the float form in ONNX Runtime, on one thread, for each way to quantise.

Weights and images are random, so only the times count; ``nas export --int8`` gives accuracies of trained networks. All
forms of a network take turns, and the processor's time counts, which other work does not stretch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import onnxruntime
import timm
import torch

import partialnet  # noqa: F401 (registers the networks)
from nas.networks.int8 import ways
from nas.probes.runtimes import example_images, file_runner
from partialnet.int8 import Quantizer
from partialnet.onnx_export import to_onnx
from tests.benchmarks.timing import interleave, machine, table


def compare(name: str, size: int, rounds: int, folder: Path) -> str:
    """Return a table: median, and ratio to the float form with quartiles, of each way to quantise a network."""
    torch.manual_seed(0)
    plain = to_onnx(timm.create_model(name).eval(), folder / "float.onnx", input_shape=(3, size, size))
    quantizer = Quantizer(plain, [example_images((3, size, size), 4)], folder)
    files = {"float32": plain}
    for place, (way, plan) in enumerate(ways(quantizer.nodes)):
        files[way] = folder / f"{place}.onnx"
        quantizer.write(files[way], plan)
    images = example_images((3, size, size), 1)
    runs = {way: file_runner(file, images, 1) for way, file in files.items()}
    bytes_of = {way: file.stat().st_size for way, file in files.items()}
    share = min(bytes_of.values()) / bytes_of["float32"]
    timings = interleave(runs, rounds=rounds, clock=time.process_time)
    title = f"{name} at {size} pixels; the smallest file has {share:.2f} of the float form's size"
    return f"\n{title}\n{table(timings, 'float32')}"


def main(arguments: Sequence[str] = ()) -> None:
    """Print one table for each network."""
    parser = argparse.ArgumentParser(prog="bench_int8")
    parser.add_argument("--networks", nargs="+", default=("partialnet_t0", "partialnet_t2"))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=25)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(machine(), f"ONNX Runtime {onnxruntime.__version__}", sep=", ")
    for name in given.networks:
        with tempfile.TemporaryDirectory() as folder:
            print(compare(name, given.size, given.rounds, Path(folder)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
