"""Trainings that prove or refute the wider search on images: a plan that can be stopped and goes on where it was.

The base network has more blocks than the budget pays for, so that a wider search has something to choose. All networks
of a target cost the same multiply-adds within 2 %, and one recipe trains them from scratch with the same seeds:

- ``learned-gates``: split, kernel size, hidden width of each MLP, and presence of each block, by gates for one target;
- ``learned-wide``: the same without kernel sizes, by one supernet for all targets;
- ``learned-split``: the split alone, by a supernet of the scaled published shape;
- ``uniform``: all blocks of the base network with ratio 1/4 and one hidden width for all MLPs;
- ``random``: a random network of the wide space;
- ``scaled``: the published shape (ratio 1/4), scaled in width or depth.

ResNet-18 is converted and searched for several targets, beside uniform ratios and narrower plain ResNets. A search is a
line too, so that trainings for its other targets do not repeat it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from nas.definition.sections import LatencySpec
from nas.definition.study import StudyDefinition, parse_study
from nas.finalist import Finalist
from nas.probes.latency import probe_latency
from nas.sweep.scaled_networks import ScaledNetworks
from nas.training.build import build_finalist, build_uniform
from partialnet import Architecture, create
from partialnet.data import DataSplits, load
from partialnet.fuse import fuse
from partialnet.layers.choice import choices_of
from partialnet.networks import architecture_of
from partialnet.search.budget import Budget
from partialnet.search.cost import layer_costs
from partialnet.search.learn_split import Method, learn_split
from partialnet.search.operations import macs_by_module
from partialnet.search.selection import sample_within
from partialnet.search.supernet_result import SupernetResult
from partialnet.train import Recipe, evaluate, fit, seeded
from tests.benchmarks.real_data import append, read

RESULTS, SEARCHES, LATENCIES = "proof", "proof_searches", "proof_latencies"
DATASETS = ("cifar10", "fashion_mnist")
SEEDS = 5
MAIN = 0.75
"""Target of the proof, relative to the base network with ratio 1/4."""
KINDS = ("scaled", "learned-gates", "learned-wide", "uniform", "random", "learned-split")
MAIN_KINDS = KINDS[:2]
"""The two kinds whose difference is to be shown."""
FRONT_TARGETS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {"cifar10": (0.6, MAIN, 1.0), "fashion_mnist": (MAIN,)}
)
"""Targets that one search of the wide space serves."""
RESNET_KINDS = ("resnet-scaled", "resnet-learned", "resnet-uniform")
RESNET_TARGETS = (0.35, 0.5, 0.75)
"""Targets of ResNet-18, relative to the plain network; what is not converted costs 0.28."""
WIDE = ("split", "mlp_ratio", "depth")
WIDE_WITH_KERNELS = (*WIDE, "kernel")
IMAGES = 10_000
EPOCHS: Mapping[str, int] = MappingProxyType({"cifar10": 16, "fashion_mnist": 8})
BATCH = 64
RECIPE = Recipe(learning_rate=3e-3)
SEARCH_STEPS = 900  # sandwich steps of a supernet
GATE_STEPS = 1_400  # ten epochs
MODELS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "base": {"name": "micro", "depths": [2, 2, 3, 2]},
        "published": {"name": "micro"},
        # A stem of 7x7 for 64 channels would be most of so narrow a network.
        "resnet": {
            "timm": "resnet18",
            "options": {"channels": [32, 64, 128, 256], "stem_type": "deep", "stem_width": 16},
            "convert": ["layer*"],
            "rest": "identity",
        },
    }
)
HIDDEN = tuple(step / 16 for step in range(4, 25))
"""Hidden widths of all MLPs together, relative to the usual one, from which the uniform network takes its own."""


Settled = tuple[Architecture, float]
"""A network, and the CPU seconds that its search took now: 0 if there was none, or its line was there."""


@dataclass(frozen=True)
class Job:
    """A training.

    Args:
        dataset: Name of the data set.
        kind: Kind of the network, one of :data:`KINDS` and :data:`RESNET_KINDS`.
        target: Multiply-adds, relative to the base network or to the plain ResNet.
        seed: Seed of weights, order and dropout, and of the search.
    """

    dataset: str
    kind: str
    target: float
    seed: int

    @property
    def key(self) -> str:
        """Unique among the jobs."""
        return f"{self.dataset}/{self.kind}/{self.target:g}/seed{self.seed}"


def plan() -> Iterator[Job]:
    """Yield all jobs, those that decide most first: the main pairs, the fronts, then the other kinds."""
    for seed in range(SEEDS):
        yield from (Job(dataset, kind, MAIN, seed) for dataset in DATASETS for kind in MAIN_KINDS)
    for seed in range(SEEDS):
        yield from (Job("cifar10", kind, target, seed) for target in RESNET_TARGETS for kind in RESNET_KINDS)
        others = [target for target in FRONT_TARGETS["cifar10"] if target != MAIN]
        yield from (Job("cifar10", kind, target, seed) for target in others for kind in MAIN_KINDS)
    for seed in range(SEEDS):
        yield from (Job(dataset, kind, MAIN, seed) for dataset in DATASETS for kind in KINDS[2:])


@dataclass(eq=False)
class Bench:
    """The networks of a data set, their costs, and the trainings.

    Args:
        dataset: Name of the data set.
        roots: Folders of its images.
        epochs: Number of epochs of a training; None for that of the proof.
        steps: Number of steps of a search by a supernet.
        gate_steps: Number of steps of a search by gates.
        images: Number of images, a tenth of them for validation.
    """

    dataset: str
    roots: tuple[Path, ...]
    epochs: int | None = None
    steps: int = SEARCH_STEPS
    gate_steps: int = GATE_STEPS
    images: int = IMAGES

    @cached_property
    def splits(self) -> DataSplits:
        """The images; opened when needed."""
        return load(self.dataset, self.roots, seed=0, train_limit=self.images)

    @cached_property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.splits.info.class_names)

    def study(self, model: str) -> StudyDefinition:
        """Return a definition with one of the :data:`MODELS`."""
        return parse_study({"name": "proof", "data": {"name": self.dataset}, "model": dict(MODELS[model])})

    def architecture(self, model: str, **more: Any) -> Architecture:
        """Return the architecture of one of the :data:`MODELS`; ``more`` are choices beside the split."""
        shape = self.study(model).data.input_shape
        found = self.study(model).model.architecture({}, in_chans=shape[0], num_classes=self.classes)
        return Architecture(found.model, found.options, {}, found.conversion, **more)

    def cost(self, network: nn.Module) -> float:
        """Return the multiply-adds of a fixed network."""
        return macs_by_module(fuse(network.eval()), self.splits.info.input_shape)[""]

    @cache  # noqa: B019  a bench lives as long as the program
    def whole(self, model: str, ratio: float) -> float:
        """Return the multiply-adds of one of the :data:`MODELS` with a uniform ratio."""
        return self.cost(build_uniform(self.study(model), self.classes, ratio))

    def absolute(self, job: Job) -> float:
        """Return the multiply-adds of a job's target."""
        return job.target * (self.whole("resnet", 1.0) if job.kind in RESNET_KINDS else self.whole("base", 1 / 4))

    @cache  # noqa: B019
    def scaled(self, model: str, target: float) -> Finalist:
        """Return the published shape of one of the :data:`MODELS`, scaled to some multiply-adds."""
        return ScaledNetworks(self.study(model), self.classes).of_cost(0, None, target)

    def settle(self, job: Job) -> Settled:
        """Return the network of a job, and the CPU seconds of its search."""
        return _NETWORKS[job.kind](self, job)

    def train(self, job: Job) -> dict[str, Any]:
        """Settle on the network of a job, train it from scratch, and return its line."""
        architecture, searched = self.settle(job)
        with seeded(job.seed):
            network = create(architecture)
        train = self.splits.train.batches(BATCH, shuffle_seed=job.seed, augment="standard", drop_last=True)
        epochs = self.epochs or EPOCHS[self.dataset]
        started = time.process_time()
        fit(network, train, None, recipe=RECIPE, epochs=epochs, seed=job.seed)
        seconds = time.process_time() - started
        validated = evaluate(network, self.splits.validation.batches(250))
        tested = evaluate(network, self.splits.open_test().batches(250))
        return {
            "key": job.key, "dataset": job.dataset, "kind": job.kind, "target": job.target, "seed": job.seed,
            "architecture": architecture.to_dict(), "macs": self.cost(network), "macs_target": self.absolute(job),
            "top1_validation": validated.top1, "top1_test": tested.top1, "loss_test": tested.loss,
            "cpu_seconds": round(seconds, 1), "search_cpu_seconds": round(searched, 1), "epochs": epochs,
            "images": self.images, "batch": BATCH, "learning_rate": RECIPE.learning_rate, "torch": torch.__version__,
        }  # fmt: skip


