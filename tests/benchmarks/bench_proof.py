"""Proof of the wider search on images: differences at equal cost, latency at equal accuracy, hypervolume of ResNet-18.

Prints tables from the committed lines. With ``NAS_DATA_ROOTS`` set to the folders of the data sets, it runs first what
has no line yet, until all lines together have taken ``PROOF_HOURS`` of CPU time (10 by default), and measures
latencies. It can be stopped at any time: each training is a line, and the next call goes on. ``PROOF_ONLY`` is the
beginning of the keys to run, such as ``fashion_mnist`` or ``cifar10/resnet``, for processes beside each other.
"""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import moocore
import numpy as np
import torch

from nas.findings.comparison import t_margin
from nas.findings.power import seeds_to_show, smallest_difference
from partialnet import Architecture
from tests.benchmarks import proof
from tests.benchmarks.real_data import read
from tests.benchmarks.timing import machine

GOAL = 0.5
"""Difference in points that the wider search should have over the scaled published shape."""
Lines = Sequence[Mapping[str, Any]]


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
    for kind in proof.KINDS:
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


def points(lines: Lines, latencies: Mapping[str, float], kinds: Sequence[str]) -> list[tuple[float, float]]:
    """Return (latency, accuracy in percent) of the networks of some kinds, each the mean of its kind and target."""
    groups: dict[tuple[str, float], list[tuple[float, float]]] = defaultdict(list)
    for line in lines:
        latency = latencies.get(Architecture.from_dict(line["architecture"]).id)
        if line["kind"] in kinds and latency is not None:
            groups[line["kind"], line["target"]].append((latency, 100 * line["top1_test"]))
    return [(statistics.mean(ms for ms, _ in g), statistics.mean(top1 for _, top1 in g)) for g in groups.values()]


def latency_ratio(lines: Lines, latencies: Mapping[str, float]) -> list[str]:
    """Return a row: the latency of learned networks over that of the scaled shape with ratio 1/4 at equal accuracy."""
    own = [line for line in lines if line["dataset"] == "cifar10"]
    theirs = sorted(points(own, latencies, ["scaled"]))
    ours = sorted(points(own, latencies, [proof.MAIN_KINDS[1]]))
    if not theirs or not ours:
        return []
    rows = []
    for ms, top1 in theirs:
        as_good = [other for other, accuracy in ours if accuracy >= top1]
        if as_good:
            rows.append(
                f"cifar10: the fastest learned network as good as uniform 1/4 at {ms:.3f} ms ({top1:.2f} %) takes "
                f"{min(as_good):.3f} ms: ratio {min(as_good) / ms:.3f}"
            )
        else:
            rows.append(f"cifar10: no learned network is as good as uniform 1/4 at {ms:.3f} ms ({top1:.2f} %)")
    return rows


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


def resnet(lines: Lines, latencies: Mapping[str, float]) -> list[str]:
    """Return a row: the hypervolume of ResNet-18's learned front over uniform ratios and narrower ResNets together."""
    ours = points(lines, latencies, ["resnet-learned"])
    theirs = points(lines, latencies, ["resnet-uniform", "resnet-scaled"])
    if not ours or not theirs:
        return []
    shown = ", ".join(f"{ms:.3f} ms {top1:.2f} %" for ms, top1 in sorted(ours))
    beside = ", ".join(f"{ms:.3f} ms {top1:.2f} %" for ms, top1 in sorted(theirs))
    return [
        f"ResNet-18: learned {shown}; uniform and scaled {beside}; hypervolume of latency and accuracy "
        f"{hypervolume_ratio(ours, theirs):.3f} times theirs"
    ]


def summary(lines: Lines, latencies: Mapping[str, float]) -> list[str]:
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
        proof.measure(proof.RESULTS)
    else:
        print("NAS_DATA_ROOTS is not set: tables of the committed results only")
    latencies = {line["architecture"]: line["latency_ms"] for line in read(proof.LATENCIES)}
    for row in summary(read(proof.RESULTS), latencies):
        print(row)
    planned = len(list(proof.plan()))
    print(f"{len(read(proof.RESULTS))} of {planned} trainings, {proof.core_hours():.1f} core-hours")


if __name__ == "__main__":
    main()
