"""Which figures count is decided in one file: closed forms of its rules, and that its readers agree."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nas.candidate import Candidate
from nas.definition.methods import METHODS
from nas.findings.scores import chosen_by, common_kind, scored_split, searched_kind, told_kind
from nas.metrics import Evaluation, EvaluationKind
from nas.trial import Trial, TrialKind
from tests.nas.strategies import make_candidate, make_definition, make_trial

PREDICTED, INHERITED, FINETUNED, RETRAINED = (
    EvaluationKind.PREDICTED, EvaluationKind.INHERITED, EvaluationKind.FINETUNED, EvaluationKind.RETRAINED,
)  # fmt: skip


def scored(*evaluations: tuple[EvaluationKind, str, str]) -> Candidate:
    found = tuple(Evaluation(kind, metric, 0.5, data_split=split) for kind, metric, split in evaluations)
    return replace(make_candidate(0.5, 1e6), evaluations=found)


def ran(number: int, candidate: Candidate, kind: TrialKind = TrialKind.SEARCH) -> Trial:
    return replace(make_trial(number, (0.5, 1e6), kind=kind), candidates=(candidate,))


def test_the_search_ended_with_the_best_trained_weights_that_a_searched_network_has() -> None:
    inherited = ran(0, scored((INHERITED, "top1", "validation")))
    both = ran(1, scored((INHERITED, "top1", "validation"), (FINETUNED, "loss", "validation")))
    retrained = ran(2, scored((FINETUNED, "top1", "validation")), TrialKind.RETRAIN)
    assert searched_kind([inherited, retrained]) is INHERITED
    assert searched_kind([inherited, both]) is FINETUNED
    assert searched_kind([inherited, both], ("top1", "macs")) is INHERITED  # no network has a fine-tuned top-1
    assert searched_kind([]) is FINETUNED


def test_networks_are_chosen_by_the_most_telling_kind_and_then_by_quality_before_loss() -> None:
    believed = scored((PREDICTED, "loss", "validation"))
    measured = scored((INHERITED, "loss", "validation"), (PREDICTED, "top1", "validation"))
    assert chosen_by([believed], "top1") == (PREDICTED, "loss")
    assert chosen_by([believed, measured], "top1") == (INHERITED, "loss")
    assert chosen_by([scored((FINETUNED, "top1", "validation")), measured], "top1") == (FINETUNED, "top1")


def test_a_kind_is_common_if_every_group_has_it_else_the_first_of_any() -> None:
    one = [scored((RETRAINED, "top1", "test")), scored((INHERITED, "top1", "validation"))]
    other = [scored((INHERITED, "top1", "validation"), (RETRAINED, "loss", "test"))]
    kinds = (RETRAINED, INHERITED)
    assert common_kind([one, other], "top1", kinds) is INHERITED
    assert common_kind([one, one], "top1", kinds) is RETRAINED
    assert common_kind([one, []], "top1", kinds) is RETRAINED
    assert common_kind([[], []], "top1", kinds) is None
    assert common_kind([], "top1", kinds) is None


def test_networks_are_compared_on_test_images_only_if_all_were_scored_there() -> None:
    tested = scored((RETRAINED, "top1", "test"), (RETRAINED, "top1", "validation"))
    untested = scored((RETRAINED, "top1", "validation"))
    elsewhere = scored((INHERITED, "top1", "validation"))
    assert scored_split([tested, elsewhere], "top1", RETRAINED) == "test"
    assert scored_split([tested, untested], "top1", RETRAINED) == "validation"


@pytest.mark.parametrize("method", METHODS)
def test_the_searcher_is_told_what_trials_of_the_method_end_with(method: str) -> None:
    definition = make_definition(method=method, space={"target": {"log_uniform": [2, 8]}})
    assert told_kind(definition) is METHODS[method].ends_with
