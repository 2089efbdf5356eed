"""``python -m tests.benchmarks gpu``: all that a GPU machine is to show, in at most 8 minutes.

In this order: searches end well (three methods, three networks), what steps cost and how much memory they take, the
throughput of the inference form, trainings side by side. The first three need neither Ray nor a database nor a network
connection. Without a GPU a tiny size runs on the processor, to show that the command works.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.benchmarks.gpu.report import Report, circumstances, render

SECTIONS = ("searches", "steps", "throughput", "shares")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks gpu", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda, cuda:1 or cpu")
    parser.add_argument("--tiny", action="store_true", help="small networks and few rounds; always so on a cpu")
    parser.add_argument("--compile", action="store_true", help="compile on a cpu as well, which takes minutes there")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="this section alone; may be repeated")
    parser.add_argument("--minutes", type=float, default=7.5, help="when it ends, whatever is left (default: 7.5)")
    parser.add_argument("--json", type=Path, default=Path("gpu-benchmark.json"), help="where the rows are written")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] = ()) -> int:
    """Run the sections, print the table, and return the exit code: 1 if a case failed."""
    options = parse(arguments)
    device = torch.device(options.device)
    report = Report(device, time.monotonic() + 60 * options.minutes, options.json)
    print(", ".join(f"{name} {value}" for name, value in circumstances(device).items()), flush=True)
    tiny = options.tiny or device.type == "cpu"
    if device.type == "cpu":
        torch.set_num_threads(1)  # of tiny networks, several threads wait for each other longer than they work
    with report.punctual():
        for name in options.only or SECTIONS:

            def run(found: Report, name: str = name) -> None:
                with found.case(name, "all"):
                    importlib.import_module(f"tests.benchmarks.gpu.{name}").run(
                        found, tiny=tiny, compile_too=options.compile or device.type == "cuda"
                    )

            report.section(name, run)
    print("\nAll rows again:\n" + "\n".join(map(render, report.rows)))
    print(f"\nWritten to {options.json}")
    return int(report.failed)
