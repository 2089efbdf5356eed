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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from partialnet import Architecture, create
from partialnet.data import DataSplits, load
from partialnet.models.partialnet import PartialNet
from partialnet.search.cost import CostTable, layer_costs
from partialnet.search.levels import uniform_active_channels
from partialnet.search.projection import project
from partialnet.train import Recipe, evaluate, fit, seeded

MODEL = "partialnet_micro"
IMAGES = 10_000  # 9 000 to train on, 1 000 to search with
EPOCHS = 16
BATCH = 64
RECIPE = Recipe(learning_rate=3e-3)
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Job:
    """A training to be done; ``key`` names it in the results.

    Args:
        dataset: ``"cifar10"`` or ``"fashion_mnist"``.
        role: What the network is: ``"uniform"``, ``"random"`` or ``"learned"``.
        name: Which of them.
        seed: Of weights, order and dropout.
        active_channels: Module name to n.
        facts: What else its line is to hold.
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
        roots: Where its images are.
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
    def target(self) -> float:
        """The budget of all networks."""
        return self.cost(self.uniform(1 / 4))

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
        fit(network, train, None, recipe=RECIPE, epochs=EPOCHS, seed=job.seed)
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
            **circumstances(),
        }


def circumstances() -> dict[str, Any]:
    """Return what a figure depends on besides the job."""
    return {
        "model": MODEL,
        "images": IMAGES,
        "epochs": EPOCHS,
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


def fixed_jobs(bench: Bench, *, seeds: int, random_architectures: int) -> Iterable[Job]:
    """Yield the uniform networks over the seeds, then random ones of equal cost, one seed each."""
    for seed in range(seeds):
        yield Job(bench.dataset, "uniform", "1/4", seed, bench.uniform(1 / 4))
    for number in range(random_architectures):
        yield Job(bench.dataset, "random", str(number), 0, bench.random(number))


def run(bench: Bench, jobs: Iterable[Job], results: str) -> None:
    """Retrain what has no line yet."""
    for job in jobs:
        if job.key in {line["key"] for line in read(results)}:
            continue
        line = bench.retrain(job)
        append(results, line)
        print(f"{job.key}: test {100 * line['top1_test']:.2f} %, {line['macs'] / 1e6:.3f} M, "
              f"{line['cpu_seconds']:.0f} s", flush=True)
