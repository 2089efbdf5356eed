"""Fronts by method, and beliefs against retraining: one kind of evaluation, seeds put together, tau with its sign."""

from __future__ import annotations

from dataclasses import replace
from statistics import stdev
from typing import Any

import pytest

from nas.errors import InputError
from nas.finalist import Finalist, Role
from nas.metrics import EvaluationKind
from nas.plots.agreement import AgreementMark, agreement_figure, agreement_info
from nas.plots.methods import MethodMark, check_comparable, methods_figure, methods_info
from nas.study import Study
from nas.trial import Trial, TrialKind
from tests.nas.plots.fixture_trials import candidate, study, trial

INHERITED = (EvaluationKind.INHERITED, "top1", "validation")
FINETUNED = (EvaluationKind.FINETUNED, "top1", "validation")
RETRAINED = (EvaluationKind.RETRAINED, "top1", "test")
PREDICTED = (EvaluationKind.PREDICTED, "loss", "validation")


def by(method: str, name: str) -> Study:
    """Return a study whose ratios were learned by ``method``."""
    made = study(name)
    return replace(made, definition=made.definition.model_copy(update={"method": method}))


def retrained(first: int, active: list[int], scores: list[float], **parameters: Any) -> list[Trial]:
    """Return a training from scratch for each of ``scores``."""
    facts = {"position": None, "target": 100.0, "active_channels": tuple(active), **parameters}
    return [
        replace(
            trial(first + k, [candidate(active, {RETRAINED: score})], TrialKind.RETRAIN),
            finalist=Finalist(**{**facts, "role": Role(facts["role"])}, seed_index=k),
        )
        for k, score in enumerate(scores)
    ]


def searched() -> list[Trial]:
    return [
        trial(0, [candidate([32, 32], {FINETUNED: 0.75}, macs=200)], TrialKind.BASELINE, ratio=0.5),
        trial(1, [candidate([16, 32], {INHERITED: 0.5, FINETUNED: 0.75}, macs=150)], target=3.0),
        trial(2, [candidate([64, 32], {INHERITED: 0.625, FINETUNED: 0.875}, macs=300)], target=1.5),
        trial(3, [candidate([8, 8], {FINETUNED: 0.5}, macs=100)], TrialKind.RANDOM, target=8.0),
    ]


def test_fine_tuned_networks_by_method():
    info = methods_info([(by("gates", "a"), searched())], title="t")
    assert (info.title, info.x_label, info.empty) == ("t", "FLOPs (multiply-adds)", "")
    assert info.y_label == "top-1 (%), finetuned, validation data"
    assert info.marks == (
        MethodMark("uniform", "a", 0, "1/2", 200.0, 75.0, None, 1),
        MethodMark("gates", "a", 1, "search", 150.0, 75.0, None, 1),
        MethodMark("gates", "a", 2, "search", 300.0, 87.5, None, 1),
        MethodMark("random", "a", 3, "random", 100.0, 50.0, None, 1),
    )
    assert dict(info.fronts) == {
        "gates": ((150.0, 75.0), (300.0, 75.0), (300.0, 87.5)),
        "uniform": ((200.0, 75.0),),
        "random": ((100.0, 50.0),),
    }


def test_retrained_networks_are_the_mean_of_their_seeds_and_no_other_kind_is_beside_them():
    final = [
        *retrained(4, [64, 32], [0.5, 0.75], role="learned", of=2),
        *retrained(6, [48, 48], [0.25, 0.5], role="uniform", of=2, ratio=0.75),
        *retrained(8, [48, 32], [0.5, 0.5], role="random", of=2, draw=0),
    ]
    info = methods_info([(by("supernet", "a"), [*searched(), *final])])
    assert info.evaluation is EvaluationKind.RETRAINED
    assert info.y_label == "top-1 (%), retrained, test data"
    assert [(m.series, m.number, m.y, m.seeds) for m in info.marks] == [
        ("supernet", 4, 62.5, 2),
        ("uniform", 6, 37.5, 2),
        ("random", 8, 50.0, 2),
    ]
    kinds = (EvaluationKind.FINETUNED, EvaluationKind.INHERITED)
    assert methods_info([(by("supernet", "a"), [*searched(), *final])], kinds=kinds).evaluation is kinds[0]
    assert info.marks[0].std == stdev([50, 75])
    assert info.marks[1].label == "0.75"
    figure = methods_figure(info)
    named = {trace.name: trace for trace in figure.data if trace.mode != "lines"}
    assert list(named) == ["learned: supernet", "uniform ratio", "random networks"]
    assert list(named["learned: supernet"].error_y.array) == [stdev([50, 75])]
    assert len({trace.marker.symbol for trace in named.values()}) == len({t.marker.color for t in named.values()}) == 3


def test_networks_with_one_kind_of_choice_as_learned_are_no_learned_ones():
    final = [
        *retrained(4, [64, 32], [0.5, 0.75], role="learned", of=2),
        *retrained(6, [48, 32], [0.25, 0.5], role="ablated", of=2, kind="split"),
    ]
    info = methods_info([(by("gates", "a"), [*searched(), *final])])
    assert [(m.series, m.y) for m in info.marks] == [("gates", 62.5), ("ablated", 37.5)]
    assert info.marks[1].label == "split"
    assert [trace.name for trace in methods_figure(info).data if trace.showlegend is None] == [
        "learned: gates", "one kind alone",
    ]  # fmt: skip


