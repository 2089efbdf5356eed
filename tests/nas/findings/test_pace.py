"""The time left of a study and the cost of a planned one: closed-form cases."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nas.definition.study import StudyDefinition, parse_study
from nas.findings.pace import (
    EndedTrial,
    alike,
    busy_seconds,
    epochs_of_kind,
    estimate,
    images_ratio,
    seconds_left,
)
from nas.study import DataFingerprint, Study, StudyState
from nas.trial import TrialKind

START = datetime(2026, 11, 26, tzinfo=UTC)


def ended(start: float, seconds: float, kind: TrialKind = TrialKind.SEARCH, epochs: int = 10) -> EndedTrial:
    begun = START + timedelta(seconds=start)
    return EndedTrial(kind, epochs, begun, begun + timedelta(seconds=seconds))


def planned(**changes: object) -> StudyDefinition:
    data: dict[str, object] = {
        "name": "planned", "data": {"name": "digits"}, "training": {"epochs": 8, "finetune_epochs": 2},
        "sweep": {"trials": 6}, "baselines": ["1/2", "1/4"], "final": {"candidates": 1, "seeds": 2, "random": 1},
    }  # fmt: skip
    return parse_study(data | changes)


def known(definition: StudyDefinition, images: int | None = None) -> Study:
    data = None if images is None else DataFingerprint(("a", "b"), {"train": images}, {"train": "ab"})
    return Study("id", "known", StudyState.FINISHED, definition, {}, START, START, data=data)


def test_time_left_is_the_pace_of_the_latest_trials_without_pauses() -> None:
    trials = [ended(0, 100), ended(50, 100), ended(1000, 50)]
    assert busy_seconds(trials) == 200
    assert seconds_left(trials, 6) == 400
    assert seconds_left([], 6) is None


def test_an_estimate_multiplies_epochs_with_the_pace_of_each_part() -> None:
    definition = planned()
    trials = [ended(0, 100), ended(0, 100), ended(100, 40, TrialKind.BASELINE)]
    found = estimate(definition, known(definition), trials)
    assert found.trials == {"search": 6, "baselines": 2, "final": 8}
    assert found.epochs == {"search": 60, "baselines": 20, "final": 80}
    assert found.seconds == pytest.approx(60 * 10 + 20 * 4 + 80 * 4)  # finalists train as baselines do
    assert found.at_once == pytest.approx(240 / 140)
    assert found.wall_seconds == pytest.approx(1000 * 140 / 240)
    assert (found.compared, found.compared_trials, found.scaled) == ("known", 3, 1.0)


def test_a_limit_of_time_bounds_the_search_alone() -> None:
    definition = planned(sweep={"trials": 6, "seconds": 100})
    trials = [ended(0, 100), ended(100, 40, TrialKind.BASELINE)]
    assert estimate(definition, known(definition), trials).seconds == pytest.approx(100 + 20 * 4 + 80 * 4)


def test_without_comparable_trials_only_counts_are_known() -> None:
    assert estimate(planned(), None, []).seconds is None
    assert estimate(planned(), known(planned()), []).wall_seconds is None


def test_swept_epochs_count_with_the_mean_of_their_bounds() -> None:
    definition = planned(
        space={"target": 4, "epochs": {"int": [4, 8]}}, training={"finetune_epochs": 2}, final={"epochs": 3}
    )
    assert estimate(definition, None, []).epochs["search"] == 6 * 8
    assert epochs_of_kind(definition, TrialKind.SEARCH, {"epochs": 5}) == 7
    assert epochs_of_kind(definition, TrialKind.RETRAIN, {"ratio": 0.5}) == 3


@pytest.mark.parametrize(
    ("new", "old", "images", "ratio"),
    [
        ({}, {}, None, 1.0),
        ({"train_limit": 500}, {}, 900, 0.5),
        ({"train_limit": 5000}, {}, 900, 1.0),  # there are no more images than all
        ({"train_limit": 500}, {"train_limit": 1000}, 900, 0.5),
        ({}, {"train_limit": 500}, 450, None),
        ({"train_limit": 500}, {}, None, None),
        ({"validation_fraction": 0.2}, {}, None, 8 / 9),
    ],
)
def test_times_follow_the_number_of_images(
    new: dict[str, object], old: dict[str, object], images: int | None, ratio: float | None
) -> None:
    before = known(planned(data={"name": "digits"} | old), images)
    assert images_ratio(planned(data={"name": "digits"} | new), before) == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"name": "other", "objectives": ["top1", "params"], "training": {"epochs": 3}}, True),
        ({"data": {"name": "cifar10"}}, False),
        ({"data": {"name": "digits", "image_size": 16}}, False),
        ({"model": {"name": "t0"}}, False),
        ({"method": "fractional"}, False),
        ({"sweep": {"trials": 6, "gpus_per_trial": 1}}, False),
    ],
)
def test_only_like_epochs_are_compared(changes: dict[str, object], same: bool) -> None:
    assert alike(planned(), planned(**changes)) is same


def test_images_scale_the_estimate() -> None:
    definition = planned(data={"name": "digits", "train_limit": 500}, baselines=[], final={"candidates": 0})
    before = replace(known(planned()), data=DataFingerprint(("a",), {"train": 900}, {"train": "ab"}))
    assert estimate(definition, before, [ended(0, 100)]).seconds == pytest.approx(6 * 100 / 2)
