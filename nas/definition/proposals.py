"""Proposals that a definition itself makes, and its early stopping: points, grids, rungs, with their checks. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product

from nas.definition.early_stopping import EarlyStoppingSpec
from nas.definition.space import Choice, Distribution, Integer, contains, spread_over, written
from nas.metrics import METRICS

Point = Mapping[str, float | int | str | bool]

_MOST_POINTS = 100_000


def check_points(sampled: Mapping[str, Distribution], points: Sequence[Point], trials: int) -> None:
    """Check the points that are proposed first.

    Args:
        sampled: Distributions of the swept parameters, by name.
        points: Values by name; the searcher completes a point that lacks some.
        trials: Number of search trials.

    Raises:
        ValueError: If a point names a parameter that is not swept, or a value that its distribution does not hold; or
            if two points are equal; or if there are more points than trials.
    """
    for place, point in enumerate(points):
        where = f"sweep.points.{place}"
        if not point:
            raise ValueError(f"{where}: a point needs at least one parameter")
        for name, value in point.items():
            if name not in sampled:
                raise ValueError(f"{where}: {name!r} is not swept; swept: {', '.join(sampled) or 'nothing'}")
            if not contains(sampled[name], value):
                raise ValueError(f"{where}: {name} is {value!r}, which is outside of {written(sampled[name])}")
        if point in points[:place]:
            raise ValueError(f"{where}: the same point stands in the list twice ({dict(point)})")
    if len(points) > trials:
        raise ValueError(f"sweep.points: there are {len(points)} points, but sweep.trials is {trials}")


def grid_points(
    sampled: Mapping[str, Distribution], counts: int | Mapping[str, int]
) -> list[dict[str, float | int | str | bool]]:
    """Return the points of a grid over the swept parameters.

    Args:
        sampled: Distributions of the swept parameters, by name.
        counts: Number of values of each parameter, or of each by name (3 for the others). They are spread evenly over
            the range on its scale, both bounds included. A choice has all its values.

    Raises:
        ValueError: If ``counts`` names a parameter that is not swept, or the grid is empty or too large.
    """
    named = counts if isinstance(counts, Mapping) else dict.fromkeys(sampled, counts)
    for name, count in named.items():
        if name not in sampled:
            raise ValueError(f"sweep.grid: {name!r} is not swept; swept: {', '.join(sampled) or 'nothing'}")
        if count < 1:
            raise ValueError(f"sweep.grid: {name} must have at least one value, but got {count}")
    axes = [_axis(entry, named.get(name, 3)) for name, entry in sampled.items()]
    size = math.prod(map(len, axes))
    if size > _MOST_POINTS:
        raise ValueError(f"sweep.grid: the grid has {size:,} points, but at most {_MOST_POINTS:,} are allowed")
    return [dict(zip(sampled, values, strict=True)) for values in product(*axes)]


def _axis(entry: Distribution, count: int) -> list[float | int | str | bool]:
    if isinstance(entry, Choice):
        return list(entry.choice)
    if isinstance(entry, Integer):
        low, high = entry.int
        return list(dict.fromkeys(round(value) for value in spread_over(entry, min(count, high - low + 1))))
    return list(spread_over(entry, count))


def check_early_stopping(
    spec: EarlyStoppingSpec, objectives: Sequence[str], method: str, yields_front: bool, least_epochs: int
) -> None:
    """Check the early stopping of a study.

    Args:
        spec: Early stopping as the definition gives it.
        objectives: Objectives of the study.
        method: Name of the search method, for messages.
        yields_front: Whether a trial of the method yields networks for all targets.
        least_epochs: Number of epochs of the shortest trial.

    Raises:
        ValueError: If no rung lies before the end of a trial, or non-dominated sorting has no scores to sort by.
    """
    if not spec.rungs(least_epochs, least_epochs):
        raise ValueError(
            f"sweep.early_stopping: min_epochs is {spec.min_epochs or 1}, but a trial has only {least_epochs} epochs "
            "(epochs + finetune_epochs); a rung must lie before the end"
        )
    if spec.method == "mo_asha" and yields_front:
        raise ValueError(
            f"sweep.early_stopping: mo_asha compares trials of different cost, but a trial of method {method} has "
            "networks of all costs; use {method: asha, metric: top1}"
        )
    if spec.method == "mo_asha" and not any(METRICS[name].evaluated for name in objectives):
        raise ValueError(
            f"sweep.early_stopping: mo_asha needs an objective that is evaluated in each epoch (top1, top5, loss), but "
            f"the objectives are {', '.join(objectives)}"
        )