def test_a_mean_that_a_network_of_the_search_carries_is_not_counted_beside_its_trainings():
    carried = trial(2, [candidate([64, 32], {RETRAINED: 0.625}, macs=300)], target=1.5)
    final = retrained(4, [64, 32], [0.5, 0.75, 0.75], role="learned", of=2)
    alone, both = (methods_info([(by("gates", "a"), found)]) for found in ([carried], [carried, *final]))
    assert [(mark.number, mark.y, mark.seeds) for mark in alone.marks] == [(2, 62.5, 1)]
    assert [(mark.number, mark.y, mark.seeds) for mark in both.marks] == [(4, pytest.approx(200 / 3), 3)]


def test_studies_are_drawn_by_method_in_the_kind_that_all_have():
    final = retrained(4, [64, 32], [0.5], role="learned", of=2)
    info = methods_info([(by("gates", "a"), [*searched(), *final]), (by("fractional", "b"), searched()[:2])])
    assert info.evaluation is EvaluationKind.FINETUNED
    assert {mark.series for mark in info.marks if mark.study == "b"} == {"uniform", "fractional"}
    assert len(methods_figure(info).data) == 7  # a staircase and marks of three series, marks of random ratios


def test_studies_of_different_data_are_refused():
    with pytest.raises(InputError, match=r"a has digits at 8 pixels and b has cifar10 at 32 pixels"):
        methods_info([(study("a"), []), (study("b", data={"name": "cifar10"}), [])])


def test_what_else_differs_is_said():
    other = study("b", training={"epochs": 99}, sweep={"seed": 3})
    assert check_comparable([study("a"), study("b")]) == ()
    (said,) = check_comparable([study("a"), other])
    assert said == "a and b differ in their validation images (sweep.seed), training, not only in the method."


def test_a_study_without_scores_says_so():
    info = methods_info([(study(), [trial(0, target=2.0)])])
    assert (info.evaluation, info.marks) == (None, ())
    assert "No network has been scored in top-1 % yet" in methods_figure(info).layout.annotations[0].text


def believed(losses: list[float], accuracies: list[float]) -> list[Trial]:
    widths = [[8 + k, 8] for k in range(len(losses))]
    networks = [candidate(active, {PREDICTED: loss}) for active, loss in zip(widths, losses, strict=True)]
    final = [
        entry
        for k, (active, score) in enumerate(zip(widths, accuracies, strict=True))
        for entry in retrained(1 + 2 * k, active, [score, score], role="learned", of=0)
    ]
    return [trial(0, networks, target=4.0), *final]


def test_beliefs_meet_retrainings_of_the_same_network():
    trials = believed([0.5, 0.25, 1.0], [0.5, 0.75, 0.25])
    (panel,) = agreement_info(trials, title="t").panels
    assert panel[:4] == (EvaluationKind.PREDICTED, "loss", "top1", "test")
    identity = trials[0].candidates[0].architecture.id
    assert panel.marks[0] == AgreementMark(0, identity, 0.5, 50.0, 0.0, 2)
    assert panel.tau == 1  # a lower loss was believed, and a higher accuracy came


def test_a_retrained_score_that_a_network_carries_stands_in_for_trainings():
    networks = [candidate([8 + k, 8], {PREDICTED: 0.5, RETRAINED: 0.5}) for k in range(3)]
    (panel,) = agreement_info([trial(0, networks, target=4.0)]).panels
    assert [(mark.retrained, mark.seeds) for mark in panel.marks] == [(50.0, 1)] * 3


@pytest.mark.parametrize(
    ("accuracies", "tau"), [([0.25, 0.5, 0.75], -1.0), ([0.5, 0.25, 0.75], -1 / 3), ([0.5, 0.5, 0.5], None)]
)
def test_tau_is_positive_where_better_was_better(accuracies, tau):
    (panel,) = agreement_info(believed([0.25, 0.5, 0.75], accuracies)).panels
    assert panel.tau == (None if tau is None else pytest.approx(tau))


def test_two_networks_have_no_tau():
    info = agreement_info(believed([0.25, 0.5], [0.5, 0.25]))
    assert info.panels[0].tau is None
    assert "2 networks: too few" in agreement_figure(info).layout.annotations[0].text


def test_each_belief_has_a_panel_with_better_to_the_right():
    trials = believed([0.5, 0.25, 1.0], [0.5, 0.75, 0.25])
    known = [candidate([8 + k, 8], {PREDICTED: 0.5, INHERITED: 0.5 + k / 8}) for k in range(3)]
    figure = agreement_figure(agreement_info([replace(trials[0], candidates=tuple(known)), *trials[1:]]))
    assert figure.layout.xaxis.autorange == "reversed"  # a loss
    assert figure.layout.xaxis2.autorange is None
    assert "predicted" in figure.layout.annotations[0].text
    assert "Kendall's tau -0.33, 3 networks" in figure.layout.annotations[1].text


def test_without_retraining_the_figure_says_how_to_get_it():
    figure = agreement_figure(agreement_info(searched()))
    assert "final: {candidates" in figure.layout.annotations[0].text
