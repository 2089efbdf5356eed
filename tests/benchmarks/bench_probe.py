"""How well a probe repeats: the spread of the ratio to the reference network over repeated probes of one network.

Each probe prepares the networks anew, as in use. All passes are kept, so that ways to summarise them can be compared on
the same times. The spread is the largest minus the smallest figure, as a share of their median: at most 5 %, goal 3 %.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from typing import get_args

import torch

from nas.definition.sections import LatencySpec
from nas.networks.named import load_network
from nas.probes.runtimes import Runtime, example_images, ready
from nas.probes.server import Pass, take_turns
from nas.probes.timers import exclusive, precision_of, reference_network, thread_limit
from nas.probes.timing import Timing, median, quantile, time_in_turn
from partialnet.fuse import fuse
from tests.benchmarks.timing import machine

BOUND, GOAL = 0.05, 0.03
Rounds = list[tuple[Pass, Pass]]
"""Passes of the reference and of the network in each round of one probe."""


def quiet(rounds: Rounds) -> Rounds:
    """Return the rounds that no other work interrupted; all of them if there are few."""
    found = [(r, n) for r, n in rounds if not (r[2] or n[2])]
    return found if 2 * len(found) >= len(rounds) else rounds


ESTIMATORS: dict[str, Callable[[Rounds], float]] = {
    "median of ratios, undisturbed": lambda rounds: median([n[0] / r[0] for r, n in quiet(rounds)]),
    "median of ratios, all rounds": lambda rounds: median([n[0] / r[0] for r, n in rounds]),
    "ratio of medians": lambda rounds: median([n[0] for _, n in quiet(rounds)])
    / median([r[0] for r, _ in quiet(rounds)]),
    "ratio of lower quartiles": lambda rounds: quantile(sorted(n[0] for _, n in quiet(rounds)), 0.25)
    / quantile(sorted(r[0] for r, _ in quiet(rounds)), 0.25),
    "ratio of minima": lambda rounds: min(n[0] for _, n in rounds) / min(r[0] for r, _ in rounds),
    "median of the processor's ratios": lambda rounds: median([n[1] / max(r[1], 1e-9) for r, n in rounds]),
    "median ms, no reference": lambda rounds: median([n[0] for _, n in quiet(rounds)]),
}
"""Ways to turn the rounds of a probe into one figure."""


def spread(values: Sequence[float]) -> float:
    """Return the largest minus the smallest value, as a share of the median."""
    return (max(values) - min(values)) / median(values)


def probe(network: torch.nn.Module, shape: tuple[int, int, int], spec: LatencySpec) -> tuple[Timing, Rounds]:
    """Probe a network as the product does, and keep the rounds that count."""
    images = example_images(shape, spec.batch)
    pair = [(reference_network(shape), images), (copy.deepcopy(network), images)]
    kept: list[Rounds] = []
    with (
        thread_limit(spec.threads),
        ready(pair, spec.runtime, spec.device, spec.threads) as runs,
        exclusive(spec.device),
    ):

        def turns(count: int, seconds: float) -> list[list[Pass]]:
            passes = take_turns(runs, count, seconds=seconds)
            kept.append(list(zip(*passes, strict=True)))
            return passes

        found = time_in_turn(turns, precision_of(spec), spec.warmup, one_thread=spec.threads == 1)
    return found, [pair for rounds in kept[1:] for pair in rounds]  # without the warm-up


def measure(name: str, size: int | None, runtime: Runtime, repeats: int, seconds: float) -> list[str]:
    """Probe a network repeatedly and return the lines of the report."""
    loaded = load_network(name, size=size)
    network, spec = fuse(loaded.network), LatencySpec(runtime=runtime, seconds=seconds)
    probes = [probe(network, loaded.input_shape, spec) for _ in range(repeats)]
    timings = [timing for timing, _ in probes]
    reported = spread([timing.ratio for timing in timings])
    verdict = "goal met" if reported <= GOAL else "bound met" if reported <= BOUND else "missed"
    lines = [
        f"\n{name} at {'x'.join(map(str, loaded.input_shape))}, {runtime}, {repeats} probes, median n = "
        f"{median([timing.n for timing in timings]):.0f}, {median([t.median_ms for t in timings]):.3f} ms",
        f"spread of the reported ratio: {reported:.1%} ({verdict}: bound {BOUND:.0%}, goal {GOAL:.0%})",
        f"not precise: {sum(not t.precise for t in timings)}; interrupted rounds: "
        f"{median([t.interrupted for t in timings]):.1%}; by the processor's time: "
        f"{sum(t.clock == 'processor' for t in timings)}",
    ]
    for label, estimate in ESTIMATORS.items():
        values = [estimate(rounds) for _, rounds in probes]
        lines.append(f"  {label:34} spread {spread(values):6.1%}, median {median(values):.4f}")
    return lines


def main(arguments: Sequence[str] = ()) -> None:
    """Print the spread of each runtime."""
    parser = argparse.ArgumentParser(prog="bench_probe")
    parser.add_argument("--network", default="t0")
    parser.add_argument("--size", type=int)
    parser.add_argument("--runtimes", nargs="+", default=("torch", "onnx"), choices=get_args(Runtime))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args(arguments)
    print(machine())
    for runtime in given.runtimes:
        print("\n".join(measure(given.network, given.size, runtime, given.repeats, given.seconds)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
