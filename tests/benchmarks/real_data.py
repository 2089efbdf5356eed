"""Jobs of the real-data benchmark: searches and retrainings of a small PartialNet, one JSON line each when done.

All networks of a data set cost the same: the whole network's multiply-adds of the uniform ratio 1/4, within 2 %. All
are retrained from scratch by one recipe for as many steps, and scored on the test images, which nothing else reads. A
job that has a line in the results is not run again, so the work goes on where it stopped.
"""

from __future__ import annotations

import json
import platform
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch.nn import functional

from partialnet import Architecture, create
from partialnet.data import DataSplits, load
from partialnet.models.partialnet import PartialNet
from partialnet.search.budget import Budget
from partialnet.search.cost import CostTable, layer_costs
from partialnet.search.learn_split import Method, learn_split
from partialnet.search.levels import uniform_active_channels
from partialnet.search.projection import project
from partialnet.search.result import SplitResult
from partialnet.search.supernet_result import SupernetResult
from partialnet.train import Recipe, evaluate, fit, seeded

MODEL = "partialnet_micro"
IMAGES = 10_000  # 9 000 to train on, 1 000 to search with
EPOCHS: Mapping[str, int] = MappingProxyType({"cifar10": 16, "fashion_mnist": 8})  # of a retraining
SEARCH_EPOCHS = 8  # of gates and fractional; of a supernet so many sandwich steps that it costs about as much CPU
SANDWICH_STEPS = 600
BATCH = 64
RECIPE = Recipe(learning_rate=3e-3)
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Job:
    """A training to be done; ``key`` names it in the results.

    Args:
        dataset: ``"cifar10"`` or ``"fashion_mnist"``.
        role: Role of the network: ``"uniform"``, ``"random"`` or ``"learned"``.
        name: Name of the network within its role.
        seed: Seed of weights, order and dropout.
        active_channels: Module name to n.
        facts: Further entries of its line.
    """

    dataset: str
    role: str
    name: str
    seed: int
    active_channels: Mapping[str, int]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Unique among the jobs."""
        return f"{self.dataset}/{self.role}/{self.name}/seed{self.seed}"


@dataclass
class Bench:
    """A data set at hand, the network's costs, and the results so far.

    Args:
        dataset: Its name.
        roots: Folders of its images.
    """

    dataset: str
    roots: tuple[Path, ...]

    @cached_property
    def splits(self) -> DataSplits:
        """The images; opened when needed."""
        return load(self.dataset, self.roots, seed=0, train_limit=IMAGES)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.splits.info.input_shape

    def network(self, active_channels: Mapping[str, int] | None, seed: int) -> PartialNet:
        """Return the network with these splits, or with splits to be learned; its weights depend on ``seed``."""
        options = {"num_classes": len(self.splits.info.class_names), "in_chans": self.input_shape[0]}
        with seeded(seed):
            return create(Architecture(MODEL, options, active_channels or {}), searchable=active_channels is None)

    @cached_property
    def costs(self) -> CostTable:
        """Multiply-adds of the whole network, inference form."""
        return layer_costs(self.network(None, 0), self.input_shape, "macs", "network")

    def cost(self, active_channels: Mapping[str, int]) -> float:
        """Return the multiply-adds of the network with these splits."""
        table = self.costs
        return table.total(
            [row.index(active_channels[name]) for name, row in zip(table.names, table.levels, strict=True)]
        )

    def uniform(self, ratio: float) -> dict[str, int]:
        """Return the splits of a uniform ratio."""
        return uniform_active_channels(self.network(None, 0), ratio)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return len(self.splits.train) // BATCH

    @property
    def target(self) -> float:
        """The budget of all networks."""
        return self.cost(self.uniform(1 / 4))

    @property
    def targets(self) -> list[float]:
        """Five budgets, evenly by factor, from little above the cheapest network to the uniform ratio 1/2."""
        low, high = 1.02 * self.costs.minimum, self.cost(self.uniform(1 / 2))
        return [low * (high / low) ** (step / 4) for step in range(5)]

    def wide(self, seed: int) -> dict[str, int]:
        """Return random splits of any cost, none above one half."""
        draw = random.Random(1_000 + seed)
        levels = [[n for n in row if 2 * n <= row[-1]] for row in self.costs.levels]
        return {name: draw.choice(row) for name, row in zip(self.costs.names, levels, strict=True)}

    def random(self, seed: int, target: float | None = None) -> dict[str, int]:
        """Return random splits within 2 % of the target."""
        draw = random.Random(seed)
        efforts = [[draw.random() for _ in row] for row in self.costs.levels]
        return self.costs.active_channels(project(self.costs, target or self.target, efforts).levels)

    def retrain(self, job: Job) -> dict[str, Any]:
        """Train a network from scratch and return its line."""
        network = self.network(job.active_channels, job.seed)
        train = self.splits.train.batches(BATCH, shuffle_seed=job.seed, augment="standard", drop_last=True)
        started = time.process_time()
        fit(network, train, None, recipe=RECIPE, epochs=EPOCHS[job.dataset], seed=job.seed)
        seconds = time.process_time() - started
        validation = evaluate(network, self.splits.validation.batches(250))
        test = evaluate(network, self.splits.open_test().batches(250))
        return {
            "key": job.key,
            "dataset": job.dataset,
            "role": job.role,
            "name": job.name,
            "seed": job.seed,
            "active_channels": list(job.active_channels.values()),
            "macs": self.cost(job.active_channels),
            "top1_test": test.top1,
            "loss_test": test.loss,
            "top1_validation": validation.top1,
            "loss_validation": validation.loss,
            "cpu_seconds": round(seconds, 1),
            **job.facts,
            "epochs": EPOCHS[self.dataset],
            **circumstances(),
        }

    def search(self, method: Method, seed: int, targets: Sequence[float], steps: int) -> tuple[SplitResult, float]:
        """Let ``method`` learn splits; the first target is the budget, more are a supernet's front.

        Returns:
            What it found, and its CPU seconds.
        """
        network = self.network(None, 100 + seed)
        train = self.splits.train.batches(BATCH, shuffle_seed=100 + seed, augment="standard", drop_last=True)
        budgets = [Budget(scope="network", target=target, input_shape=self.input_shape) for target in targets]
        supernet = method == "supernet"
        started = time.process_time()
        result = learn_split(
            network,
            train,
            partial(functional.cross_entropy, label_smoothing=RECIPE.label_smoothing),
            budgets[0],
            method=method,
            steps=steps,
            seed=seed,
            recipe=RECIPE,
            validation=list(self.splits.validation.batches(250)) if supernet else None,
            front=budgets[1:],
        )
        return result, time.process_time() - started


def circumstances() -> dict[str, Any]:
    """Return what a figure depends on besides the job."""
    return {
        "model": MODEL,
        "images": IMAGES,
        "batch": BATCH,
        "learning_rate": RECIPE.learning_rate,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def read(name: str) -> list[dict[str, Any]]:
    """Return the lines of ``results/<name>.jsonl``."""
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(name: str, line: Mapping[str, Any]) -> None:
    """Add a line to ``results/<name>.jsonl``."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def fixed_jobs(bench: Bench, *, seeds: int, alike: int, wide: int, wide_seeds: int = 1) -> Iterable[Job]:
    """Yield the uniform networks over the seeds, then random ones: of equal cost, and over some seeds of any cost."""
    for seed in range(seeds):
        yield Job(bench.dataset, "uniform", "1/4", seed, bench.uniform(1 / 4))
    for number in range(alike):
        yield Job(bench.dataset, "random", str(number), 0, bench.random(number))
    for seed in range(wide_seeds):
        for number in range(wide):
            yield Job(bench.dataset, "wide", str(number), seed, bench.wide(number))


