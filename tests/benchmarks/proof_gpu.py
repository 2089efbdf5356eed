"""The proof on images on one GPU: all images, more seeds, and more rivals than a processor has time for.

``python -m tests.benchmarks proof_gpu`` runs the jobs that have no line yet in several processes, which share the GPU:
the networks are small, so one process does not keep it busy. (Sixteen on 16 cores did so on an H100, under NVIDIA's
multi-process service.) ``PROOF_SECONDS`` is the time after which no job starts any more, ``PROOF_PROCESSES`` the number
of processes (that of the cores), ``PROOF_ONLY`` the beginning of the keys to run, and ``PROOF_DEVICE`` another device.
Without a GPU it prepares what needs none. ``python -m tests.benchmarks bench_proof`` prints the tables of all lines.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from partialnet import create
from tests.benchmarks.proof import MAIN, RESNET_TARGETS, told
from tests.benchmarks.proof_networks import SEEDLESS, Bench, Job, Setting
from tests.benchmarks.real_data import append, read

SEEDS = 8
"""Seeds of the main pair."""
OTHER_SEEDS = 5
RESNET = "cifar10-64"
RESNET_SEEDS = 3
GPU = Setting(
    name="proof_gpu",
    device="cuda",
    images=None,
    batch=256,
    epochs=MappingProxyType({"cifar10": 30, "fashion_mnist": 15, RESNET: 12}),
    gate_steps=3_000,
    supernet_steps=1_500,
    targets=MappingProxyType({"cifar10": (0.6, MAIN, 1.0), "fashion_mnist": (MAIN,)}),
    resnet_targets=RESNET_TARGETS,
)
Task = tuple[Job, ...]
"""Jobs that one process does one after another, since they share a search."""


def plan() -> Iterator[Job]:
    """Yield all jobs, those that decide most first."""
    for seed in range(OTHER_SEEDS):
        yield from (Job("cifar10", kind, MAIN, seed) for kind in ("learned-gates", "scaled"))
    for seed in range(RESNET_SEEDS):
        yield from (Job(RESNET, kind, target, seed) for kind, targets in _RESNETS.items() for target in targets)
        yield from (Job("cifar10", kind, target, seed) for kind, target in _FRONTS)
    for seed in range(OTHER_SEEDS):
        yield from (Job("cifar10", kind, MAIN, seed) for kind in ("uniform-5x5", "uniform", "learned-3x3", "random"))
    for seed in range(OTHER_SEEDS, SEEDS):
        yield from (Job("cifar10", kind, MAIN, seed) for kind in ("learned-gates", "scaled"))
    for seed in range(OTHER_SEEDS):
        yield from (Job("fashion_mnist", kind, MAIN, seed) for kind in ("learned-gates", "scaled"))
    for seed in range(RESNET_SEEDS, OTHER_SEEDS):
        yield from (Job("cifar10", kind, target, seed) for kind, target in _FRONTS)


_RESNETS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "resnet-learned": RESNET_TARGETS,
        "resnet-ms": (0.45, 0.55, 0.7),  # without any convolved channels it would take 0.38
        "resnet-uniform": (0.3, *RESNET_TARGETS),
        "resnet-scaled": (0.2, *RESNET_TARGETS),
        "resnet-gates": RESNET_TARGETS,
    }
)
_FRONTS = (("scaled", 1.0), ("learned-ms", 0.6), ("learned-ms", 0.75), ("learned-gates", 0.6), ("scaled", 0.6))


def tasks(jobs: Iterable[Job], done: Iterable[str]) -> list[Task]:
    """Group the jobs that are not done: those of one supernet together, every other one alone."""
    known = set(done)
    left = [job for job in jobs if job.key not in known]

    def shared(job: Job) -> str:
        return f"{job.dataset}/{job.kind}/{job.seed}" if job.kind == "resnet-learned" else job.key

    return [tuple(group) for _, group in groupby(left, shared)]


def run(roots: tuple[Path, ...], processes: int, seconds: float, only: str = "", setting: Setting = GPU) -> None:
    """Run the jobs that have no line yet.

    Args:
        roots: Folders of the data sets.
        processes: Number of processes.
        seconds: Time from the reading of the images on, after which no job starts any more.
        only: Beginning of the keys of the jobs to run.
        setting: Circumstances of the trainings.
    """
    torch.set_num_threads(1)
    jobs = [job for job in plan() if job.key.startswith(only)]
    todo = tasks(jobs, (line["key"] for line in read(setting.name)))
    benches = {name: Bench(name, roots, setting) for name in dict.fromkeys(job.dataset for job in jobs)}
    if roots:
        # The images are read before the fork, once for all processes; the GPU is first used after it.
        for bench in benches.values():
            print(f"{bench.dataset}: {len(bench.splits.train)} + {len(bench.test)} images", flush=True)
    deadline = time.monotonic() + seconds
    context = multiprocessing.get_context("fork")
    begun = context.Value("i", 0)
    workers = [context.Process(target=_work, args=(benches, todo, begun, deadline)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if died := [worker.exitcode for worker in workers if worker.exitcode]:
        print(f"{len(died)} processes died (exit codes {', '.join(map(str, died))}); call again for what they left")
    print(f"{max(0, len(todo) - begun.value)} of {len(todo)} tasks were not begun", flush=True)


def prepare(roots: tuple[Path, ...], setting: Setting = GPU) -> None:
    """Write the lines of the networks that no seed changes; this needs no GPU."""
    benches: dict[str, Bench] = {}
    for job in plan():
        if job.kind in SEEDLESS:
            bench = benches.setdefault(job.dataset, Bench(job.dataset, roots, setting))
            print(f"{job.key}: {bench.cost(create(bench.settle(job)[0])) / 1e6:.3f} M", flush=True)


def _work(benches: Mapping[str, Bench], todo: Sequence[Task], begun: Any, deadline: float) -> None:
    """Do tasks until there are none or the time is over; a task that fails is told, and left for the next call."""
    while time.monotonic() < deadline:
        with begun.get_lock():
            number = begun.value
            begun.value += 1
        if number >= len(todo):
            return
        for job in todo[number]:
            if time.monotonic() >= deadline:
                return
            started = time.monotonic()
            try:
                line = benches[job.dataset].train(job)
            except Exception:
                print(f"{job.key}:\n{traceback.format_exc()}", flush=True)
                break
            append(benches[job.dataset].setting.name, line)
            print(f"{told(line)}, {time.monotonic() - started:.0f} s of wall", flush=True)


def main() -> None:
    """Run what is missing."""
    roots = tuple(Path(root) for root in os.environ.get("NAS_DATA_ROOTS", "").split(os.pathsep) if root)
    if not roots:
        sys.exit("proof_gpu needs NAS_DATA_ROOTS, the folders of the data sets")
    setting = replace(GPU, device=os.environ.get("PROOF_DEVICE", GPU.device))
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # the other check would use the GPU before the fork
    if setting.device == "cuda" and not torch.cuda.is_available():
        prepare(roots)
        sys.exit("the networks that no search finds are prepared; the rest needs a GPU, or PROOF_DEVICE=cpu and days")
    processes = int(os.environ.get("PROOF_PROCESSES", str(os.cpu_count() or 1)))
    run(roots, processes, float(os.environ.get("PROOF_SECONDS", "3600")), os.environ.get("PROOF_ONLY", ""), setting)


if __name__ == "__main__":
    main()
