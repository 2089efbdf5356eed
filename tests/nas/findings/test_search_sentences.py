"""The report says honestly whether learned splits beat uniform ones."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from nas.finalist import Finalist, Role
from nas.findings.scores import judged_metrics
from nas.findings.search_sentences import failure_of_all, failure_of_most, report_sentences
from nas.metrics import Evaluation, EvaluationKind, Measurement
from nas.study import Study, StudyState
from nas.trial import TrialKind, TrialState
from tests.nas.strategies import make_definition, make_trial

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPLITS = ("validation", "test")


def study(**changes) -> Study:
    definition = make_definition(**changes)
    return Study("id", "small", StudyState.RUNNING, definition, {"top1": 0.0, "macs": 1000.0}, NOW, NOW)


def baseline(number: int, scores, ratio: float = 0.25):
    return make_trial(number, scores, kind=TrialKind.BASELINE, parameters={"ratio": ratio})


def report(*trials) -> str:
    return "\n".join(report_sentences(study(), trials))


def test_a_better_split_of_equal_cost_wins() -> None:
    text = report(baseline(0, (0.90, 100.0)), make_trial(1, (0.925, 102.0)), make_trial(2, (0.99, 103.0)))
    assert text.startswith("Learned splits beat uniform ratios at equal cost: 1 of 1 baselines.")
    wins = "trial 1 (top-1 92.50 %, 102 macs) is 2.50 points better."
    assert f"Against uniform 1/4 (top-1 90.00 %, 100 macs): {wins}" in text


@pytest.mark.parametrize(
    ("trial", "says"),
    [
        (make_trial(1, (0.88, 90.0)), "trial 1 (top-1 88.00 %, 90 macs), is 2.00 points worse."),
        (make_trial(1, (0.90, 100.0)), "is just as good."),
        (make_trial(1, (0.99, 103.0)), "no learned split costs at most 1.02 times as much."),
    ],
)
def test_a_split_that_does_not_win_is_said_so(trial, says) -> None:
    text = report(baseline(0, (0.90, 100.0)), trial)
    assert text.startswith("Learned splits did not beat uniform ratios at equal cost: 0 of 1 baselines.")
    assert says in text


def test_each_baseline_is_judged_on_its_own() -> None:
    text = report(baseline(0, (0.90, 100.0)), baseline(1, (0.80, 50.0), 0.125), make_trial(2, (0.85, 51.0)))
    assert text.startswith("Learned splits beat uniform ratios at equal cost: 1 of 2 baselines.")


def test_every_cost_among_the_objectives_counts() -> None:
    dear = (Measurement("macs", 100.0), Measurement("params", 300.0))
    cheap = (Measurement("macs", 100.0), Measurement("params", 200.0))
    trials = [
        make_trial(0, (0.9, 0), kind=TrialKind.BASELINE, parameters={"ratio": 0.25}, measurements=cheap),
        make_trial(1, (0.95, 0), measurements=dear),
    ]
    sentences = report_sentences(study(objectives=["top1", "macs", "params"]), trials)
    assert "did not beat" in sentences[0]
    assert judged_metrics(("params", "macs")) == ("top1", ("params", "macs"))
    assert judged_metrics(("top5", "loss")) == ("top5", ("macs",))


def test_the_hypervolume_is_compared_with_that_of_the_baselines() -> None:
    # Alone: 0.5 * (1000 - 500) = 250; together 0.5 * (1000 - 250) = 375.
    text = report(baseline(0, (0.5, 500.0)), make_trial(1, (0.5, 250.0)))
    assert "The front holds 1 learned split and 0 uniform splits; its hypervolume is 50.00 % larger" in text


def test_failures_and_missed_budgets_are_told() -> None:
    missed = make_trial(1, (0.9, 100.0), within_budget=False, note="nearest reachable 90")
    failed = [make_trial(number, reason=f"reason {number}") for number in range(2, 7)]
    text = report(baseline(0, (0.90, 100.0)), missed, *failed)
    assert "Trial 1 missed its budget by more than 2 %: nearest reachable 90." in text
    assert "7 trials (6 searches, 1 baseline): 2 complete, 5 failed." in text
    assert "Trial 2 failed: reason 2" in text
    assert text.endswith("2 more trials failed.")


def test_many_missed_budgets_are_told_in_short() -> None:
    text = report(*(make_trial(number, (0.9, 100.0), within_budget=False, note="long") for number in (1, 3)))
    assert "2 trials missed their budget by more than 2 %: 1, 3; each says why." in text


def test_there_may_be_nothing_to_compare() -> None:
    assert "nothing to compare" in report(baseline(0, (0.9, 100.0)))
    assert "no uniform baseline" in report(make_trial(0, (0.9, 100.0)))


def retraining(number: int, role: str, top1: float, seed: int, **facts):
    widths = {"learned": (1, 2), "uniform": (2, 2)}[role]
    finalist = Finalist(Role(role), 1, None, 100.0, widths, seed_index=seed, **facts)
    scores = tuple(Evaluation(EvaluationKind.RETRAINED, "top1", top1, data_split=split) for split in SPLITS)
    made = make_trial(number, (top1, 100.0), kind=TrialKind.RETRAIN, parameters={}, evaluations=scores)
    return replace(made, finalist=finalist)


def test_the_final_comparison_answers_first() -> None:
    trials = [baseline(0, (0.90, 100.0)), make_trial(1, (0.95, 100.0), note="far", within_budget=True)]
    for seed in range(2):
        trials.append(retraining(2 + 2 * seed, "learned", 0.80, seed))
        trials.append(retraining(3 + 2 * seed, "uniform", 0.90, seed, ratio=0.25))
    sentences = report_sentences(study(final={"candidates": 1, "seeds": 2, "random": 0}), trials)
    assert sentences[0] == (
        "Retrained from scratch with 2 seeds at equal multiply-adds (within 0.0 %), the learned split of trial 1 is "
        "worse than uniform 1/4 by 10.00 ± 0.00 points of top-1 (95 % interval)."
    )
    older = "In the search, with one training each: learned splits beat uniform ratios at equal cost: 1 of 1 baselines."
    assert sentences.index(older) > 1
    assert "6 trials (1 search, 1 baseline, 4 retrainings): 6 complete." in sentences


def test_the_networks_of_a_supernet_do_not_compare_with_trained_ones() -> None:
    inherited = (Evaluation(EvaluationKind.INHERITED, "top1", 0.4),)
    supernet = make_trial(1, (0.4, 100.0), evaluations=inherited)
    assert report(baseline(0, (0.9, 100.0)), supernet).startswith(
        "Learned splits were scored with the weights of the search"
    )
    assert "no uniform baseline" in report(supernet)


def test_a_supernets_missed_budgets_are_counted() -> None:
    networks = [make_trial(0, (0.9, 100.0 + k), within_budget=k != 1, note="n").candidates[0] for k in range(3)]
    trial = replace(make_trial(4, (0.9, 100.0)), candidates=tuple(networks))
    assert "1 of the 3 networks of trial 4 missed their budget by more than 2 %; each says why." in report(trial)


def test_a_study_without_a_result_names_its_reasons() -> None:
    trials = [make_trial(0, reason="no data"), make_trial(1, reason="no data"), make_trial(2, reason="other")]
    assert failure_of_all(trials) == "every trial that was run failed (3): no data (2 times; 1 other reasons)"
    assert failure_of_all([make_trial(0, state=TrialState.CANCELLED, reason="no time")]) == "no trial was run: no time"


@pytest.mark.parametrize(("good", "bad", "said"), [(1, 1, False), (1, 2, True), (3, 2, False), (0, 1, True)])
def test_a_majority_of_failed_trials_comes_first(good: int, bad: int, said: bool) -> None:
    trials = [baseline(number, (0.9, 100.0)) for number in range(good)]
    trials += [make_trial(number, reason="it diverged") for number in range(good, good + bad)]
    found = failure_of_most(trials)
    assert (found is not None) is said
    if found is not None:
        assert found == f"most trials failed, {bad} of {good + bad}; {bad} of them with: it diverged"
        assert report(*trials).startswith(f"M{found[1:]}.")


def test_trials_that_never_ran_are_no_majority() -> None:
    cancelled = [replace(make_trial(number), state=TrialState.CANCELLED) for number in range(1, 9)]
    assert failure_of_most([baseline(0, (0.9, 100.0)), *cancelled]) is None


def test_a_wider_search_finds_networks_not_splits() -> None:
    budget = {"unit": "macs", "scope": "network"}
    wide = study(budget=budget, space={"target": 100, "search": ["split", "mlp_ratio", "depth"]})
    for gain, verdict in ((0.95, "beat"), (0.85, "did not beat")):
        trials = [baseline(0, (0.9, 100.0)), make_trial(1, (gain, 100.0))]
        sentences = report_sentences(wide, trials)
        assert sentences[0].startswith(f"Learned networks (split, MLP width and depth) {verdict} uniform ratios")
        assert not any("learned split" in sentence for sentence in sentences)
