"""The networks of the proof on images, the searches that some of them come from, and their trainings.

The base network has more blocks than the budget pays for, so that a wider search has something to choose. All networks
of a target cost the same multiply-adds within 2 %, and one recipe trains them from scratch with the same seeds:

- ``learned-gates``: split, kernel size, hidden width of each MLP, and presence of each block, by gates for one target;
- ``learned-3x3``: the same without kernel sizes;
- ``learned-ms``: as ``learned-gates``, for a target in milliseconds by a table of a device;
- ``learned-wide`` and ``learned-split``: without kernel sizes, by one supernet for all targets; and the split alone, by
  a supernet of the scaled published shape;
- ``uniform``: all blocks of the base network with ratio 1/4 and one hidden width for all MLPs;
- ``uniform-5x5``: the same with kernels of 5x5, which tells what these alone are worth;
- ``random``: a random network of the space of ``learned-gates``;
- ``scaled``: the published shape (ratio 1/4), scaled in width or depth.

ResNet-18 is converted and searched (``resnet-learned``: one supernet for all targets, ``resnet-gates``, and
``resnet-ms``), beside uniform ratios and narrower plain ResNets. A search is a line too, so that trainings for its
other targets do not repeat it.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from nas.definition.study import StudyDefinition, parse_study
from nas.finalist import Finalist
from nas.probes.table import DeviceTable
from nas.sweep.scaled_networks import ScaledNetworks
from nas.training.build import build_finalist, build_uniform
from partialnet import Architecture, create
from partialnet.data import DataSplits, load
from partialnet.data.source import ImageSource
from partialnet.fuse import fuse
from partialnet.layers.choice import choices_of
from partialnet.networks import architecture_of
from partialnet.search.budget import Budget
from partialnet.search.cost import layer_costs
from partialnet.search.latency_rows import predicted_latency
from partialnet.search.latency_table import LatencyTable
from partialnet.search.learn_split import Method, learn_split
from partialnet.search.operations import macs_by_module
from partialnet.search.selection import sample_within
from partialnet.search.supernet_result import SupernetResult
from partialnet.train import Recipe, evaluate, fit, seeded
from tests.benchmarks import real_data
from tests.benchmarks.real_data import append, read

WIDE = ("split", "mlp_ratio", "depth")
WIDE_WITH_KERNELS = (*WIDE, "kernel")
RECIPE = Recipe(learning_rate=3e-3)
SIZES: Mapping[str, int | None] = MappingProxyType({"cifar10": None, "fashion_mnist": None, "cifar10-64": 64})
"""Size of the images in pixels by name of the data set here; None for its own."""
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
SEEDLESS = ("scaled", "uniform", "uniform-5x5", "resnet-scaled", "resnet-uniform")
"""Kinds of networks that no seed changes."""
HIDDEN = tuple(step / 16 for step in range(4, 25))
"""Hidden widths of all MLPs together, relative to the usual one, from which the uniform network takes its own."""

Settled = tuple[Architecture, float]
"""A network, and the seconds that its search took now: 0 if there was none, or its line was there."""


@dataclass(frozen=True)
class Setting:
    """Circumstances that all networks of a proof share.

    Args:
        name: Name of the file of its lines.
        device: Device of the trainings and searches.
        images: Number of images, a tenth of them for validation; None for all.
        batch: Number of images in a step.
        epochs: Number of epochs of a training, by data set.
        gate_steps: Number of steps of a search by gates.
        supernet_steps: Number of sandwich steps of a supernet.
        targets: Targets that one supernet serves, by data set.
        resnet_targets: Targets that one supernet of ResNet-18 serves.
    """

    name: str
    device: str
    images: int | None
    batch: int
    epochs: Mapping[str, int]
    gate_steps: int
    supernet_steps: int
    targets: Mapping[str, tuple[float, ...]]
    resnet_targets: tuple[float, ...]

    @property
    def searches(self) -> str:
        """Name of the file of its searches' lines."""
        return f"{self.name}_searches"


