"""What a report says of milliseconds: the table's error, networks off their target, the choice under a limit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nas.finalist import Finalist, Role
from nas.findings.latency_sentences import latency_sentences
from nas.findings.milliseconds import own_fingerprints
from nas.findings.search_sentences import report_sentences
from nas.metrics import Measurement
from nas.study import Study
from nas.trial import Trial, TrialKind
from tests.nas.findings.test_search_sentences import study as any_study
from tests.nas.strategies import make_trial

HERE = "onnx/cpu/t1/b1/1x8x8/device"
TABLE = {
    "title": "timm/resnet18",
    "fingerprint": HERE,
    "table": {"circumstances": {"runtime": "onnx 1.31", "threads": 1, "batch": 1, "device": "device"}},
    "faults": ["2 of 40 timings are less precise than 2.0%, at worst 3.0%"],
    "check": {"networks": 16, "median_error": 0.012, "largest_error": 0.034, "rank_correlation": 0.99},
}


OWN = own_fingerprints(TABLE, (1, 8, 8))["predicted_ms"]


def study(**budget: Any) -> Study:
    return any_study(latency={"runtime": "onnx"}, budget={"unit": "latency", **budget})


def trial(number: int, top1: float, ms: float, *, kept: bool | None, kind: TrialKind = TrialKind.SEARCH) -> Trial:
    another = Measurement("predicted_ms", 3 * ms, {}, "table/another")  # of a study that found the same network
    measurements = (
        Measurement("predicted_ms", 1.01 * ms, {}, OWN), another, Measurement("latency_ms", ms, {}, HERE)
    )  # fmt: skip
    made = make_trial(
        number, (top1, 1.0), kind=kind, measurements=measurements, target=10.0, measured_within_budget=kept
    )
    if kind is TrialKind.CHEAPER:
        return replace(made, finalist=Finalist(Role.LEARNED, 0, None, ms, (1, 2)))
    return made


def test_networks_off_their_target_are_told() -> None:
    found = latency_sentences(study(target=10), [trial(0, 0.9, 10.1, kept=True), trial(1, 0.9, 11, kept=False)], TABLE)
    assert found == [
        "1 of the 2 learned networks that were measured as a whole lies within 5 % of their target in milliseconds.",
        "Trial 1 takes 11.000 ms instead of 10.000 ms, 10.0 % above its target.",
        "The table predicts these networks with a median error of 1.0 %, at most 1.0 %.",
        "Latency table: timm/resnet18 on onnx/cpu/t1/b1/1x8x8/device; error on 16 whole networks, each predicted from "
        "the others: median 1.2%, largest 3.4%; rank correlation 0.99; the table is uncertain: 2 of 40 timings are "
        "less precise than 2.0%, at worst 3.0%.",
    ]


def test_a_limit_names_the_network_to_take_and_where_it_comes_from() -> None:
    trials = [
        trial(0, 0.9, 10.2, kept=False),
        trial(1, 0.7, 9.0, kept=True),
        trial(2, 0.8, 9.8, kept=True, kind=TrialKind.CHEAPER),
    ]
    found = latency_sentences(study(at_most=10), trials, TABLE)
    assert found[:3] == [
        "Under the limit of 10 ms, the best learned network is trial 2 (top-1 80.00 %, 9.800 ms).",
        "2 of the 3 learned networks that were measured as a whole keep the limit of 10 ms.",
        "Trial 0 exceeds the limit with 10.200 ms; trial 2 has the next cheaper levels, and takes 9.800 ms.",
    ]


def test_a_limit_that_no_network_keeps_comes_first() -> None:
    [first, *_] = latency_sentences(study(at_most=10), [trial(0, 0.9, 10.2, kept=False)], TABLE)
    assert first == "No measured network keeps the limit of 10 ms; allow more milliseconds."


def test_without_measurements_all_are_predictions() -> None:
    [first, _] = latency_sentences(study(target=10), [trial(0, 0.9, 10.2, kept=None)], TABLE)
    assert first.startswith("No learned network was measured on the device of the table")


def test_the_report_holds_them_if_there_is_a_table() -> None:
    trials = [trial(0, 0.9, 10.1, kept=True)]
    assert latency_sentences(study(target=10), trials, None) == []
    assert not any("atency table" in sentence for sentence in report_sentences(study(target=10), trials))
    assert any("Latency table" in sentence for sentence in report_sentences(study(target=10), trials, TABLE))


def test_a_table_for_other_objectives_only_tells_its_error() -> None:
    found = latency_sentences(any_study(latency={"table": "auto"}), [trial(0, 0.9, 10.1, kept=None)], TABLE)
    assert [sentence.partition(":")[0] for sentence in found] == ["Latency table"]
