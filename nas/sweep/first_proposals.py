"""The first proposals of a study, before the searcher decides: given points, a grid, or a start spread over the space.

Also the parameters of networks that are not searched.
"""

from __future__ import annotations

import random
from typing import Any

from nas.definition.searchers import SEARCHERS
from nas.definition.study import StudyDefinition
from nas.sweep.optuna_words import at_quantile, optuna_space
from nas.trial import trial_seed


def spread(index: int, count: int, dimensions: int, seed: int) -> list[float]:
    """Return point ``index`` of ``count`` in the unit cube; along each axis, each of ``count`` parts holds one point.

    This is a Latin hypercube: a short start covers the whole range of each parameter, which independent draws rarely
    do.
    """
    point = []
    for dimension in range(dimensions):
        generator = random.Random(trial_seed(seed, -1 - dimension))
        parts = list(range(count))
        generator.shuffle(parts)
        shifts = [generator.random() for _ in range(count)]
        point.append((parts[index] + shifts[index]) / count)
    return point


def startup_trials(definition: StudyDefinition) -> int:
    """Return the number of trials before a searcher learns; 0 for one that does not learn.

    Below ten trials TPE has little to learn from, but a short sweep must not spend itself on the start.
    """
    searcher = SEARCHERS[definition.sweep.searcher]
    return max(4, min(searcher.startup, definition.sweep.trials // 2)) if searcher.learns else 0


def first_proposals(definition: StudyDefinition, known: int) -> list[dict[str, Any]]:
    """Return the proposals that the searcher does not decide, in their order; it completes those that lack parameters.

    Args:
        definition: Space, searcher, points and seed.
        known: Number of results of an earlier study, which replace as many trials of the start.
    """
    sweep = definition.sweep
    points = [dict(point) for point in sweep.points]
    if SEARCHERS[sweep.searcher].grid:
        grid = [point for point in definition.grid if point not in points]
        random.Random(trial_seed(sweep.seed, -1)).shuffle(grid)  # so that a part of the grid also covers the space
        return points + grid
    space = optuna_space(definition)
    count = max(0, startup_trials(definition) - known)
    for index in range(len(points), count):
        shares = spread(index, count, len(space), sweep.seed)
        points.append(
            {name: at_quantile(entry, share) for (name, entry), share in zip(space.items(), shares, strict=True)}
        )
    return points


def baseline_parameters(definition: StudyDefinition, ratio: float) -> dict[str, Any]:
    """Return the parameters of the uniform baseline ``ratio``."""
    return {"ratio": ratio, **middle_training(definition)}


def middle_training(definition: StudyDefinition) -> dict[str, Any]:
    """Return values of the swept training parameters for networks that are not searched.

    They come from the middle of the ranges. The definition gives no other value, and a default outside a range would
    make networks that are easily beaten.
    """
    return {
        name: at_quantile(entry, 0.5)
        for name, entry in optuna_space(definition).items()
        if name in type(definition.training).model_fields
    }
