"""How well a latency table predicts: 50 random architectures, measured whole, against the sum of their layers.

The median error may be 10 % at most (goal 5 %), and the rank correlation must be 0.85 at least (goal 0.95). Rows as
timed alone, with only a constant, are shown beside the corrected ones.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from nas.definition.sections import LatencySpec
from nas.networks.named import load_network
from nas.probes.fitting import rank_correlation
from nas.probes.runtimes import Runtime, example_images
from nas.probes.table import WHOLE, DeviceTable, build_table, local_job
from nas.probes.timers import LocalTimer
from nas.probes.timing import Timing, median
from partialnet.models.partialnet import PartialNet, create
from partialnet.search.cost import inference_form
from partialnet.search.latency_parts import LayerKey
from partialnet.search.latency_rows import latency_keys
from partialnet.search.latency_table import LatencyTable
from tests.benchmarks.timing import machine

BOUND, GOAL = (0.10, 0.85), (0.05, 0.95)


def judged(name: str, predicted: Sequence[float], measured: Sequence[float]) -> str:
    """Return a line: median and largest error, rank correlation, verdict."""
    errors = sorted(abs(p / m - 1) for p, m in zip(predicted, measured, strict=True))
    rank = rank_correlation(predicted, measured)
    met = [errors[len(errors) // 2] <= error and rank >= least for error, least in (GOAL, BOUND)]
    verdict = "goal met" if met[0] else "bound met" if met[1] else "missed"
    return f"  {name:44} median {median(errors):6.2%}  largest {errors[-1]:6.1%}  rank {rank:.3f}  {verdict}"


def with_constant(table: LatencyTable, networks: Sequence[tuple[Sequence[LayerKey], float]]) -> LatencyTable:
    """Return a table with the constant of given networks, its rows unchanged."""
    return table.fitted("random", networks)


def measure(name: str, size: int | None, runtime: Runtime, whole: int, networks: int, seconds: float) -> list[str]:
    """Build a table, measure random architectures, and return the lines of the report."""
    loaded = load_network(name, size=size)
    assert isinstance(loaded.network, PartialNet)
    model = create(loaded.network.architecture(), searchable=True)
    shape, spec = loaded.input_shape, LatencySpec(runtime=runtime, seconds=seconds)
    job = local_job(model, shape, name, spec, whole=whole)
    started = time.perf_counter()
    with LocalTimer(spec, shape) as timer:
        table = build_table(job, timer)
        alone = build_table(replace(job, whole=0), timer)
        built = time.perf_counter() - started
        keys, generator = latency_keys(model, shape), random.Random(7)
        choices = [{layer: generator.randrange(len(keys[layer])) for layer in keys} for _ in range(networks)]
        images = example_images(shape, spec.batch)
        timings = [timer.time(inference_form(model, choice), images) for choice in choices]
    calls = [[key for layer in keys for key in keys[layer][choice[layer]]] for choice in choices]
    title = f"\n{name} at {'x'.join(map(str, shape))}, {runtime}, one thread ({built:.0f} s for two tables)"
    return [title, *_report(table, alone, calls, timings)]


def _report(
    table: DeviceTable, alone: DeviceTable, calls: Sequence[Sequence[LayerKey]], timings: Sequence[Timing]
) -> list[str]:
    measured = [timing.ratio * table.reference_ms for timing in timings]
    low, high = min(measured), max(measured)
    fitted = with_constant(alone.table, list(zip(calls, measured, strict=True)))
    assert table.check is not None
    return [
        f"  {len(measured)} networks from {low:.3f} to {high:.3f} ms; widest interval "
        f"{max(timing.width for timing in timings):.1%}; {sum(not timing.precise for timing in timings)} not precise",
        f"  the table itself: {table.check.sentence()}",
        judged("rows corrected by whole networks", [table.table.total(call) for call in calls], measured),
        judged("rows as timed alone, constant of the 50", [fitted.total(call) for call in calls], measured),
        judged("the same figure for all", [median(measured)] * len(measured), measured),
    ]


def main(arguments: Sequence[str] = ()) -> None:
    """Print the errors of each runtime."""
    parser = argparse.ArgumentParser(prog="bench_latency_table")
    parser.add_argument("--network", default="t0")
    parser.add_argument("--size", type=int)
    parser.add_argument("--runtimes", nargs="+", default=("onnx", "torch"), choices=get_args(Runtime))
    parser.add_argument("--whole", type=int, default=WHOLE)
    parser.add_argument("--networks", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args(arguments)
    print(machine())
    for runtime in given.runtimes:
        found = measure(given.network, given.size, runtime, given.whole, given.networks, given.seconds)
        print("\n".join(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
