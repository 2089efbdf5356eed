"""The difference that a paired comparison can show: against the distribution itself, and its sentences."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nas.errors import InputError
from nas.finalist import Role
from nas.findings.power import (
    PILOT_SEEDS,
    foresight,
    pilot_numbers,
    plan_from_earlier,
    seeds_to_show,
    smallest_difference,
    spread_of_pilot,
)
from nas.study import ComparisonPlan
from tests.nas.findings.test_comparison import LEARNED, RANDOM, UNIFORM, network, study, trained


@pytest.mark.parametrize("seeds", [2, 3, 5, 10, 100])
def test_the_smallest_difference_has_the_power(seeds: int) -> None:
    smallest = smallest_difference(2.0, seeds)
    assert smallest is not None
    bound, shift = stats.t.ppf(0.975, seeds - 1), smallest / 2.0 * math.sqrt(seeds)
    assert stats.nct.sf(bound, seeds - 1, shift) == pytest.approx(0.8, abs=1e-3)


def test_it_tends_to_that_of_the_normal_distribution() -> None:
    normal = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) / math.sqrt(10_000)
    assert smallest_difference(1.0, 10_000) == pytest.approx(normal, rel=1e-3)
    assert smallest_difference(1.0, 10) == pytest.approx(0.996, abs=1e-3)  # d = 1 needs 10 pairs in the tables


def test_a_single_seed_shows_nothing() -> None:
    assert smallest_difference(1.0, 1) is None


@given(st.floats(0.05, 20), st.floats(0.01, 10))
def test_the_number_of_seeds_is_the_smallest_that_is_enough(ratio: float, spread: float) -> None:
    difference = ratio * spread
    needed = seeds_to_show(difference, spread)
    assert needed >= 2
    assert smallest_difference(spread, needed) <= difference
    if needed > 2:
        assert smallest_difference(spread, needed - 1) > difference


def test_the_pilot_is_the_uniform_network_beside_the_best_learned_one() -> None:
    cheap = network(Role.LEARNED, of=7, target=500.0), network(Role.UNIFORM, of=7, target=500.0, ratio=0.125)
    scores = [0.60, 0.62, 0.64, 0.9]
    trials = trained((LEARNED, scores), (UNIFORM, scores), (cheap[0], scores), (cheap[1], scores))
    made = study(final={"seeds": 4})
    numbers = pilot_numbers(made, trials)
    chosen = [trial.finalist for trial in trials if trial.number in numbers]
    assert set(chosen) == {UNIFORM[0]}
    assert [finalist.seed_index for finalist in chosen] == list(range(PILOT_SEEDS))
    assert pilot_numbers(study(final={"seeds": 1}), trials) == frozenset()
    alone = trained((LEARNED, scores), (RANDOM[0], scores))
    assert len(pilot_numbers(made, alone)) == PILOT_SEEDS


def test_the_noise_of_two_trainings_adds_up() -> None:
    trials = trained((LEARNED, [None, None, None]), (UNIFORM, [0.60, 0.62, 0.64]))
    spread, trainings, source = spread_of_pilot(study(), trials)
    assert (spread, trainings, source) == (pytest.approx(math.sqrt(2) * 0.02), 3, "trainings of uniform 0.242")
    assert spread_of_pilot(study(), trained((LEARNED, [0.5]), (UNIFORM, [0.6]))) is None
    assert spread_of_pilot(study(), []) is None


def test_an_earlier_study_has_the_spread_of_its_pairs() -> None:
    new, old = study(final={"pilot": "old"}), replace(study(), name="old")
    trials = trained((LEARNED, [0.6, 0.7, 0.8]), (UNIFORM, [0.5, 0.5, 0.5]), (RANDOM[0], [0.5, 0.6, 0.7]))
    plan = plan_from_earlier(new.definition, old, trials)
    # Variances 0.01 (uniform) and 0 (random), of two degrees of freedom each.
    assert (plan.spread, plan.trainings) == (pytest.approx(math.sqrt(0.005)), 6)
    assert plan.source == "paired trainings of study old"
    with pytest.raises(InputError, match=r"final\.pilot: study old has no final comparison with two seeds"):
        plan_from_earlier(new.definition, old, trained((LEARNED, [0.6]), (UNIFORM, [0.5])))
    other = replace(old, definition=study(data={"name": "cifar10"}).definition)
    with pytest.raises(InputError, match=r"final\.pilot: study old trains otherwise: its data differs"):
        plan_from_earlier(new.definition, other, trials)


PLAN = ComparisonPlan(spread=0.01, trainings=3, source="trainings of uniform 1/4")


@pytest.mark.parametrize(
    ("final", "plan", "expected"),
    [
        ({"seeds": 1}, PLAN, "A single seed gives no interval"),
        ({"seeds": 5}, None, None),
        ({"seeds": 5}, ComparisonPlan(), None),
        (
            {"seeds": 5},
            PLAN,
            "With 5 seeds, a difference of 1.68 points of top-1 between two networks can be shown (two-sided 95 % "
            "paired t-test, power 80 %). The difference of a pair has a standard deviation of 1.00, from 3 trainings "
            "of uniform 1/4.",
        ),
        ({"seeds": 5, "show": 2}, PLAN, " That is enough for the 2 of final.show."),
        ({"seeds": 5, "show": 1}, PLAN, " To show 1, 10 seeds are needed (final.seeds: 10)."),
    ],
)
def test_what_can_be_shown_is_said_in_points(final, plan, expected) -> None:
    said = foresight(plan, study(final=final).definition)
    assert said is None if expected is None else said is not None and expected in said


def test_a_plan_survives_its_json_form() -> None:
    for plan in (PLAN, ComparisonPlan(("none",))):
        assert ComparisonPlan.from_dict(plan.to_dict()) == plan