def _searched(
    bench: Bench, job: Job, start: Architecture, kinds: Sequence[str], targets: Sequence[float], method: Method
) -> Settled:
    """Learn the choices of ``kinds`` for the targets, by one supernet or by gates; return the network of the job."""
    key = f"{job.dataset}/{job.kind}/seed{job.seed}"
    if method != "supernet":
        key += f"/{job.target:g}"
    line = next((line for line in read(SEARCHES) if line["key"] == key), None)
    seconds = 0.0
    if line is None:
        line = {"key": key, **_search(bench, job, start, kinds, targets, method)}
        append(SEARCHES, line)
        seconds = line["cpu_seconds"]
    return Architecture.from_dict(line["architectures"][f"{job.target:g}"]), seconds


def _search(
    bench: Bench, job: Job, start: Architecture, kinds: Sequence[str], targets: Sequence[float], method: Method
) -> dict[str, Any]:
    """Search; return the line with the network of each target."""
    with seeded(job.seed):
        network = create(start, searchable=kinds)
    train = bench.splits.train.batches(BATCH, shuffle_seed=100 + job.seed, augment="standard", drop_last=True)
    shape = bench.splits.info.input_shape
    budgets = {
        target: Budget(scope="network", target=bench.absolute(replace(job, target=target)), input_shape=shape)
        for target in targets
    }
    steps = bench.steps if method == "supernet" else bench.gate_steps
    validation = list(bench.splits.validation.batches(250)) if method == "supernet" else None
    started = time.process_time()
    result = learn_split(
        network,
        train,
        partial(functional.cross_entropy, label_smoothing=RECIPE.label_smoothing),
        budgets[targets[0]],
        method=method,
        steps=steps,
        seed=job.seed,
        recipe=RECIPE,
        validation=validation,
        front=[budgets[target] for target in targets[1:]],
    )
    fixed = {
        target: result.for_budget(budget).fixed if isinstance(result, SupernetResult) else result.fixed
        for target, budget in budgets.items()
    }
    return {
        "architectures": {f"{target:g}": architecture_of(network).to_dict() for target, network in fixed.items()},
        "method": method, "steps": steps, "images": bench.images,
        "cpu_seconds": round(time.process_time() - started, 1), "torch": torch.__version__,
    }  # fmt: skip