def repeated(job: Job) -> dict[str, Any] | None:
    """Return the line of a training that did the same already, under this job's name: equal seeds, equal weights."""
    for line in read("retrained"):
        same = (line["dataset"], line["active_channels"], line["seed"]) == (
            job.dataset,
            list(job.active_channels.values()),
            job.seed,
        )
        if same and "same_as" not in line:
            own = {"key": job.key, "role": job.role, "name": job.name, "cpu_seconds": 0.0, "same_as": line["key"]}
            return {**line, **own, **job.facts}
    return None


def retrain(bench: Bench, jobs: Iterable[Job]) -> None:
    """Retrain what has no line yet."""
    for job in jobs:
        if job.key in {line["key"] for line in read("retrained")}:
            continue
        line = repeated(job) or bench.retrain(job)
        append("retrained", line)
        print(
            f"{job.key}: test {100 * line['top1_test']:.2f} %, {line['macs'] / 1e6:.3f} M, {line['cpu_seconds']:.0f} s",
            flush=True,
        )


def found(bench: Bench, method: Method, seed: int, targets: Sequence[float], steps: int, name: str) -> dict[str, Any]:
    """Return the line of a search, from the results or by running it."""
    key = f"{bench.dataset}/{name}/seed{seed}"
    known = [line for line in read("searches") if line["key"] == key]
    if known:
        return known[0]
    result, seconds = bench.search(method, seed, targets, steps)
    line = {
        "key": key,
        "method": method,
        "seed": seed,
        "steps": steps,
        "targets": list(targets),
        "active_channels": dict(result.active_channels),
        "cost": result.cost,
        "within_budget": result.within_budget,
        "cpu_seconds": round(seconds, 1),
        **circumstances(),
    }
    if isinstance(result, SupernetResult):
        line |= _of_supernet(bench, result, targets)
    append("searches", line)
    print(f"{key}: {list(result.active_channels.values())}, {seconds:.0f} s", flush=True)
    return line


