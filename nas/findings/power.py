"""The difference that a final comparison can show, before its trainings: power of a paired t-test. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import stdev, variance

from nas.definition.sections import FinalSpec
from nas.definition.study import StudyDefinition
from nas.errors import InputError
from nas.finalist import Role
from nas.findings.comparison import CONFIDENCE, Comparison, Row, comparison_of
from nas.findings.scores import judged_metrics
from nas.findings.warm_start import differences
from nas.formatting import format_number
from nas.metrics import METRICS
from nas.study import ComparisonPlan, Study
from nas.trial import Trial

POWER = 0.8
"""Probability that the comparison shows a difference which it is said to be able to show."""
PILOT_SEEDS = 3
"""Trainings of one network with the first seeds, from which the spread of all is estimated."""
_MOST_SEEDS = 100_000


def smallest_difference(spread: float, seeds: int) -> float | None:
    """Return the smallest true difference that a paired t-test shows with the probability :data:`POWER`.

    The test is two-sided at 95 %. The chance to find a difference of the wrong sign is left out; it is below 1e-3.

    Args:
        spread: Standard deviation of the difference of one pair.
        seeds: Number of pairs; fewer than two show nothing.
    """
    if seeds < 2:
        return None
    from scipy.special import nctdtrinc, stdtrit  # slow to load: the service starts without it

    critical = float(stdtrit(seeds - 1, (1 + CONFIDENCE) / 2))
    return float(nctdtrinc(seeds - 1, 1 - POWER, critical)) * spread / math.sqrt(seeds)


def seeds_to_show(difference: float, spread: float) -> int:
    """Return the smallest number of pairs that shows a true difference; at most 100 000 are tried."""
    low, high = 1, 2  # `low` is too few, since a single pair shows nothing
    while high < _MOST_SEEDS and (smallest_difference(spread, high) or 0.0) > difference:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if (smallest_difference(spread, middle) or 0.0) > difference else (low, middle)
    return high


def pilot_row(comparison: Comparison) -> Row | None:
    """Return the network whose first seeds are the pilot: the uniform one beside the best learned one, or the latter.
    """
    if not comparison:
        return None
    group = comparison.groups[-1]
    return next((row for row in group if row.role is Role.UNIFORM), group[0])


def pilot_numbers(study: Study, trials: Sequence[Trial]) -> frozenset[int]:
    """Return the numbers of the trials that are the pilot; none if the comparison has one seed or its spread is known.
    """
    row = pilot_row(comparison_of(study, trials))
    if row is None or study.definition.final.seeds < 2:
        return frozenset()
    of_row = [trial for trial in trials if trial.number in row.numbers and trial.finalist is not None]
    return frozenset(t.number for t in of_row if t.finalist is not None and t.finalist.seed_index < PILOT_SEEDS)


def spread_of_pilot(study: Study, trials: Sequence[Trial]) -> tuple[float, int, str] | None:
    """Return the spread of a difference, the trainings that it rests on, and its origin; None without two trainings.

    Two networks trained with one seed share little but the order of the images, so that their noise adds up.
    """
    row = pilot_row(comparison_of(study, trials))
    if row is None or row.seeds < 2:
        return None
    return math.sqrt(2) * stdev(row.scores.values()), row.seeds, f"trainings of {row.label}"


def plan_from_earlier(definition: StudyDefinition, source: Study, trials: Sequence[Trial]) -> ComparisonPlan:
    """Return the plan with the spread that an earlier study's final comparison had.

    Args:
        definition: Definition of the new study.
        source: Earlier study.
        trials: Its trials.

    Raises:
        InputError: If the earlier study trains other networks or data, or has no comparison with two seeds.
    """
    place = f"final.pilot: study {source.name}"
    if differing := differences(definition, source.definition):
        raise InputError(f"{place} trains otherwise: {'; '.join(differing)}")
    metric = judged_metrics(definition.objectives)[0]
    comparison = comparison_of(source, trials)
    groups = [
        list(found.values())
        for role in Role
        if role is not Role.LEARNED and comparison.metric == metric
        for found in comparison.pairs(role)
        if len(found) > 1
    ]
    if not groups:
        raise InputError(f"{place} has no final comparison with two seeds, so it has no spread of {metric}")
    freedom = [len(values) - 1 for values in groups]
    pooled = sum(n * variance(values) for n, values in zip(freedom, groups, strict=True)) / sum(freedom)
    return ComparisonPlan(
        spread=math.sqrt(pooled), trainings=sum(map(len, groups)), source=f"paired trainings of study {source.name}"
    )


def foresight(plan: ComparisonPlan | None, definition: StudyDefinition) -> str | None:
    """Return which difference the seeds of a study can show, in a sentence; None while the spread is unknown."""
    asked = definition.final
    if asked.seeds < 2:
        return "A single seed gives no interval, so this comparison can show no difference; final.seeds: 2 or more can."
    if plan is None or plan.spread is None:
        return None
    metric = judged_metrics(definition.objectives)[0]
    unit = f"points of {METRICS[metric].short.removesuffix(' %')}" if METRICS[metric].percent else metric
    scale = 100.0 if METRICS[metric].percent else 1.0
    smallest = smallest_difference(plan.spread, asked.seeds)
    assert smallest is not None  # there are two seeds
    return (
        f"With {format_number(asked.seeds, 'seed')}, a difference of {_figure(scale * smallest)} {unit} between two "
        f"networks can be shown (two-sided 95 % paired t-test, power {100 * POWER:.0f} %). The difference of a pair "
        f"has a standard deviation of {_figure(scale * plan.spread)}, from {plan.trainings} {plan.source}."
        f"{_wanted(asked, scale * smallest, scale * plan.spread)}"
    )


def _wanted(asked: FinalSpec, smallest: float, spread: float) -> str:
    if asked.show is None:
        return ""
    if smallest <= asked.show:
        return f" That is enough for the {asked.show:g} of final.show."
    needed = seeds_to_show(asked.show, spread)
    return f" To show {asked.show:g}, {needed:,} seeds are needed (final.seeds: {needed})."


def _figure(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
