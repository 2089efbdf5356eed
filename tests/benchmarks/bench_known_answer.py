"""How near each method comes to splits that are known (``known_answer``), on instances that nothing was tuned on.

The instances are drawn by their number: width, depth, map and multiset of levels. Those used for tuning were others.
Level error: mean over layers of the distance to the teacher's level in halvings. Retrained error: of the student
trained from scratch, over that of a uniform student of equal cost. Then kernel sizes are to be found with the splits,
and splits, hidden widths and the presence of blocks together (``wide_answer``).
"""

from __future__ import annotations

import math
import random
import statistics
import sys
from types import MappingProxyType

import torch

from partialnet.layers.kernel_size import KERNELS
from tests.benchmarks import wide_answer
from tests.benchmarks.known_answer import Instance, level_error, retrained_error, search
from tests.benchmarks.timing import machine

RETRAINING_STEPS = 400
STEPS = MappingProxyType({"gates": 400, "fractional": 400, "supernet": 200})
METHODS = tuple(STEPS)
INSTANCES = 12


def hidden(number: int) -> Instance:
    """Return the instance of a number."""
    draw = random.Random(f"held out {number}")
    while True:
        channels = draw.choice((32, 40, 48, 64, 80, 96))
        legal = [channels >> halvings for halvings in range(1, 6) if channels % (1 << halvings) == 0]
        levels = tuple(draw.choice(legal) for _ in range(draw.randint(4, 8)))
        if len(set(levels)) >= 2:
            return Instance(channels, levels, draw.choice((5, 6, 8)), 2_000 + number)


def uniform_channels(instance: Instance) -> int:
    """Return the number of active channels that costs as much in every layer as the teacher's."""
    return round(math.sqrt(statistics.mean(n * n for n in instance.answer)))


def random_error(instance: Instance, draws: int = 100) -> float:
    """Return the mean level error of random permutations of the teacher's levels."""
    draw = random.Random(0)
    errors = []
    for _ in range(draws):
        levels = instance.answer
        draw.shuffle(levels)
        errors.append(level_error(levels, instance.answer))
    return statistics.mean(errors)


def interval(values: list[float]) -> str:
    """Return mean and half-width of the 95 % t interval."""
    from scipy import stats

    mean, error = statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.3f} +- {float(stats.t.ppf(0.975, len(values) - 1)) * error:.3f}"


def main(instances: int = INSTANCES, retrain: bool = True) -> None:
    """Print a line for each instance and method, then the means."""
    torch.set_num_threads(1)
    print(machine())
    errors: dict[str, list[float]] = {name: [] for name in (*METHODS, "uniform", "random")}
    ratios: dict[str, list[float]] = {name: [] for name in (*METHODS, "teacher")}
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    worst = 0.0
    for number in range(instances):
        instance = hidden(number)
        uniform = [uniform_channels(instance)] * len(instance.levels)
        errors["uniform"].append(level_error(uniform, instance.answer))
        errors["random"].append(random_error(instance))
        base = retrained_error(instance, uniform, 0, RETRAINING_STEPS) if retrain else math.nan
        if retrain:
            ratios["teacher"].append(retrained_error(instance, instance.answer, 0, RETRAINING_STEPS) / base)
        for method in METHODS:
            found = search(instance, method, 0, STEPS[method])
            errors[method].append(found.error)
            seconds[method].append(found.seconds)
            worst = max(worst, abs(found.cost - 1))
            if retrain:
                ratios[method].append(retrained_error(instance, found.active, 0, RETRAINING_STEPS) / base)
            tail = f", retrained / uniform {ratios[method][-1]:.3f}" if retrain else ""
            print(f"{number:2} {instance.label}: {method} level error {found.error:.3f}{tail}", flush=True)
    print(f"\n{'':12}  level error        retrained / uniform  CPU s a search   n = {instances}")
    for name, values in errors.items():
        ratio = interval(ratios[name]) if ratios.get(name) else ""
        time = f"{statistics.mean(seconds[name]):.1f}" if name in seconds else ""
        print(f"{name:12}  {interval(values):17}  {ratio:19}  {time}")
    if retrain:
        print(f"{'teacher':12}  {'0':17}  {interval(ratios['teacher'])}")
    print(f"largest distance from the budget: {100 * worst:.2f} %")
    kernels(instances)
    wide(instances)


def with_kernels(number: int, kind: str = "held out") -> Instance:
    """Return the instance of a number whose kernel sizes are to be found as well."""
    draw = random.Random(f"kernels {kind} {number}")
    while True:
        channels = draw.choice((32, 48, 64))
        # Lower levels differ by less than the tolerance of the budget, which then says nothing about them.
        splits = [channels >> halvings for halvings in (1, 2, 3)]
        layers = [(draw.choice(splits), draw.choice(KERNELS)) for _ in range(draw.randint(4, 7))]
        levels, sizes = zip(*layers, strict=True)
        if len(set(levels)) >= 2 and len(set(sizes)) == 2:
            return Instance(channels, levels, draw.choice((6, 8)), 9_000 + number, sizes)


def kernels(instances: int = INSTANCES) -> None:
    """Print how near splits and kernel sizes come to the teacher's."""
    torch.set_num_threads(1)
    levels: dict[str, list[float]] = {name: [] for name in METHODS}
    wrong: dict[str, list[float]] = {name: [] for name in METHODS}
    worst = 0.0
    for number in range(instances):
        instance = with_kernels(number)
        for method in METHODS:
            found = search(instance, method, 0, STEPS[method])
            levels[method].append(found.error)
            wrong[method].append(found.kernel_error)
            worst = max(worst, abs(found.cost - 1))
            print(
                f"{number:2} {instance.label}: {method} level error {found.error:.3f}, wrong kernels "
                f"{found.kernel_error:.2f}, {found.seconds:.1f} s",
                flush=True,
            )
    print(f"\nsplits and kernel sizes: level error, share of wrong kernel sizes, n = {instances}")
    for name in METHODS:
        print(f"{name:12}  {interval(levels[name]):17}  {interval(wrong[name])}")
    print(f"largest distance from the budget: {100 * worst:.2f} %")


def wide(instances: int = INSTANCES) -> None:
    """Print the same for splits, hidden widths and the presence of blocks together (``wide_answer``)."""
    torch.set_num_threads(1)
    errors: dict[str, list[float]] = {name: [] for name in (*METHODS, "random")}
    worst = 0.0
    for number in range(instances):
        instance = wide_answer.draw(number)
        errors["random"].append(wide_answer.random_error(instance))
        for method in METHODS:
            found = wide_answer.search(instance, method, 0, STEPS[method])
            errors[method].append(found.error)
            worst = max(worst, abs(found.cost - 1))
            print(f"{number:2} {instance.label}: {method} error {found.error:.3f}, {found.seconds:.1f} s", flush=True)
    print(f"\nsplits, hidden widths and blocks, n = {instances}")
    for name, values in errors.items():
        print(f"{name:12}  {interval(values)}")
    print(f"largest distance from the budget: {100 * worst:.2f} %")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