def _of_supernet(bench: Bench, result: SupernetResult, targets: Sequence[float]) -> dict[str, Any]:
    front = [
        result.for_budget(Budget(scope="network", target=target, input_shape=bench.input_shape)) for target in targets
    ]
    draws = {"random": bench.random, "wide": bench.wide}
    others = {f"{role}/{number}": draw(number) for role, draw in draws.items() for number in range(20)}
    return {
        "front": [dict(entry.active_channels) for entry in front],
        "rings": result.values.rings,
        "predicted": {name: result.values.predict(active) for name, active in others.items()},
        "scored": {name: result.supernet.score(result.supernet.levels_of(active)) for name, active in others.items()},
    }


def learned_jobs(
    bench: Bench, methods: Sequence[Method], seeds: Sequence[int], *, searches: int | None = None
) -> Iterable[Job]:
    """Search for the common budget by each method and seed, and yield what was found, to be retrained.

    Args:
        bench: The data set.
        methods: Methods of the searches.
        seeds: Seeds of the retrainings, and of the searches.
        searches: Number of searches; if there are fewer than seeds, later seeds retrain the results of the first
            searches.
    """
    for seed in seeds:
        for method in methods:
            steps = SANDWICH_STEPS if method == "supernet" else SEARCH_EPOCHS * bench.steps_per_epoch
            targets = [bench.target, *bench.targets] if method == "supernet" else [bench.target]
            line = found(bench, method, seed % (searches or len(seeds)), targets, steps, method)
            facts = {"search_seed": line["seed"]}
            yield Job(bench.dataset, "learned", method, seed, line["active_channels"], facts)


def front_jobs(bench: Bench, seed: int) -> Iterable[Job]:
    """Yield five networks of one supernet, and those of five short searches that cost as much CPU together."""
    whole = found(bench, "supernet", seed, [bench.target, *bench.targets], SANDWICH_STEPS, "supernet")
    for number, active in enumerate(whole["front"][1:]):
        yield Job(bench.dataset, "front", f"supernet/{number}", seed, active)
    long = found(bench, "fractional", seed, [bench.target], SEARCH_EPOCHS * bench.steps_per_epoch, "fractional")
    steps = round(long["steps"] * whole["cpu_seconds"] / len(bench.targets) / long["cpu_seconds"])
    for number, target in enumerate(bench.targets):
        line = found(bench, "fractional", seed, [target], steps, f"fractional-front-{number}")
        yield Job(bench.dataset, "front", f"fractional/{number}", seed, line["active_channels"])