def _learned_gates(bench: Bench, job: Job) -> Settled:
    return _searched(bench, job, bench.architecture("base"), WIDE_WITH_KERNELS, (job.target,), "gates")


def _learned_wide(bench: Bench, job: Job) -> Settled:
    return _searched(bench, job, bench.architecture("base"), WIDE, FRONT_TARGETS[job.dataset], "supernet")


def _learned_split(bench: Bench, job: Job) -> Settled:
    shape = _scaled(bench, job)[0]
    return _searched(bench, job, Architecture(shape.model, shape.options, {}), ("split",), (job.target,), "supernet")


def _resnet_learned(bench: Bench, job: Job) -> Settled:
    return _searched(bench, job, bench.architecture("resnet"), ("split",), RESNET_TARGETS, "supernet")


def _scaled(bench: Bench, job: Job) -> Settled:
    finalist = bench.scaled("published", bench.absolute(job))
    return architecture_of(build_finalist(bench.study("published"), bench.classes, finalist)), 0.0


def _resnet_scaled(bench: Bench, job: Job) -> Settled:
    finalist = bench.scaled("resnet", bench.absolute(job))
    return architecture_of(build_finalist(bench.study("resnet"), bench.classes, finalist)), 0.0


def _resnet_uniform(bench: Bench, job: Job) -> Settled:
    """Return the uniform ratio of the converted ResNet with the closest cost."""
    study = bench.study("resnet")
    ratio = min(
        (step / 16 for step in range(1, 17)),
        key=lambda ratio: abs(bench.whole("resnet", ratio) / bench.absolute(job) - 1),
    )
    return architecture_of(build_uniform(study, bench.classes, ratio)), 0.0