@dataclass(frozen=True)
class Job:
    """A training.

    Args:
        dataset: Name of the data set, one of :data:`SIZES`.
        kind: Kind of the network.
        target: Multiply-adds, relative to the base network with ratio 1/4 or to the plain ResNet; for kinds in
            milliseconds, time by the table, relative to the same.
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

    @property
    def model(self) -> str:
        """The one of :data:`MODELS` that its target refers to."""
        return "resnet" if self.kind.startswith("resnet") else "base"

    @property
    def in_milliseconds(self) -> bool:
        """Whether its target is a time."""
        return self.kind.endswith("-ms")


@dataclass(eq=False)
class Bench:
    """The networks of a data set, their costs, and the trainings.

    Args:
        dataset: Name of the data set, one of :data:`SIZES`.
        roots: Folders of its images.
        setting: Circumstances of its trainings.
    """

    dataset: str
    roots: tuple[Path, ...]
    setting: Setting

    @property
    def _name(self) -> str:
        return self.dataset.partition("-")[0]

    @cached_property
    def splits(self) -> DataSplits:
        """The images; opened when needed."""
        size = SIZES[self.dataset]
        return load(self._name, self.roots, seed=0, train_limit=self.setting.images, image_size=size)

    @cached_property
    def test(self) -> ImageSource:
        """The test images, which nothing but the last evaluation reads."""
        return self.splits.open_test()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width of an image."""
        return self.study("base").data.input_shape

    @cached_property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.splits.info.class_names)

    def study(self, model: str) -> StudyDefinition:
        """Return a definition with one of the :data:`MODELS`."""
        data = {"name": self._name, "image_size": SIZES[self.dataset]}
        return parse_study({"name": "proof", "data": data, "model": dict(MODELS[model])})

    def architecture(self, model: str, **more: Any) -> Architecture:
        """Return the architecture of one of the :data:`MODELS`; ``more`` are choices beside the split."""
        found = self.study(model).model.architecture({}, in_chans=self.shape[0], num_classes=self.classes)
        return Architecture(found.model, found.options, {}, found.conversion, **more)

    def cost(self, network: nn.Module) -> float:
        """Return the multiply-adds of a fixed network."""
        return macs_by_module(fuse(network.eval()), self.shape)[""]

    @cache  # noqa: B019  a bench lives as long as the program
    def whole(self, model: str, ratio: float) -> float:
        """Return the multiply-adds of one of the :data:`MODELS` with a uniform ratio."""
        return self.cost(build_uniform(self.study(model), self.classes, ratio))

    @cache  # noqa: B019
    def table(self, model: str) -> LatencyTable:
        """Return the times of one of the :data:`MODELS`, as the committed table of a device says."""
        return DeviceTable.load(real_data.RESULTS / f"proof_table_{model}.json").table

    @cache  # noqa: B019
    def milliseconds(self, model: str, ratio: float) -> float:
        """Return the time of one of the :data:`MODELS` with a uniform ratio, by its table."""
        network = build_uniform(self.study(model), self.classes, ratio)
        return predicted_latency(network, self.shape, self.table(model))

    def absolute(self, job: Job) -> float:
        """Return a job's target: multiply-adds or milliseconds."""
        whole = self.milliseconds if job.in_milliseconds else self.whole
        return job.target * whole(job.model, 1.0 if job.model == "resnet" else 1 / 4)

    def budget(self, job: Job) -> Budget:
        """Return a job's target as a search takes it."""
        if job.in_milliseconds:
            return Budget("latency", "network", self.absolute(job), self.shape, self.table(job.model))
        return Budget(scope="network", target=self.absolute(job), input_shape=self.shape)

    @cache  # noqa: B019
    def scaled(self, model: str, target: float) -> Finalist:
        """Return the published shape of one of the :data:`MODELS`, scaled to some multiply-adds."""
        return ScaledNetworks(self.study(model), self.classes).of_cost(0, None, target)

    def settle(self, job: Job) -> Settled:
        """Return the network of a job, and the seconds of its search.

        Networks that no seed changes are looked up and counted only once: their lines are among those of searches.
        """
        if job.kind not in SEEDLESS:
            return NETWORKS[job.kind](self, job)
        key = f"{job.dataset}/{job.kind}/{job.target:g}"
        line = next((line for line in read(self.setting.searches) if line["key"] == key), None)
        if line is None:
            line = {"key": key, "architecture": NETWORKS[job.kind](self, job)[0].to_dict()}
            append(self.setting.searches, line)
        return Architecture.from_dict(line["architecture"]), 0.0

    def train(self, job: Job) -> dict[str, Any]:
        """Settle on the network of a job, train it from scratch, and return its line."""
        setting = self.setting
        architecture, searched = self.settle(job)
        with seeded(job.seed):
            network = create(architecture)
        train = self.splits.train.batches(
            setting.batch, shuffle_seed=job.seed, augment="standard", drop_last=True, device=setting.device
        )
        epochs = setting.epochs[self.dataset]
        started = time.process_time()
        fit(network, train, None, recipe=RECIPE, epochs=epochs, seed=job.seed, device=setting.device)
        seconds = time.process_time() - started
        validated, tested = (
            evaluate(network, images.batches(250, device=setting.device), device=setting.device)
            for images in (self.splits.validation, self.test)
        )
        return {
            "key": job.key, "dataset": job.dataset, "kind": job.kind, "target": job.target, "seed": job.seed,
            "architecture": architecture.to_dict(), "macs": self.cost(network.cpu()), "target_cost": self.absolute(job),
            "top1_validation": validated.top1, "top1_test": tested.top1, "loss_test": tested.loss,
            "cpu_seconds": round(seconds, 1), "search_cpu_seconds": round(searched, 1), "epochs": epochs,
            **circumstances(setting),
        }  # fmt: skip


