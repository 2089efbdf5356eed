"""Trainings that prove or refute the wider search on images: a plan that can be stopped and goes on where it was.

The networks are those of :mod:`tests.benchmarks.proof_networks`, on a processor and with few images; those on a GPU are
in :mod:`tests.benchmarks.proof_gpu`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nas.definition.sections import LatencySpec
from nas.probes.latency import probe_latency
from partialnet import Architecture, create
from tests.benchmarks.proof_networks import SIZES, Bench, Job, Setting
from tests.benchmarks.real_data import append, read

LATENCIES = "proof_latencies"
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
PROCESSOR = Setting(
    name="proof",
    device="cpu",
    images=10_000,
    batch=64,
    epochs=MappingProxyType({"cifar10": 16, "fashion_mnist": 8}),
    gate_steps=1_400,  # ten epochs
    supernet_steps=900,
    targets=FRONT_TARGETS,
    resnet_targets=RESNET_TARGETS,
)
RESULTS = PROCESSOR.name
Measured = tuple[str, int | None]
"""Identity of an architecture, and the size of its images in pixels; None for that of the data set."""


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
    benches = {dataset: Bench(dataset, roots, PROCESSOR) for dataset in DATASETS}
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
        print(told(line), flush=True)


def told(line: Mapping[str, Any]) -> str:
    """Return a training in words."""
    seconds = line["cpu_seconds"] + line["search_cpu_seconds"]
    return f"{line['key']}: test {100 * line['top1_test']:.2f} %, {line['macs'] / 1e6:.3f} M, {seconds:.0f} s"


def measured(line: Mapping[str, Any]) -> Measured:
    """Return what a training's latency is kept under."""
    return Architecture.from_dict(line["architecture"]).id, SIZES[line["dataset"]]


def latencies() -> dict[Measured, float]:
    """Return the measured latencies in milliseconds."""
    return {(line["architecture"], line["size"]): line["latency_ms"] for line in read(LATENCIES)}


def measure(name: str) -> None:
    """Measure each trained network that has no latency yet: ONNX Runtime, one thread, one image.

    Args:
        name: Name of the file of the trainings' lines.
    """
    known = set(latencies())
    usual = {line["shape"][-1]: line["reference_ms"] for line in reversed(read(LATENCIES))}
    spec = LatencySpec(runtime="onnx")
    for line in read(name):
        key = architecture, size = measured(line)
        if key in known:
            continue
        shape = Bench(line["dataset"], (), PROCESSOR).shape
        network = create(Architecture.from_dict(line["architecture"])).eval()
        found = probe_latency(network, shape, spec, usual_ms=usual.get(shape[-1]))
        # The reference network has the size of these images.
        usual.setdefault(shape[-1], float(found.figures["usual_reference_ms"]))
        known.add(key)
        facts = {"size": size, "shape": shape, "reference_ms": usual[shape[-1]], "fingerprint": found.fingerprint}
        append(LATENCIES, {"architecture": architecture, "latency_ms": found.value, **facts})
        print(f"{line['key']}: {found.value:.3f} ms", flush=True)
