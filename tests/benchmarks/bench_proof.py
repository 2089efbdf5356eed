"""Proof of the wider search on images: differences at equal cost, latency at equal accuracy, hypervolume of ResNet-18.

Prints tables from the committed lines. With ``NAS_DATA_ROOTS`` set to the folders of the data sets, it runs first what
has no line yet, until all lines together have taken ``PROOF_HOURS`` of CPU time (10 by default), and measures
latencies. It can be stopped at any time: each training is a line, and the next call goes on. ``PROOF_ONLY`` is the
beginning of the keys to run, such as ``fashion_mnist`` or ``cifar10/resnet``, for processes beside each other. With
``PROOF_HOURS=0`` it only measures. ``python -m tests.benchmarks proof_gpu`` adds the lines of a GPU.
"""

from __future__ import annotations

import itertools
import os
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import moocore
import numpy as np
import torch

from nas.findings.comparison import t_margin
from nas.findings.power import seeds_to_show, smallest_difference
from tests.benchmarks import proof
from tests.benchmarks.proof_gpu import GPU
from tests.benchmarks.real_data import read
from tests.benchmarks.timing import machine

GOAL = 0.5
"""Difference in points that the wider search should have over the scaled published shape."""
FILES: Mapping[str, str] = MappingProxyType(
    {proof.RESULTS: "processor, 10 000 images", GPU.name: "GPU, all images"}
)
OURS = ("learned-gates", "learned-ms")
RIVALS = ("resnet-uniform", "resnet-scaled")
RESNETS = ("resnet-learned", "resnet-gates", "resnet-ms")
Lines = Sequence[Mapping[str, Any]]
Latencies = Mapping[proof.Measured, float]


def scores(lines: Lines, dataset: str, kind: str, target: float) -> dict[int, float]:
    """Return the test accuracies in percent of a kind of network at a target, by seed."""
    return {
        line["seed"]: 100 * line["top1_test"]
        for line in lines
        if (line["dataset"], line["kind"], line["target"]) == (dataset, kind, target)
    }


def differences(lines: Lines, dataset: str, ours: str = proof.MAIN_KINDS[1]) -> list[str]:
    """Return rows: ``ours`` minus each other kind at the main target, paired by seed, with what its seeds can show."""
    mine = scores(lines, dataset, ours, proof.MAIN)
    rows = []
    for kind in dict.fromkeys(line["kind"] for line in lines if not line["kind"].startswith("resnet")):
        theirs = scores(lines, dataset, kind, proof.MAIN)
        shared = sorted(set(mine) & set(theirs))
        if kind == ours or not shared:
            continue
        pairs = [mine[seed] - theirs[seed] for seed in shared]
        row = f"{dataset}: {ours} minus {kind}: {statistics.mean(pairs):+.2f}"
        if len(pairs) > 1:
            spread = statistics.stdev(pairs)
            row += (
                f" +- {t_margin(pairs):.2f} points (n = {len(pairs)}; {smallest_difference(spread, len(pairs)):.2f} "
                f"could be shown, {GOAL:g} needs {seeds_to_show(GOAL, spread)} seeds)"
            )
        else:
            row += " points (n = 1)"
        rows.append(row)
    return rows


def means(lines: Lines) -> list[str]:
    """Return rows: mean accuracy and multiply-adds of each kind at each target."""
    groups: dict[tuple[str, str, float], list[Mapping[str, Any]]] = defaultdict(list)
    for line in lines:
        groups[line["dataset"], line["kind"], line["target"]].append(line)
    rows = []
    for (dataset, kind, target), found in sorted(groups.items()):
        top1 = [100 * line["top1_test"] for line in found]
        std = f" (std {statistics.stdev(top1):.2f})" if len(top1) > 1 else ""
        macs = statistics.mean(line["macs"] for line in found) / 1e6
        rows.append(
            f"{dataset}: {kind} at {target:g}: {statistics.mean(top1):.2f} %{std}, {macs:.3f} M, n = {len(top1)}"
        )
    return rows


def points(lines: Lines, latencies: Latencies, kinds: Sequence[str]) -> list[tuple[float, float]]:
    """Return (latency, accuracy in percent) of the networks of some kinds, each the mean of its kind and target."""
    groups: dict[tuple[str, float], list[tuple[float, float]]] = defaultdict(list)
    for line in lines:
        latency = latencies.get(proof.measured(line))
        if line["kind"] in kinds and latency is not None:
            groups[line["kind"], line["target"]].append((latency, 100 * line["top1_test"]))
    return [(statistics.mean(ms for ms, _ in g), statistics.mean(top1 for _, top1 in g)) for g in groups.values()]