def _uniform(bench: Bench, job: Job) -> Settled:
    """Return the base network with ratio 1/4 and the hidden width, the same for all MLPs, that meets the target."""
    plain = create(bench.architecture("base"))
    usual = {name: module.fc1.out_channels for name, module in plain.named_modules() if hasattr(module, "fc1")}
    tried = []
    for share in HIDDEN:
        hidden = {name: max(1, round(share * width)) for name, width in usual.items()}
        architecture = bench.architecture("base", hidden_channels=hidden)
        tried.append((abs(bench.cost(create(architecture)) / bench.absolute(job) - 1), share, architecture))
    return min(tried, key=lambda entry: entry[:2])[2], 0.0


def _random(bench: Bench, job: Job) -> Settled:
    """Return a network of the wide space within 2 % of the target, drawn with equal probability."""
    network = create(bench.architecture("base"), searchable=WIDE)
    table = layer_costs(network, bench.splits.info.input_shape, "macs", "network")
    generator = torch.Generator().manual_seed(1_000 + job.seed)
    [chosen] = sample_within(table, bench.absolute(job), generator, 1)
    choices = choices_of(network)
    for name, value in table.space.settings(chosen).items():
        choices[name].choose(value)
    return architecture_of(network), 0.0


_NETWORKS: Mapping[str, Callable[[Bench, Job], Settled]] = MappingProxyType(
    {
        "scaled": _scaled, "learned-gates": _learned_gates, "learned-wide": _learned_wide,
        "uniform": _uniform, "random": _random,
        "learned-split": _learned_split, "resnet-scaled": _resnet_scaled, "resnet-learned": _resnet_learned,
        "resnet-uniform": _resnet_uniform,
    }
)  # fmt: skip


def core_hours() -> float:
    """Return the CPU time of all lines so far, in hours."""
    lines = read(RESULTS)
    return math.fsum(line["cpu_seconds"] + line["search_cpu_seconds"] for line in lines) / 3600


def run(roots: tuple[Path, ...], hours: float, only: str = "") -> None:
    """Run the jobs that have no line yet, until all lines together have taken ``hours`` of CPU time.

    Args:
        roots: Folders of the data sets.
        hours: CPU time of all lines together, in hours.
        only: Beginning of the keys of the jobs to run, for several processes beside each other.
    """
    benches = {dataset: Bench(dataset, roots) for dataset in DATASETS}
    for job in plan():
        if not job.key.startswith(only):
            continue
        if core_hours() >= hours:
            print(f"{core_hours():.1f} core-hours are used up", flush=True)
            return
        if job.key in {line["key"] for line in read(RESULTS)}:
            continue
        line = benches[job.dataset].train(job)
        append(RESULTS, line)
        print(
            f"{job.key}: test {100 * line['top1_test']:.2f} %, {line['macs'] / 1e6:.3f} M, "
            f"{line['cpu_seconds'] + line['search_cpu_seconds']:.0f} s",
            flush=True,
        )


def measure() -> None:
    """Measure each trained network that has no latency yet: ONNX Runtime, one thread, one image."""
    known = {line["architecture"] for line in read(LATENCIES)}
    usual = next((line["reference_ms"] for line in read(LATENCIES)), None)
    spec = LatencySpec(runtime="onnx")
    for line in read(RESULTS):
        architecture = Architecture.from_dict(line["architecture"])
        if architecture.id in known:
            continue
        shape = (3, 32, 32) if line["dataset"] == "cifar10" else (1, 28, 28)
        found = probe_latency(create(architecture).eval(), shape, spec, usual_ms=usual)
        usual = usual or float(found.figures["usual_reference_ms"])
        known.add(architecture.id)
        facts = {"reference_ms": usual, "fingerprint": found.fingerprint}
        append(LATENCIES, {"architecture": architecture.id, "latency_ms": found.value, **facts})
