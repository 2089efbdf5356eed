"""Requests of trainings: all faults at once, labels of recipes, and what a worker gets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nas.definition.recipe import TrainSettings
from nas.definition.requested_training import parse_training, request_values, schema
from nas.definition.sections import DataSpec
from nas.errors import DefinitionError
from partialnet.train.named_recipes import recipe_names

TRIAL = {"study": "digits", "trial": 3}
WRONG = {
    "no network": ({}, ["name one network: study with trial, architecture, or package, but got none"]),
    "two networks": ({**TRIAL, "architecture": "abcdef"}, ["but got study and architecture"]),
    "a study without a trial": ({"study": "digits"}, ["study needs trial"]),
    "a trial without a study": ({"architecture": "abcdef", "trial": 1}, ["trial and candidate work only with study"]),
    "a package without data": ({"package": "mine"}, ["package needs data"]),
    "a path": ({"package": "../mine", "data": {"name": "digits"}}, ["package: must match", "(got '../mine')"]),
    "a teacher by its path": ({**TRIAL, "settings": {"teacher": "/etc"}}, ["settings.teacher: must be timm/NAME"]),
    "no mapping": ([], ["must be a mapping of keys, but got list"]),
    "settings that are none": ({**TRIAL, "settings": 3}, ["settings: must be a mapping of keys"]),
    "a key without effect": ({**TRIAL, "settings": {"temperature": 2.0}}, ["temperature has no effect unless teacher"]),
    "many": (
        {**TRIAL, "seed": -1, "recipe": "resnet", "settings": {"mixupp": 1, "erasing": 2}, "data": {"name": "mnist"}},
        ["seed: must be greater", "recipe: unknown recipe 'resnet'; known: ", "settings.mixupp: unknown key",
         "settings.erasing: must be less than or equal to 1 (got 2)", "data: unknown data set 'mnist'"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(WRONG))
def test_all_faults_are_said_with_their_keys(name: str) -> None:
    data, expected = WRONG[name]
    with pytest.raises(DefinitionError) as caught:
        parse_training(data)
    lines = str(caught.value).splitlines()
    assert all(line.startswith("training: ") for line in lines)
    assert len(lines) == (len(expected) if name == "many" else 1)
    for text in expected:
        assert any(text in line for line in lines), (text, lines)


def test_a_label_names_what_makes_scores_differ() -> None:
    def label(usual: DataSpec | None = None, **changes: Any) -> str:
        return parse_training({**TRIAL, **changes}).label(usual)

    assert label() == "default"
    assert label(recipe="finetune") == "finetune"
    assert label(seed=5, processes=2, settings={"epochs": 20}) == "default"  # 20 is the default
    assert label(settings={"epochs": 5}) == "default epochs=5"
    many = {"epochs": 5, "batch_size": 16, "mixup": 0.1, "erasing": 0.2, "ema_decay": 0.9}
    assert label(settings=many) == label(settings=dict(reversed(many.items())))
    assert label(settings=many) != label(settings={**many, "mixup": 0.2})
    assert len(label(settings=many)) < 20
    digits = DataSpec(name="digits")
    assert label(digits, data={"name": "digits"}) == "default"
    assert label(digits, data={"name": "digits", "train_limit": 60}) == "default data.train_limit=60"
    assert label(start="weights") == "default learning_rate=0.0005,start=weights"


@pytest.mark.parametrize("recipe", [None, *recipe_names()])
def test_what_is_resolved_is_read_back(recipe: str | None) -> None:
    wanted = parse_training({**TRIAL, "recipe": recipe, "settings": {"epochs": 2}})
    resolved = json.loads(json.dumps(wanted.resolved(DataSpec(name="cifar10"))))
    assert TrainSettings.model_validate(resolved["settings"]) == wanted.chosen()
    assert request_values(resolved["settings"])["recipe"] == wanted.chosen().recipe()
    size = wanted.chosen().image_size
    assert DataSpec.model_validate(resolved["data"]).image_size == size


def test_the_schema_stands_alone() -> None:
    text = json.dumps(schema())
    assert "$ref" not in text
    assert "only for images of your own" in text