def circumstances(setting: Setting) -> dict[str, Any]:
    """Return what a figure depends on besides the job."""
    device = torch.cuda.get_device_name() if setting.device == "cuda" else setting.device
    return {
        "images": setting.images, "batch": setting.batch, "learning_rate": RECIPE.learning_rate, "device": device,
        "torch": torch.__version__, "python": platform.python_version(),
    }  # fmt: skip


def _searched(
    bench: Bench, job: Job, start: Architecture, kinds: Sequence[str], targets: Sequence[float], method: Method
) -> Settled:
    """Learn the choices of ``kinds`` for the targets, by one supernet or by gates; return the network of the job."""
    key, searches = f"{job.dataset}/{job.kind}/seed{job.seed}", bench.setting.searches
    if method != "supernet":
        key += f"/{job.target:g}"
    line = next((line for line in read(searches) if line["key"] == key), None)
    seconds = 0.0
    if line is None:
        line = {"key": key, **_search(bench, job, start, kinds, targets, method)}
        append(searches, line)
        seconds = line["cpu_seconds"]
    return Architecture.from_dict(line["architectures"][f"{job.target:g}"]), seconds


def _search(
    bench: Bench, job: Job, start: Architecture, kinds: Sequence[str], targets: Sequence[float], method: Method
) -> dict[str, Any]:
    """Search; return the line with the network of each target."""
    setting, device = bench.setting, bench.setting.device
    with seeded(job.seed):
        network = create(start, searchable=kinds).to(device)
    train = bench.splits.train.batches(
        setting.batch, shuffle_seed=100 + job.seed, augment="standard", drop_last=True, device=device
    )
    budgets = {target: bench.budget(replace(job, target=target)) for target in targets}
    steps = setting.supernet_steps if method == "supernet" else setting.gate_steps
    validation = list(bench.splits.validation.batches(250, device=device)) if method == "supernet" else None
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
        "method": method, "steps": steps, "cost": result.cost, "within_budget": result.within_budget,
        "cpu_seconds": round(time.process_time() - started, 1), **circumstances(setting),
    }  # fmt: skip