def latency_ratio(lines: Lines, latencies: Latencies) -> list[str]:
    """Return rows: the latency of learned networks over that of the scaled shape with ratio 1/4 at equal accuracy."""
    own = [line for line in lines if line["dataset"] == "cifar10"]
    theirs = sorted(points(own, latencies, ["scaled"]))
    ours = sorted(points(own, latencies, OURS))
    if not theirs or not ours:
        return []
    rows = []
    for ms, top1 in theirs:
        beside = f"cifar10: beside uniform 1/4 at {ms:.3f} ms ({top1:.2f} %)"
        as_good = min((other for other, accuracy in ours if accuracy >= top1), default=None)
        if as_good is None:
            rows.append(f"{beside} no learned network is as good")
            continue
        row = f"{beside} the fastest learned network as good takes {as_good:.3f} ms: ratio {as_good / ms:.3f}"
        between = interpolated(ours, top1)
        rows.append(row if between is None else f"{row}; between two learned ones {between / ms:.3f}")
    return rows


def interpolated(front: Sequence[tuple[float, float]], top1: float) -> float | None:
    """Return the latency at which a line between neighbours of a front reaches an accuracy; None if it begins above it.

    Args:
        front: Latencies and accuracies, by ascending latency.
        top1: Accuracy to reach.
    """
    for (fast, below), (slow, above) in itertools.pairwise(front):
        if below < top1 <= above:
            return fast + (slow - fast) * (top1 - below) / (above - below)
    return None


def hypervolume_ratio(
    ours: Sequence[tuple[float, float]], theirs: Sequence[tuple[float, float]]
) -> float:
    """Return the hypervolume of a front of (latency, accuracy) over that of another.

    The reference is accuracy 0 at 1.02 times the highest latency of all.
    """
    reference = (1.02 * max(ms for ms, _ in (*ours, *theirs)), 0.0)
    mine, other = (
        float(moocore.hypervolume(np.array(front), ref=reference, maximise=[False, True])) for front in (ours, theirs)
    )
    return mine / other


def resnet(lines: Lines, latencies: Latencies) -> list[str]:
    """Return rows: the hypervolume of ResNet-18's learned fronts over uniform ratios and narrower ResNets together."""
    theirs = points(lines, latencies, RIVALS)
    if not theirs:
        return []
    told = [f"ResNet-18, {kind}: {_shown(points(lines, latencies, [kind]))}" for kind in RIVALS]
    for kind in RESNETS:
        if ours := points(lines, latencies, [kind]):
            ratio = hypervolume_ratio(ours, theirs)
            told.append(f"ResNet-18, {kind}: {_shown(ours)}; hypervolume {ratio:.3f} times that of both rivals")
    together = points(lines, latencies, RESNETS)
    if together:
        told.append(
            f"ResNet-18: hypervolume of all learned networks {hypervolume_ratio(together, theirs):.3f} times that of "
            f"both rivals; of all five kinds {hypervolume_ratio([*together, *theirs], theirs):.3f} times"
        )
    return told


def _shown(front: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{ms:.3f} ms {top1:.2f} %" for ms, top1 in sorted(front))


def summary(lines: Lines, latencies: Latencies) -> list[str]:
    """Return all rows."""
    rows = [row for dataset in proof.DATASETS for row in differences(lines, dataset)]
    return [*rows, *latency_ratio(lines, latencies), *resnet(lines, latencies), *means(lines)]


def main() -> None:
    """Run what is missing, if there are images, and print all tables."""
    torch.set_num_threads(1)
    print(machine())
    roots = tuple(Path(root) for root in os.environ.get("NAS_DATA_ROOTS", "").split(os.pathsep) if root)
    if roots:
        proof.run(roots, float(os.environ.get("PROOF_HOURS", "10")), os.environ.get("PROOF_ONLY", ""))
        for name in FILES:
            proof.measure(name)
    else:
        print("NAS_DATA_ROOTS is not set: tables of the committed results only")
    latencies = proof.latencies()
    for name, title in FILES.items():
        lines = read(name)
        print(f"{title}: {len(lines)} trainings")
        for row in summary(lines, latencies):
            print(row)
    planned = len(list(proof.plan()))
    print(f"{len(read(proof.RESULTS))} of {planned} planned on a processor, {proof.core_hours():.1f} core-hours")


if __name__ == "__main__":
    main()
