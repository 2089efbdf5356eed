"""Studies of networks of other families: what is refused, and a trial of each kind from search to package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nas.definition.model import ConvertedSpec
from nas.definition.study import StudyDefinition, parse_study
from nas.errors import DefinitionError
from nas.networks.named import load_network
from nas.training.build import build_network
from nas.training.feasibility import check_feasible, reference_point
from nas.training.run_trial import TrialOutcome, run_trial
from nas.trial import TrialKind, TrialSpec
from partialnet.architecture import Architecture, ConversionRules
from partialnet.layers.dpconv import dpconv_layers
from partialnet.layers.partial_conv import REST_KINDS
from partialnet.networks import architecture_of, create
from partialnet.search.budget import Budget
from partialnet.search.learn_split import learn_split
from tests.nas import tiny
from tests.partialnet.data import made

SHORT = {"epochs": 1, "finetune_epochs": 1}
SMALL: dict[str, dict[str, Any]] = {
    "resnet18": {"timm": "resnet18", "convert": ["layer1.*", "layer2.*"], "min_ratio": {"*": "1/8"}},
    "mobilenet_v2": {"torchvision": "mobilenet_v2", "options": {"width_mult": 0.25}, "rest": "identity"},
    "convnext": {"timm": "convnext_atto", "convert": ["stages.0.*", "stages.1.*"]},
    "resnet50": {"torchvision": "resnet50", "convert": ["layer1.*"]},
}


def study(name: str, **changes: Any) -> StudyDefinition:
    return tiny.tiny(
        **{
            "data": {"name": "cifar10", "train_limit": 64, "image_size": 32},
            "model": SMALL[name],
            "training": {**SHORT, "batch_size": 16},
            "baselines": ["1/4"],
            **changes,
        }
    )


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("data")
    made.cifar10_pickles(folder)
    return (folder,)


def run(definition: StudyDefinition, spec: TrialSpec, roots: tuple[Path, ...]) -> TrialOutcome:
    return run_trial(definition, spec, roots, report=lambda record: None, device="cpu")


def test_the_definition_offers_every_operation_on_the_rest() -> None:
    assert set(ConvertedSpec.model_json_schema()["properties"]["rest"]["enum"]) == set(REST_KINDS)


@pytest.mark.parametrize("name", SMALL)
def test_it_is_read_back_as_it_was_written(name: str) -> None:
    definition = study(name)
    assert isinstance(definition.model, ConvertedSpec)
    assert parse_study(definition.to_dict()) == definition


@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet50", marks=pytest.mark.long)])
def test_what_it_can_reach_is_said_before_it_starts(name: str) -> None:
    definition = study(name)
    notes = check_feasible(definition)
    assert notes[0].startswith("7 of 20 convolutions learn" if name == "resnet18" else "3 of 53 convolutions learn")
    assert "not named" in notes[0]
    assert notes[1].startswith("reachable targets in scope conv: b from 1 to 8")
    assert set(definition.objectives) <= set(reference_point(definition))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"timm": "resnet18", "torchvision": "resnet18"}, "model: give one source .* got timm, torchvision"),
        ({"timm": "resnet18", "embed_dim": 8}, "model.embed_dim: unknown key"),
        ({"timm": "resnet18", "min_ratio": {"*": 2}}, "model.*ratio"),
        ({"timm": "resnet18", "max_ratio": {"*": 0}}, "model.*ratio"),
        ({"timm": "resnet18", "rest": "magic"}, "model.rest: must be"),
        ({"timm": "resnet18", "options": {"num_classes": 3}}, "model: options: num_classes follows from the data set"),
        ({"timm": ""}, "model.timm"),
        ({"name": "micro", "embed_dims": 8}, "model.embed_dims: unknown key"),
        ({"hub": "resnet18"}, "model.hub: unknown key"),
    ],
)
def test_a_wrong_definition_is_explained(model: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        tiny.tiny(model=model)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"timm": "resnet81"}, "model: there is no network 'timm/resnet81'; did you mean"),
        ({"timm": "vit_tiny_patch16_224"}, "model: VisionTransformer contains no convolution"),
        ({"timm": "resnet18", "convert": ["fc"]}, "the patterns select none of the convolutions"),
        ({"timm": "resnet18", "max_ratio": {"*": "1/64"}}, "layer1.0.conv1: max_ratio allows at most 1 of 64"),
        ({"timm": "resnet18", "max_ratio": {"*": "1/8"}, "min_ratio": {"*": "1/4"}}, "leaves none of the levels 16,"),
        ({"torchvision": "vgg11", "options": {"magic": 1}}, "torchvision/vgg11 cannot be built with magic=1"),
    ],
)
def test_a_network_that_cannot_be_searched_is_refused(model: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        check_feasible(study("resnet18", model=model))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("convnext", "gates"),
        pytest.param("resnet18", "supernet", marks=pytest.mark.long),
        pytest.param("mobilenet_v2", "fractional", marks=pytest.mark.long),
        pytest.param("resnet50", "gates", marks=pytest.mark.long),
    ],
)
def test_a_search_yields_what_can_be_built_again(name: str, method: str, roots: tuple[Path, ...]) -> None:
    training = {"epochs": 2, "batch_size": 16} if method == "supernet" else {**SHORT, "batch_size": 16}
    definition = study(name, method=method, training=training)
    parameters = {} if method == "supernet" else {"target": 2.0}
    outcome = run(definition, TrialSpec(0, TrialKind.SEARCH, parameters, 11), roots)
    for found in outcome.networks:
        candidate = found.candidate
        network = create(candidate.architecture)
        network.load_state_dict(found.state_dict, strict=True)
        assert candidate.architecture.model == definition.model.model
        assert [split.active_channels for split in candidate.splits] == list(
            candidate.architecture.active_channels.values()
        )
        assert {"macs", "params"} <= {measured.metric for measured in candidate.measurements}


def test_an_upper_bound_holds_in_the_search_and_in_what_is_reachable() -> None:
    bounded = study("resnet18", model={"timm": "resnet18", "convert": ["layer1.*"], "max_ratio": {"layer1.0*": "1/8"}})
    assert check_feasible(bounded)[1].startswith("reachable targets in scope conv: b from 1.4")
    network = build_network(bounded, 10)
    assert [layer.active_channels for layer in dpconv_layers(network).values()] == [8, 8, 16, 16]
    result = learn_split(
        network,
        [(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))],
        torch.nn.functional.cross_entropy,
        Budget.from_b(1.5, input_shape=(3, 32, 32)),
        steps=4,
        max_ratio=1.0,
    )
    assert max(result.active_channels.values()) > 8  # the others are not bounded
    assert all(n <= 8 for name, n in result.active_channels.items() if name.startswith("layer1.0"))


def test_a_fixed_network_needs_no_choice() -> None:
    rules = ConversionRules(("layer1.*",), max_ratio={"*": 1 / 64})
    fixed = create(Architecture("timm/resnet18", {"num_classes": 10}, {"layer1.0.conv1": 32}, rules))
    assert architecture_of(fixed).active_channels["layer1.0.conv1"] == 32


def test_without_an_upper_bound_a_network_keeps_its_id() -> None:
    rules = study("resnet18").model.architecture({}, num_classes=10).to_dict()["conversion"]
    assert "max_ratio" not in rules


def test_a_baseline_has_one_ratio_everywhere(roots: tuple[Path, ...]) -> None:
    definition = study("resnet18")
    [found] = run(definition, TrialSpec(0, TrialKind.BASELINE, {"ratio": 0.25}, 11), roots).networks
    assert {split.active_channels / split.channels for split in found.candidate.splits} == {0.25}
    assert len(found.candidate.splits) == 7


def test_its_architecture_file_is_a_network_that_commands_take(tmp_path: Path) -> None:
    architecture = study("resnet18").model.architecture({"layer1.0.conv1": 8}, in_chans=3, num_classes=10)
    architecture.save(tmp_path / "architecture.json")
    loaded = load_network(str(tmp_path / "architecture.json"), size=32)
    with torch.no_grad():
        assert loaded.network(torch.zeros(1, *loaded.input_shape)).shape == (1, 10)
