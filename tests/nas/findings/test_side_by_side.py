"""Networks side by side, the intervals of their scores, and which trials importances rest on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import InputError
from nas.findings.importance import SMALLEST, best_part, observed, refusal
from nas.findings.pareto import ParetoPoint
from nas.findings.side_by_side import Side, side_by_side
from nas.findings.uncertainty import evaluation_interval, measurement_interval, share_interval
from nas.metrics import Evaluation, EvaluationKind, Measurement
from nas.study import DataFingerprint
from nas.trial import TrialKind
from nas.wire.references import NetworkRef, parse_references
from tests.nas.plots.fixture_trials import candidate, study, trial

SCORED = {(EvaluationKind.FINETUNED, "top1", "validation"): 0.9}


@given(st.floats(0, 1), st.integers(1, 100_000))
def test_an_interval_holds_its_share_within_0_and_1_and_shrinks_with_more_images(share: float, images: int) -> None:
    low, high = share_interval(share, images)
    assert 0 <= low <= share <= high <= 1
    wider = share_interval(share, images)
    narrower = share_interval(share, 4 * images)
    assert narrower[1] - narrower[0] < wider[1] - wider[0]


def test_an_interval_is_wilson_s() -> None:
    assert share_interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert share_interval(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


def test_only_accuracies_of_a_known_number_of_images_have_an_interval() -> None:
    top1 = Evaluation(EvaluationKind.FINETUNED, "top1", 0.5)
    assert evaluation_interval(top1, {"validation": 100}) == share_interval(0.5, 100)
    assert evaluation_interval(top1, {"test": 100}) is None
    assert evaluation_interval(replace(top1, metric="loss"), {"validation": 100}) is None
    assert measurement_interval(Measurement("latency_ms", 1.0, {"interval": [0.9, 1.1]}, "cpu")) == (0.9, 1.1)
    assert measurement_interval(Measurement("macs", 1.0)) is None


def test_rows_stand_for_all_and_say_which_settings_differ() -> None:
    fingerprint = DataFingerprint(("a", "b"), {"validation": 100}, {"train": "0" * 64})
    one = trial(0, [candidate([8, 16], SCORED)], target=4.0, penalty=0.9)
    other = trial(1, [candidate([8, 16, 32], SCORED)], TrialKind.BASELINE, ratio=0.5)
    made = replace(study(), data=fingerprint)
    found = side_by_side([Side(made, one, None, one.candidates[0]), Side(study("x"), other, None, other.candidates[0])])
    assert [side.name for side in found.sides] == ["made-up:0", "x:1"]
    rows = {row.name: (row.values, row.differs) for row in found.settings}
    assert rows["target"] == ((4.0, None), True)
    assert rows["data"] == (("digits", "digits"), False)
    top1 = found.scores[0]
    assert (top1.metric, top1.on) == ("top1", "finetuned, validation")
    assert [value.interval is None for value in top1.values if value] == [False, True]
    assert [row.splits[0] is None for row in found.layers].count(True) == len(found.layers) - 2
    orders = [next(split.index for split in row.splits if split) for row in found.layers]
    assert orders == sorted(orders)


def test_measurements_under_other_circumstances_are_other_rows() -> None:
    def side(number: int, mark: str) -> Side:
        network = candidate([8], SCORED)
        measured = (*network.measurements, Measurement("latency_ms", 1.0, {}, mark))
        made = trial(number, [replace(network, measurements=measured)])
        return Side(study(), made, None, made.candidates[0])

    found = [row for row in side_by_side([side(0, "a"), side(1, "b")]).scores if row.metric == "latency_ms"]
    missing = [(row.on, [value is None for value in row.values]) for row in found]
    assert missing == [("a", [False, True]), ("b", [True, False])]


@pytest.mark.parametrize("text", ["a:1", "digits-2:0.13", " a:5 "])
def test_references_read_back(text: str) -> None:
    assert str(NetworkRef.parse(text)) == text.strip()


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["a:1"], "2 to 8 trials can be compared, but 1 are given"),
        ([f"a:{k}" for k in range(9)], "but 9 are given"),
        (["a:1", "b:2", "a:1"], "a:1 is given twice"),
        (["a:1", "a"], "'a' names no trial"),
        (["a:1", "a:-1"], "names no trial"),
        (["a:1", "a:1.x"], "names no trial"),
    ],
)
def test_bad_references_are_refused(texts: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_references(texts)


def test_importances_rest_on_search_trials_within_the_space() -> None:
    space = {"target": {"log_uniform": [2, 8]}, "penalty": {"uniform": [0, 1]}, "complexity_exponent": 1.0}
    definition = study(space=space).definition
    points = [
        ParetoPoint(number, "x", kind, f"{number}", {"top1": value, "macs": 10.0}, False, position)
        for number, position, kind, value in (
            (1, 0, TrialKind.SEARCH, 0.5), (1, 1, TrialKind.SEARCH, 0.7), (2, 0, TrialKind.BASELINE, 0.9),
            (3, 0, TrialKind.SEARCH, 0.4), (4, 0, TrialKind.SEARCH, 0.4),
        )
    ]  # fmt: skip
    given = {
        1: {"target": 2.0, "penalty": 0.5}, 2: {"ratio": 0.5}, 3: {"target": 2.0}, 4: {"target": 9.0, "penalty": 1.0},
    }  # fmt: skip
    [found] = observed(points, given, definition)
    assert dict(zip(definition.objectives, found.values, strict=True))["top1"] == pytest.approx(0.6)


def test_too_few_trials_or_parameters_are_refused() -> None:
    assert f"there are {SMALLEST - 1}" in refusal(SMALLEST - 1, 3)
    assert "one parameter only" in refusal(100, 1)
    assert "no parameter" in refusal(100, 0)
    assert refusal(SMALLEST, 2) == ""
    assert (best_part(SMALLEST), best_part(1000)) == (0.25, 0.1)
