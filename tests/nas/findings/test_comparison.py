"""Differences of retrained networks: closed forms, and what is said of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.definition.searched import choice_words, choices_beside, network_word
from nas.definition.sections import FinalSpec
from nas.finalist import Finalist, Role
from nas.findings.comparison import Comparison, Difference, Verdict, comparison_of, retrained_means, t_margin
from nas.findings.comparison_sentences import comparison_sentences
from nas.metrics import Evaluation, EvaluationKind, Measurement
from nas.study import Study, StudyState
from nas.trial import Trial, TrialKind, TrialState
from partialnet.kinds import KINDS
from tests.nas.strategies import make_candidate, make_definition

NOW = datetime(2026, 1, 1, tzinfo=UTC)
# Of two-sided Student's t at 95 %, as tables print them.
QUANTILES = {1: 12.7062, 2: 4.3027, 3: 3.1824, 9: 2.2622, 29: 2.0452}
Scores = Sequence[float | None]


def study(**changes) -> Study:
    return Study("id", "small", StudyState.RUNNING, make_definition(**changes), {}, NOW, NOW)


def network(
    role: Role, of: int = 5, *, cost: float = 1000.0, target: float = 1000.0, **facts
) -> tuple[Finalist, float]:
    return Finalist(role, of, facts.pop("position", None), target, (round(cost), facts.get("draw") or 0), **facts), cost


def trained(
    *networks: tuple[tuple[Finalist, float], Scores], split: str = "test", metric: str = "top1", first: int = 10
) -> list[Trial]:
    """Return the trials that trained the networks: a score for each seed, None for a failure."""
    trials = []
    for (finalist, cost), scores in networks:
        for seed, score in enumerate(scores):
            number, training = first + len(trials), replace(finalist, seed_index=seed)
            if score is None:
                state = TrialState.FAILED
                failed = Trial(number, TrialKind.RETRAIN, state, {}, seed, "the loss is nan", finalist=training)
                trials.append(failed)
                continue
            found = tuple(
                Evaluation(EvaluationKind.RETRAINED, metric, score - off, data_split=name, seed=seed, epochs=7)
                for name, off in (("validation", 0.25), ("test", 0.0))
                if split == "test" or name == "validation"
            )
            costs = (Measurement("macs", cost), Measurement("params_inference", cost))
            candidate = make_candidate(score, cost, evaluations=found, measurements=costs)
            facts = (TrialKind.RETRAIN, TrialState.COMPLETE, {}, seed, None, (candidate,))
            trials.append(Trial(number, *facts, finalist=training))
    return trials


LEARNED, UNIFORM = network(Role.LEARNED), network(Role.UNIFORM, cost=1010.0, ratio=0.2421875)
RANDOM = [network(Role.RANDOM, cost=990.0, draw=draw) for draw in range(2)]


def compare(*networks, **facts) -> Comparison:
    return comparison_of(study(), trained(*networks, **facts))


def test_a_cost_is_the_one_under_the_circumstances_of_the_study() -> None:
    """Networks that another study has measured as well are compared by what this study measured of all."""
    trials = trained((LEARNED, [0.5]), (UNIFORM, [0.4]))
    times = [Measurement("predicted_ms", ms, {}, where) for ms, where in ((2.0, "own"), (9.0, "another"))]
    for trial, measured in zip(trials, (times[:1], times), strict=True):
        object.__setattr__(trial.candidates[0], "measurements", tuple(measured))
    found = comparison_of(study(budget={"unit": "latency", "target": 2}), trials)
    assert [row.cost for row in found.rows] == [2.0, 2.0]


@pytest.mark.parametrize("n", [2, 3, 4, 10, 30])
def test_the_margin_is_the_tabulated_quantile_times_the_standard_error(n: int) -> None:
    values = [0.0] * (n - 1) + [1.0]  # variance 1/n
    assert t_margin(values) == pytest.approx(QUANTILES[n - 1] / n, rel=1e-4)


def test_of_two_values_the_margin_is_half_their_distance_times_the_quantile() -> None:
    assert t_margin([1.0, 4.0]) == pytest.approx(QUANTILES[1] * 1.5, rel=1e-4)
    assert t_margin([1.0, 4.0], confidence=0.5) == pytest.approx(1.5)  # the quantile of Cauchy's distribution is 1
    assert t_margin([1.0]) is None


values = st.lists(st.floats(-1, 1), min_size=2, max_size=8)


@given(values, st.floats(-10, 10), st.floats(0.1, 10))
def test_margins_shift_and_scale_with_the_values(found: list[float], shift: float, scale: float) -> None:
    margin = t_margin(found)
    assert margin == pytest.approx(t_margin([-value for value in found]))
    assert t_margin([scale * value + shift for value in found]) == pytest.approx(scale * margin, abs=1e-9)
    assert t_margin(found, confidence=0.99) >= margin


@given(values)
def test_a_verdict_needs_the_whole_interval_on_one_side(found: list[float]) -> None:
    difference = Difference(fmean(found), t_margin(found), len(found))
    low, high = difference.mean - difference.margin, difference.mean + difference.margin
    expected = Verdict.BETTER if low > 0 else Verdict.WORSE if high < 0 else Verdict.OPEN
    assert difference.verdict is expected


def test_differences_are_paired_by_seed() -> None:
    # Both vary widely from seed to seed, their difference hardly.
    comparison = compare((LEARNED, [0.5, 0.7, 0.9]), (UNIFORM, [0.48, 0.68, 0.87]))
    [found] = comparison.differences(Role.UNIFORM)
    assert found.mean == pytest.approx(0.07 / 3)
    assert found.margin == pytest.approx(QUANTILES[2] * 0.01 / 3, rel=1e-4)
    assert found.verdict is Verdict.BETTER
    assert comparison.pooled(Role.UNIFORM) == found
    assert comparison.differences(Role.RANDOM) == (None,)
    assert comparison.pooled(Role.RANDOM) is None


def test_random_networks_count_by_their_mean() -> None:
    comparison = compare((LEARNED, [0.5, 0.5]), (RANDOM[0], [0.4, 0.4]), (RANDOM[1], [0.5, 0.3]))
    [found] = comparison.differences(Role.RANDOM)
    assert found.mean == pytest.approx((0.05 + 0.15) / 2)
    assert found.margin == pytest.approx(QUANTILES[1] * 0.05, rel=1e-4)


def test_over_networks_the_differences_of_a_seed_are_averaged_first() -> None:
    other, rival = network(Role.LEARNED, of=7, target=500.0), network(Role.UNIFORM, of=7, target=500.0, ratio=0.125)
    comparison = compare(
        (LEARNED, [0.6, 0.6]), (UNIFORM, [0.5, 0.3]), (other, [0.5, 0.5]), (rival, [0.5, 0.6])
    )
    assert [group[0].of for group in comparison.groups] == [7, 5]  # by cost
    assert [found.mean for found in comparison.differences(Role.UNIFORM)] == pytest.approx([-0.05, 0.2])
    pooled = comparison.pooled(Role.UNIFORM)  # of seeds: (0.1 + 0.0) / 2 and (0.3 - 0.1) / 2
    assert (pooled.mean, pooled.seeds) == (pytest.approx(0.075), 2)
    assert pooled.margin == pytest.approx(QUANTILES[1] * 0.025, rel=1e-4)


seeds = st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=5)


@given(seeds, seeds, seeds)
def test_a_seed_counts_where_all_that_is_compared_was_trained(ours: Scores, one: Scores, two: Scores) -> None:
    comparison = compare((LEARNED, ours), (RANDOM[0], one), (RANDOM[1], two))
    rivals = [scores for scores in (one, two) if any(score is not None for score in scores)]
    shared = [
        (a, rest)
        for a, *rest in zip(ours, *([*scores, *[None] * 5] for scores in rivals), strict=False)
        if a is not None and None not in rest
    ]
    [found] = comparison.differences(Role.RANDOM)
    if not rivals or not shared:
        assert found is None
    else:
        assert found.seeds == len(shared)
        assert found.mean == pytest.approx(fmean(a - fmean(rest) for a, rest in shared))
        assert (found.margin is None) == (len(shared) == 1)


def test_rows_are_data_for_tables() -> None:
    comparison = compare((RANDOM[0], [0.4, None]), (UNIFORM, [0.5, 0.6]), (LEARNED, [0.7, 0.9]))
    assert [(row.candidate, row.role, row.label, row.seeds, row.cost) for row in comparison.rows] == [
        ("trial 5", Role.LEARNED, "trial 5", 2, 1000.0),
        ("trial 5", Role.UNIFORM, "uniform 0.242", 2, 1010.0),
        ("trial 5", Role.RANDOM, "random split 1", 1, 990.0),
    ]
    learned, uniform, random = comparison.rows
    assert (learned.mean, learned.std) == (pytest.approx(0.8), pytest.approx(math.sqrt(0.02)))
    assert (random.mean, random.std, random.numbers) == (0.4, None, (10, 11))
    assert uniform.off == pytest.approx(0.01)
    assert (comparison.metric, comparison.data_split, comparison.cost_metric) == ("top1", "test", "macs")


def test_there_may_be_no_comparison() -> None:
    comparison = comparison_of(study(), [])
    assert not comparison
    assert comparison.groups == ()
    assert comparison_sentences(comparison, FinalSpec()) == ()


def test_what_is_not_trained_yet_has_no_score() -> None:
    queued = Trial(9, TrialKind.RETRAIN, TrialState.QUEUED, {}, 0, finalist=LEARNED[0])
    [row] = comparison_of(study(), [queued]).rows
    assert (row.seeds, row.mean, row.std, row.cost) == (0, None, None, 1000.0)


def test_parameters_may_be_what_the_budget_counts() -> None:
    found = comparison_of(study(budget={"unit": "params"}), trained((LEARNED, [0.5]), (UNIFORM, [0.4])))
    assert found.cost_metric == "params_inference"
    assert "at equal parameters (within 1.0 %)" in comparison_sentences(found, FinalSpec())[0]


def test_networks_of_a_supernet_are_told_apart() -> None:
    both = [network(Role.LEARNED, of=0, position=position, target=500.0 + position) for position in (0, 3)]
    comparison = compare(*((one, [0.5]) for one in both))
    assert [row.label for row in comparison.rows] == ["trial 0.0", "trial 0.3"]
    assert set(retrained_means(trained(*((one, [0.5]) for one in both)))) == {(0, 0), (0, 3)}


def test_the_learned_network_gets_the_means_of_its_retrainings() -> None:
    trials = trained((LEARNED, [0.5, 0.7, None]), (UNIFORM, [0.1, 0.1, 0.1]))
    [(key, found)] = retrained_means(trials).items()
    assert key == (5, 0)
    assert [(e.kind, e.metric, e.data_split, e.seed, e.epochs) for e in found] == [
        (EvaluationKind.RETRAINED, "top1", "validation", None, 7),
        (EvaluationKind.RETRAINED, "top1", "test", None, 7),
    ]
    assert [(e.value, e.std) for e in found] == [
        (pytest.approx(mean), pytest.approx(math.sqrt(0.02))) for mean in (0.35, 0.6)
    ]
    assert next(iter(retrained_means(trained((LEARNED, [0.5]))).values()))[0].std is None


def say(*networks, asked: Mapping[str, int] | None = None, **facts) -> str:
    count = len([1 for (finalist, _), _ in networks if finalist.role is Role.LEARNED])
    spec = FinalSpec(**{"candidates": count, "seeds": 3, "random": 0, **(asked or {})})
    return "\n".join(comparison_sentences(compare(*networks, **facts), spec))


@pytest.mark.parametrize(
    ("ours", "theirs", "sentence"),
    [
        (  # an interval that holds 0 proves nothing, however large the difference
            [0.62, 0.61, 0.63],
            [0.60, 0.60, 0.60],
            "the learned split of trial 5 is not shown to be better than uniform 0.242: the difference is "
            "+2.00 ± 2.48 points of top-1 (95 % interval).",
        ),
        (
            [0.63, 0.62, 0.63],
            [0.60, 0.60, 0.60],
            "the learned split of trial 5 is better than uniform 0.242 by 2.67 ± 1.43 points of top-1 (95 % interval).",
        ),
        (
            [0.57, 0.58, 0.57],
            [0.60, 0.60, 0.60],
            "the learned split of trial 5 is worse than uniform 0.242 by 2.67 ± 1.43 points of top-1 (95 % interval).",
        ),
        (
            [0.60, 0.61, 0.59],
            [0.60, 0.60, 0.60],
            "the learned split of trial 5 is not shown to be better than uniform 0.242: the difference is "
            "+0.00 ± 2.48 points of top-1 (95 % interval).",
        ),
        (
            [0.59],
            [0.60],
            "the learned split of trial 5 is not shown to be better than uniform 0.242: the difference is "
            "-1.00 points of top-1, and a single seed gives no interval.",
        ),
    ],
)
def test_the_answer_comes_first(ours: Scores, theirs: Scores, sentence: str) -> None:
    first = say((LEARNED, ours), (UNIFORM, theirs)).splitlines()[0]
    seeds = "1 seed" if len(ours) == 1 else "3 seeds"
    start = f"Retrained from scratch with {seeds} at equal multiply-adds (within 1.0 %), "
    assert first == start + sentence


def test_random_splits_and_figures_follow() -> None:
    text = say(
        (LEARNED, [0.63, 0.62, 0.63]),
        (UNIFORM, [0.60, 0.60, 0.60]),
        *((one, [0.63, 0.64, 0.65]) for one in RANDOM),
        asked={"random": 2},
    )
    assert text.splitlines()[1] == (
        "Retrained from scratch with 3 seeds at equal multiply-adds (within 1.0 %), the learned split of trial 5 is "
        "not shown to be better than random splits: the difference is -1.33 ± 2.87 points of top-1 (95 % interval)."
    )
    assert (
        "Trial 5 (1.000 k multiply-adds): 62.67 % (std 0.58); uniform 0.242 60.00 % (std 0.00), difference "
        "+2.67 ± 1.43 points; 2 random splits 64.00 % (std 1.00), 64.00 % (std 1.00), difference from their mean "
        "-1.33 ± 2.87 points."
    ) in text
    assert "intervals are Student's t over the seeds. Scores are on test images" in text


SCALED = network(Role.SCALED, cost=1015.0, width=1.125, depth=1.0, ratio=0.25)


def test_the_scaled_shape_is_answered_too_and_all_answers_come_first() -> None:
    networks = ((LEARNED, [0.63, 0.62, 0.63]), (UNIFORM, [0.60] * 3), (RANDOM[0], [0.61] * 3), (SCALED, [0.60] * 3))
    lines = say(*networks, asked={"random": 1}).splitlines()
    assert all(line.startswith("Retrained from scratch with 3 seeds at equal multiply-adds") for line in lines[:3])
    assert "better than uniform 0.242 by" in lines[0]
    assert "better than a random split by" in lines[1]
    assert lines[2] == (
        "Retrained from scratch with 3 seeds at equal multiply-adds (within 1.5 %), the learned split of trial 5 is "
        "better than the published shape at width x1.12 by 2.67 ± 1.43 points of top-1 (95 % interval)."
    )
    assert "; width x1.12 60.00 % (std 0.00), difference +2.67 ± 1.43 points" in lines[3]


def test_an_ablation_splits_the_gain_over_uniform_networks() -> None:
    alone = [network(Role.ABLATED, draw=draw, kind=kind) for draw, kind in enumerate(("split", "depth"))]
    networks = ((LEARNED, [0.63, 0.65]), (UNIFORM, [0.60, 0.61]), (alone[0], [0.60, 0.61]), (alone[1], [0.61, 0.64]))
    comparison = compare(*networks)
    assert {label: found.mean for label, found in comparison.ablations.items()} == {
        "split alone": pytest.approx(0.0), "depth alone": pytest.approx(0.02),
    }  # fmt: skip
    [sentence] = [line for line in say(*networks).splitlines() if line.startswith("Ablation")]
    assert sentence == (
        "Ablation, points of top-1 over uniform networks of equal cost: all kinds +3.50 ± 6.35; split alone +0.00 ± "
        "0.00; depth alone +2.00 ± 12.71."
    )


def test_only_requested_rivals_are_missed() -> None:
    text = say((LEARNED, [0.6, 0.7]), (SCALED, [0.5, 0.5]), asked={"random": 2, "against": ("scaled",)})
    assert "better than the published shape" in text.splitlines()[0]
    assert "uniform" not in text
    assert "requested random ones" not in text


def test_a_measured_cost_is_told_from_a_counted_one() -> None:
    near = network(Role.SCALED, cost=4.0, width=0.9, depth=1.5)
    measured = replace(near[0], cost=1040.0), near[1]
    text = say((LEARNED, [0.6, 0.7]), (measured, [0.5, 0.5]), asked={"against": ("scaled",)})
    assert "at equal measured latency (within 4.0 %)" in text
    assert "the published shape at width x0.9, depth x1.5" in text
    assert "No scaled shape" not in text
    far = replace(near[0], cost=900.0), near[1]
    assert "No scaled shape comes within 5 % of trial 5: width x0.9, depth x1.5 has 10.0 % less measured" in say(
        (LEARNED, [0.6, 0.7]), (far, [0.5, 0.5]), asked={"against": ("scaled",)}
    )


def test_a_single_random_split_has_no_mean() -> None:
    text = say((LEARNED, [0.6, 0.6]), (RANDOM[0], [0.5, 0.5]), asked={"random": 1})
    assert "1 random split 50.00 % (std 0.00), difference +10.00 ± 0.00 points." in text
    assert "better than a random split by 10.00 ± 0.00 points" in text


def test_several_networks_are_pooled() -> None:
    other, rival = network(Role.LEARNED, of=7, target=500.0), network(Role.UNIFORM, of=7, target=500.0, ratio=0.125)
    text = say((LEARNED, [0.6, 0.7]), (UNIFORM, [0.5, 0.5]), (other, [0.5, 0.6]), (rival, [0.5, 0.5]))
    assert "learned splits are not shown to be better than uniform ratios" in text
    assert "(95 % interval, mean over 2 networks)" in text
    assert "over several networks, those of one seed are averaged first" in text


def test_validation_images_are_admitted() -> None:
    text = say((LEARNED, [0.6, 0.7]), (UNIFORM, [0.5, 0.5]), split="validation")
    assert "There are no test images: scores are on validation images, which also chose the learned networks" in text


def test_what_falls_short_is_told() -> None:
    far = network(Role.UNIFORM, cost=1031.0, ratio=0.25)
    text = say(
        (LEARNED, [0.6, None]), (far, [0.5, 0.4]), (RANDOM[0], [0.5, 0.4]), asked={"candidates": 2, "random": 2}
    )
    assert "2 learned splits were requested, but the front held 1 network." in text
    assert "No uniform ratio comes within 2 % of trial 5: uniform 1/4 has 3.1 % more multiply-adds." in text
    assert "Trial 5 has 1 other split within 2 % of its cost; requested random ones: 2." in text
    assert "1 of 6 trainings of the comparison have no score" in text


def test_a_uniform_split_has_nothing_to_be_compared_with() -> None:
    text = say((LEARNED, [0.6, 0.7]), asked={"random": 1})
    assert text.startswith("Retrained from scratch, learned splits could not be compared with uniform ratios.")
    assert "The learned split of trial 5 is a uniform ratio itself." in text
    assert "Trial 5 has no other split within 2 % of its cost; requested random ones: 1." in text


def test_failures_alone_are_told() -> None:
    text = say((LEARNED, [None, None]), (UNIFORM, [0.5, 0.5]))
    assert text.startswith("Retrained from scratch, learned splits could not be compared with uniform ratios.")
    assert "Trial 5 (1.000 k multiply-adds): no score; uniform 0.242 50.00 % (std 0.00)." in text


WIDE = ("split", "mlp_ratio", "depth")


def test_a_wider_search_says_what_it_searched() -> None:
    networks = ((LEARNED, [0.63, 0.62, 0.63]), (UNIFORM, [0.60] * 3), *((one, [0.6, 0.61, 0.62]) for one in RANDOM))
    wide = replace(compare(*networks), searched=WIDE)
    lines = comparison_sentences(wide, FinalSpec(candidates=2, random=3))
    learned = "the learned network of trial 5 (split, MLP width and depth) is"
    assert lines[0].endswith(f"{learned} better than uniform 0.242 by 2.67 ± 1.43 points of top-1 (95 % interval).")
    assert f"{learned} not shown to be better than random networks" in lines[1]
    text = "\n".join(lines)
    assert "2 random networks 61.00 %" in text
    assert "2 learned networks were requested" in text
    assert "has 2 other networks within 2 % of its cost" in text
    assert "split of" not in text
    assert "random split" not in text


def test_kinds_have_their_words() -> None:
    assert choice_words(KINDS) == "split, attended channels, kernel size, MLP width and depth"
    assert choice_words(["depth"]) == "depth"
    assert (network_word(["split"]), choices_beside(["split"])) == ("split", "")
    assert (network_word(["depth"]), choices_beside(["depth"])) == ("network", " (depth)")


def test_networks_of_equal_measured_latency_are_told_as_such() -> None:
    def rival(role: Role, off: float, **facts) -> tuple[Finalist, float]:
        finalist, cost = network(role, **facts)
        return replace(finalist, cost=1000.0 * (1 + off)), cost

    scores = ([0.63, 0.62, 0.63], [0.60] * 3, [0.61] * 3)
    rivals = (LEARNED, rival(Role.UNIFORM, -0.08, ratio=0.25), rival(Role.RANDOM, 0.04, draw=0))
    found = replace(compare(*zip(rivals, scores, strict=True)), cost_metric="predicted_ms")
    text = "\n".join(comparison_sentences(found, FinalSpec(candidates=1, random=2)))
    assert "at equal measured latency (within 8.0 %), the learned split of trial 5 is better than uniform 1/4" in text
    assert "at equal measured latency (within 4.0 %)" in text
    assert "No uniform ratio comes within 5 % of trial 5: uniform 1/4 has 8.0 % less measured latency." in text
    assert "Trial 5 has 1 other split within 5 % of its measured latency; requested random ones: 2." in text
