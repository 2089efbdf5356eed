"""Whether learned splits beat uniform ones on real images, at equal multiply-adds and equal training.

Prints tables from the committed results. With ``NAS_DATA_ROOTS`` set to the folders of the data sets, runs first what
has no line in them yet (about four hours on one core from nothing, every finished training is kept).
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import moocore
import numpy as np
import torch
from scipy import stats

from tests.benchmarks import real_data
from tests.benchmarks.timing import machine

METHODS: tuple[real_data.Method, ...] = ("supernet", "gates", "fractional")
SEEDS = {"fashion_mnist": range(10), "cifar10": range(3)}
SEARCHES = {"fashion_mnist": 10, "cifar10": 1}
WIDE_SEEDS = 2  # the second tells how well accuracy agrees with itself


def run(roots: tuple[Path, ...]) -> None:
    """Run what is missing."""
    for dataset, seeds in SEEDS.items():
        bench = real_data.Bench(dataset, roots)
        wide = 20 if dataset == "fashion_mnist" else 0
        fixed = real_data.fixed_jobs(bench, seeds=len(seeds), alike=0, wide=wide, wide_seeds=WIDE_SEEDS)
        real_data.retrain(bench, fixed)
        real_data.retrain(bench, real_data.learned_jobs(bench, METHODS, seeds, searches=SEARCHES[dataset]))
        if dataset == "fashion_mnist":
            real_data.retrain(bench, real_data.front_jobs(bench, 0))


def difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """Return the difference of the means and the half-width of its 95 % interval (Welch)."""
    if min(len(ours), len(theirs)) < 2:
        return statistics.mean(ours) - statistics.mean(theirs), float("nan")
    interval = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    return (interval.low + interval.high) / 2, (interval.high - interval.low) / 2


def comparison(dataset: str, lines: Sequence[dict[str, Any]]) -> list[str]:
    """Return rows: test accuracy of uniform and learned splits, and their difference."""

    def scores(role: str, name: str) -> list[float]:
        return [100 * e["top1_test"] for e in lines if (e["dataset"], e["role"], e["name"]) == (dataset, role, name)]

    uniform = scores("uniform", "1/4")
    if len(uniform) < 2:
        return []
    mean, std = statistics.mean(uniform), statistics.stdev(uniform)
    rows = [f"{dataset}: uniform 1/4: {mean:.2f} % (std {std:.2f}, n = {len(uniform)})"]
    for method in METHODS:
        ours = scores("learned", method)
        if ours:
            mean, half = difference(ours, uniform)
            rows.append(
                f"{dataset}: {method}: {statistics.mean(ours):.2f} %, learned minus uniform {mean:+.2f} +- {half:.2f} "
                f"points (n = {len(ours)})"
            )
    return rows


def agreement(dataset: str, lines: Sequence[dict[str, Any]], searches: Sequence[dict[str, Any]]) -> list[str]:
    """Return rows: Kendall's tau of the supernet's beliefs and retrained accuracy, and of seeds among themselves."""
    rows = []
    for role in ("random", "wide"):
        seeds: dict[str, list[float]] = {}
        for line in lines:
            if (line["dataset"], line["role"]) == (dataset, role):
                seeds.setdefault(f"{role}/{line['name']}", []).append(line["top1_test"])
        if len(seeds) < 20:
            continue
        count = min(map(len, seeds.values()))
        retrained = {name: statistics.mean(scores[:count]) for name, scores in seeds.items()}
        if count > 1:
            first, second = ([scores[seed] for scores in seeds.values()] for seed in (0, 1))
            own = stats.kendalltau(first, second).statistic
            rows.append(f"{dataset}: tau of one seed's accuracy and another's {own:.2f} ({len(seeds)} {role} networks)")
        asked = [search for search in searches if "scored" in search and search["key"].startswith(dataset)]
        for belief in ("scored", "predicted"):
            names = [name for name in retrained if all(name in search[belief] for search in asked)]
            truth = [retrained[name] for name in names]
            beliefs = np.array([[-search[belief][name] for name in names] for search in asked])
            found = [float(stats.kendalltau(row, truth).statistic) for row in beliefs]
            together = float(stats.kendalltau(beliefs.mean(0), truth).statistic)
            rows.append(
                f"{dataset}: tau of {belief} loss and accuracy, mean of {count} seeds, {len(names)} {role} networks: "
                f"mean of {len(found)} supernets {statistics.mean(found):.2f} ({min(found):.2f} to {max(found):.2f}), "
                f"of all their losses' mean {together:.2f}"
            )
    return rows


def explained(dataset: str, lines: Sequence[dict[str, Any]]) -> list[str]:
    """Return a row: how much of the variance of test accuracy the levels of the layers explain, each by itself."""
    own = [line for line in lines if line["dataset"] == dataset and "same_as" not in line]
    levels = np.log2([line["active_channels"] for line in own])
    design = np.c_[np.ones(len(own)), levels]
    accuracy = np.array([line["top1_test"] for line in own])
    rest = accuracy - design @ np.linalg.lstsq(design, accuracy, rcond=None)[0]
    share = 1 - rest.var() / accuracy.var()
    best = max(own, key=lambda line: line["top1_test"])
    return [
        f"{dataset}: a linear model of {levels.shape[1]} levels explains {share:.2f} of the variance of {len(own)} "
        f"trainings' accuracy; the best is {best['key']}, {100 * best['top1_test']:.2f} %"
    ]


def fronts(dataset: str, lines: Sequence[dict[str, Any]]) -> list[str]:
    """Return rows: the networks of one supernet and of five searches of equal CPU, and the ratio of hypervolumes."""
    of_front = [line for line in lines if (line["dataset"], line["role"]) == (dataset, "front")]
    every = [line for line in lines if line["dataset"] == dataset]
    rows = []
    for seed in sorted({line["seed"] for line in of_front}):
        points = {
            method: sorted(
                (line["macs"], line["top1_test"])
                for line in of_front
                if line["seed"] == seed and line["name"].startswith(method)
            )
            for method in ("supernet", "fractional")
        }
        if min(map(len, points.values())) < 5:
            continue
        for method, found in points.items():
            shown = ", ".join(f"{macs / 1e6:.3f} M {100 * top1:.2f} %" for macs, top1 in found)
            rows.append(f"{dataset}: front of {method}, seed {seed}: {shown}")
        reference = (1.02 * max(line["macs"] for line in every), 0.0)
        best = max(line["top1_test"] for line in every)
        ours, theirs, bound = (
            float(moocore.hypervolume(np.array(front), ref=reference, maximise=[False, True]))
            for front in (*points.values(), [(macs, best) for macs, _ in points["fractional"]])
        )
        rows.append(
            f"{dataset}: hypervolume, one supernet over five searches of equal CPU together: {ours / theirs:.3f}; at "
            f"equal costs {bound / theirs:.3f} if all had the best accuracy ever seen, {100 * best:.2f} %"
        )
    return rows


def main() -> None:
    """Run what is missing, if there are images, and print all tables."""
    torch.set_num_threads(1)
    roots = tuple(Path(root) for root in os.environ.get("NAS_DATA_ROOTS", "").split(os.pathsep) if root)
    print(machine())
    if roots:
        run(roots)
    else:
        print("NAS_DATA_ROOTS is not set: tables of the committed results only")
    lines, searches = real_data.read("retrained"), real_data.read("searches")
    for dataset in SEEDS:
        for row in (
            *comparison(dataset, lines),
            *agreement(dataset, lines, searches),
            *fronts(dataset, lines),
            *explained(dataset, lines),
        ):
            print(row)
    seconds = sum(line["cpu_seconds"] for line in (*lines, *searches))
    print(f"{len(lines)} trainings and {len(searches)} searches, {seconds / 3600:.1f} core-hours")


if __name__ == "__main__":
    main()