def _by_gates(kinds: Sequence[str]) -> Callable[[Bench, Job], Settled]:
    return lambda bench, job: _searched(bench, job, bench.architecture(job.model), kinds, (job.target,), "gates")


def _learned_wide(bench: Bench, job: Job) -> Settled:
    return _searched(bench, job, bench.architecture("base"), WIDE, bench.setting.targets[job.dataset], "supernet")


def _learned_split(bench: Bench, job: Job) -> Settled:
    shape = _scaled(bench, job)[0]
    return _searched(bench, job, Architecture(shape.model, shape.options, {}), ("split",), (job.target,), "supernet")


def _resnet_learned(bench: Bench, job: Job) -> Settled:
    return _searched(bench, job, bench.architecture("resnet"), ("split",), bench.setting.resnet_targets, "supernet")


def _scaled(bench: Bench, job: Job) -> Settled:
    model = "resnet" if job.model == "resnet" else "published"
    finalist = bench.scaled(model, bench.absolute(job))
    return architecture_of(build_finalist(bench.study(model), bench.classes, finalist)), 0.0


def _resnet_uniform(bench: Bench, job: Job) -> Settled:
    """Return the uniform ratio of the converted ResNet with the closest cost."""
    study = bench.study("resnet")
    ratio = min(
        (step / 16 for step in range(1, 17)),
        key=lambda ratio: abs(bench.whole("resnet", ratio) / bench.absolute(job) - 1),
    )
    return architecture_of(build_uniform(study, bench.classes, ratio)), 0.0


def _uniform(bench: Bench, job: Job, kernel_size: int | None = None) -> Settled:
    """Return the base network with ratio 1/4 and the hidden width, the same for all MLPs, that meets the target."""
    plain = create(bench.architecture("base"))
    usual = {name: module.fc1.out_channels for name, module in plain.named_modules() if hasattr(module, "fc1")}
    split = create(bench.architecture("base"), searchable=True)
    kernels = {} if kernel_size is None else dict.fromkeys(choices_of(split), kernel_size)
    tried = []
    for share in HIDDEN:
        hidden = {name: max(1, round(share * width)) for name, width in usual.items()}
        architecture = bench.architecture("base", hidden_channels=hidden, kernel_sizes=kernels)
        tried.append((abs(bench.cost(create(architecture)) / bench.absolute(job) - 1), share, architecture))
    return min(tried, key=lambda entry: entry[:2])[2], 0.0


def _random(bench: Bench, job: Job) -> Settled:
    """Return a network of the wide space within 2 % of the target, drawn with equal probability."""
    network = create(bench.architecture("base"), searchable=WIDE_WITH_KERNELS)
    table = layer_costs(network, bench.shape, "macs", "network")
    generator = torch.Generator().manual_seed(1_000 + job.seed)
    [chosen] = sample_within(table, bench.absolute(job), generator, 1)
    choices = choices_of(network)
    for name, value in table.space.settings(chosen).items():
        choices[name].choose(value)
    return architecture_of(network), 0.0


NETWORKS: Mapping[str, Callable[[Bench, Job], Settled]] = MappingProxyType(
    {
        "scaled": _scaled, "learned-gates": _by_gates(WIDE_WITH_KERNELS), "learned-wide": _learned_wide,
        "uniform": _uniform, "random": _random, "learned-split": _learned_split,
        "learned-3x3": _by_gates(WIDE), "learned-ms": _by_gates(WIDE_WITH_KERNELS),
        "uniform-5x5": partial(_uniform, kernel_size=5), "resnet-scaled": _scaled, "resnet-learned": _resnet_learned,
        "resnet-uniform": _resnet_uniform, "resnet-gates": _by_gates(("split",)), "resnet-ms": _by_gates(("split",)),
    }
)  # fmt: skip
