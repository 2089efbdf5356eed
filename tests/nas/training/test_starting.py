"""Trainings that start from given weights: which files are read, what is refused, and that they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from nas.definition.study import StudyDefinition
from nas.errors import DefinitionError
from nas.training.build import build_network, build_split, build_uniform, split_layers
from nas.training.data import inspect_data
from nas.training.starting import starting_weights, weights_digest
from partialnet.networks import base_network
from tests.nas.tiny import tiny

FRESH = {"fresh": ["fc.*"]}


def study(weights: str | None = None, **model: Any) -> StudyDefinition:
    given = {} if weights is None else {"weights": weights}
    return tiny(
        model={"timm": "resnet10t", "convert": ["layer1.*"], **given, **model},
        data={"name": "digits", "image_size": 32, "train_limit": 100},
    )


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return base_network("timm/resnet10t", {"in_chans": 1, "num_classes": 10}).state_dict()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, state: dict[str, torch.Tensor]) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    save_file(state, folder / "own.safetensors")
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, folder / "lit.pt")
    torch.save({**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, folder / "imagenet.pth")
    torch.save({"weight": print}, folder / "code.pt")
    (folder / "text.bin").write_text("hello")
    return folder


@pytest.mark.parametrize("name", ["own.safetensors", "lit.pt"])
def test_files_of_weights_are_read(name: str, root: Path, state: dict[str, torch.Tensor]) -> None:
    found = starting_weights(study(name), 10, [root.parent / "elsewhere", root])
    assert found is not None
    assert {key.removeprefix("module.") for key in found} == set(state)


def test_all_networks_of_a_study_start_from_them(root: Path, state: dict[str, torch.Tensor]) -> None:
    definition = study("imagenet.pth", **FRESH)
    weights = starting_weights(definition, 10, [root])
    layers = len(split_layers(definition, 10))
    for network in (
        build_network(definition, 10, weights),
        build_uniform(definition, 10, 1 / 4, weights),
        build_split(definition, 10, [16] * layers, weights),
    ):
        own = network.state_dict()
        assert torch.equal(own["layer2.0.conv1.weight"], state["layer2.0.conv1.weight"])
        assert torch.equal(own["layer1.0.conv1.conv.weight"][:16, :16], state["layer1.0.conv1.weight"][:16, :16])
        assert own["fc.weight"].shape == (10, 512)
        assert own["fc.weight"].abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "model", "expected"),
    [
        ("none.pt", {}, "model.weights: there is no file none.pt under the data roots ("),
        ("imagenet.pth", {}, "fc.weight has shape [1000, 512] instead of [10, 512]"),
        ("imagenet.pth", {}, "tensors that are to start new stand under model.fresh, e.g. [fc.*]"),
        ("own.safetensors", {"timm": "resnet14t"}, "layer1.0.conv3.weight is missing"),
        ("own.safetensors", {"fresh": ["head.*"]}, "fresh: no tensor of the network is named 'head.*'"),
        ("code.pt", {}, "is no state dict that can be read without executing code; save network.state_dict()"),
        ("text.bin", {}, "is no state dict that can be read without executing code"),
    ],
)
def test_other_files_are_refused(name: str, model: dict[str, Any], expected: str, root: Path) -> None:
    with pytest.raises(DefinitionError) as caught:
        starting_weights(study(name, **model), 10, [root])
    assert str(caught.value).startswith("tiny: model.weights: ")
    assert expected in str(caught.value)


@pytest.mark.parametrize("model", [{"weights": "../own.pt"}, {"weights": "own.pkl"}, {"fresh": ["fc.*"]}])
def test_a_wrong_name_is_refused(model: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=r"model\.weights: must consist of|fresh: all tensors start new without"):
        study(**model)


def test_a_study_keeps_to_its_weights(root: Path) -> None:
    definition = study("own.safetensors")
    _, found = inspect_data(definition, [root])
    assert found.content["weights"] == weights_digest(definition, [root])
    assert inspect_data(study(), [root])[1].changes(found) == ["other starting weights"]
