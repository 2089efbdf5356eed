"""Networks of the final comparison: how they are written down, and how they are trained."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.definition.study import StudyDefinition, cost_metric
from nas.errors import DefinitionError, InputError
from nas.finalist import Finalist, Role, with_finalist, without_finalist
from nas.findings.scores import retrained
from nas.metrics import EvaluationKind
from nas.training.run_trial import TrialOutcome, run_trial
from nas.trial import Trial, TrialKind, TrialSpec, TrialState
from partialnet.errors import DataError
from tests.nas import tiny
from tests.nas.strategies import finalists, make_definition, make_trial
from tests.partialnet.data import made

SPLIT = (2, 4, 8, 16)  # of widths 8, 16, 32, 64
UNIFORM = Finalist(Role.UNIFORM, of=5, position=None, target=100_000.0, active_channels=SPLIT, ratio=0.25)
SHORT = {"epochs": 2, "finetune_epochs": 1, "batch_size": 40}


@given(finalists, st.dictionaries(st.sampled_from(["learning_rate", "batch_size"]), st.integers(1, 9)))
def test_finalists_survive_the_parameters_of_a_trial(finalist: Finalist, parameters: dict[str, Any]) -> None:
    stored = with_finalist(parameters, finalist)
    assert all(type(value) in (str, int, float) for value in stored.values())
    assert without_finalist(stored) == (parameters, finalist)
    assert without_finalist(stored)[1].seed_index == finalist.seed_index
    assert with_finalist(parameters, None) == parameters


def test_the_keys_of_stored_finalists_are_those_of_older_versions() -> None:
    full = Finalist(Role.RANDOM, 5, 2, 10.5, (3, 8), ratio=0.25, draw=1, seed_index=4)
    assert list(with_finalist({"batch_size": 8}, full).items()) == [
        ("batch_size", 8), ("role", "random"), ("of", 5), ("target", 10.5), ("active_channels", "3,8"),
        ("seed_index", 4), ("position", 2), ("ratio", 0.25), ("draw", 1),
    ]  # fmt: skip


def test_trainings_of_one_network_are_equal_whatever_their_seed() -> None:
    assert {replace(UNIFORM, seed_index=index) for index in range(3)} == {UNIFORM}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"role": "oracle"}, "damaged: 'oracle' is not a valid Role"),
        ({"role": None}, "needs the parameter 'role'"),
        ({"active_channels": None}, "needs the parameter 'active_channels'"),
        ({"active_channels": "2,four"}, "damaged: invalid literal for int.*'four'"),
        ({"target": "dear"}, "damaged: could not convert string to float: 'dear'"),
        ({"of": None}, "needs the parameter 'of'"),
    ],
)
def test_damaged_parameters_are_named(changes: dict[str, Any], message: str) -> None:
    damaged = {key: value for key, value in {**with_finalist({}, UNIFORM), **changes}.items() if value is not None}
    with pytest.raises(InputError, match=message):
        without_finalist(damaged)
    with pytest.raises(InputError, match=f"trial 7: .*{message}"):
        TrialSpec.from_dict({"number": 7, "kind": "retrain", "parameters": damaged, "seed": 1})


def test_only_retrained_networks_are_finalists() -> None:
    retraining = Trial(3, TrialKind.RETRAIN, TrialState.QUEUED, {}, 0, finalist=UNIFORM)
    assert retrained([make_trial(0, (0.9, 10.0)), retraining]) == [(UNIFORM, retraining)]


def test_networks_are_made_equal_in_what_the_budget_counts() -> None:
    assert cost_metric(make_definition()) == "macs"
    assert cost_metric(make_definition(budget={"unit": "params"})) == "params_inference"


def train(
    finalist: Finalist, definition: StudyDefinition, roots: tuple[Path, ...] = (), seed: int = 11, **parameters: Any
) -> TrialOutcome:
    spec = TrialSpec(7, TrialKind.RETRAIN, parameters, seed, finalist)
    return run_trial(definition, spec, roots, report=lambda _: None, device="cpu")


def test_a_retraining_needs_its_network() -> None:
    with pytest.raises(InputError, match="trial 7: it is to train a network of the final comparison, but names none"):
        run_trial(tiny.tiny(), TrialSpec(7, TrialKind.RETRAIN, {}, 1), (), report=lambda _: None, device="cpu")


def test_a_finalist_is_trained_like_a_baseline_and_scored_on_test_images() -> None:
    definition = tiny.tiny(training=SHORT, data={"name": "digits", "train_limit": 400})
    outcome = train(UNIFORM, definition)
    baseline = run_trial(definition, tiny.baseline(), (), report=lambda _: None, device="cpu")
    mine, theirs = outcome.networks[0].candidate, baseline.networks[0].candidate
    assert mine.architecture == theirs.architecture
    kinds = [(e.kind, e.metric, e.data_split, e.epochs, e.seed) for e in mine.evaluations]
    assert kinds == [
        (EvaluationKind.RETRAINED, metric, data_split, 3, 11)
        for data_split in ("validation", "test")
        for metric in ("top1", "top5", "loss")
    ]
    # The same seed, recipe and network: the same training, to the last bit.
    for metric in ("top1", "top5", "loss"):
        retrained_score = mine.score(metric, EvaluationKind.RETRAINED)
        assert retrained_score == theirs.score(metric, EvaluationKind.FINETUNED)
        assert mine.score(metric, EvaluationKind.RETRAINED, "test") != retrained_score


def test_its_epochs_and_parameters_may_be_others() -> None:
    definition = tiny.tiny(training=SHORT, final={"epochs": 2})
    outcome = train(UNIFORM, definition, learning_rate=0.001)
    assert [record.epoch for record in outcome.history] == [1, 2]
    assert max(record.metrics["learning_rate"] for record in outcome.history) <= 0.001


def test_a_cost_that_is_not_reached_is_told() -> None:
    definition = tiny.tiny(training={"epochs": 1, "finetune_epochs": 0, "batch_size": 120})
    cost = train(UNIFORM, definition).networks[0].candidate.score("macs")
    near = train(replace(UNIFORM, target=cost / 1.019), definition).networks[0].candidate
    assert (near.within_budget, near.note, near.target) == (True, None, cost / 1.019)
    far = train(replace(UNIFORM, target=cost / 1.05), definition).networks[0].candidate
    assert not far.within_budget
    wanted = f"{cost / 1.05:,.0f}"
    assert far.note == f"its cost of {cost:,.0f} macs is 5.0% above {wanted}; no network of its kind is closer"


@pytest.mark.parametrize("split", [(2, 4, 8), (2, 4, 8, 16, 32), (2, 4, 8, 65)])
def test_a_split_that_does_not_fit_the_network(split: tuple[int, ...]) -> None:
    with pytest.raises(DefinitionError, match=r"tiny: (\d numbers of active channels, but 4 layers|model: .*65)"):
        train(replace(UNIFORM, active_channels=split), tiny.tiny())


def test_without_test_images_the_validation_scores_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTIALNET_CACHE", str(tmp_path / "cache"))
    made.class_folders(tmp_path / "cifar10", ("train",), made.CIFAR10_CLASSES, per_class=12)
    definition = tiny.tiny(data={"name": "cifar10"}, training={"epochs": 1, "finetune_epochs": 0, "batch_size": 36})
    outcome = train(UNIFORM, definition, (tmp_path,))
    assert {e.data_split for e in outcome.networks[0].candidate.evaluations} == {"validation"}


def test_damaged_test_images_are_not_taken_for_absent_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTIALNET_CACHE", str(tmp_path / "cache"))
    made.class_folders(tmp_path / "cifar10", ("train", "test"), made.CIFAR10_CLASSES, per_class=12)
    damaged = sorted((tmp_path / "cifar10" / "test").rglob("*.png"))[7]
    damaged.write_bytes(b"damaged")
    definition = tiny.tiny(data={"name": "cifar10"}, training={"epochs": 1, "finetune_epochs": 0, "batch_size": 36})
    with pytest.raises(DataError, match=re.escape(str(damaged))):
        train(UNIFORM, definition, (tmp_path,))
