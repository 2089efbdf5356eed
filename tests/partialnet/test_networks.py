"""Networks of other families: built by name, converted by rules, searched, fixed, packaged and loaded again."""

from __future__ import annotations

import copy
import json
import pickle
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partialnet import networks
from partialnet.architecture import Architecture, ConversionRules
from partialnet.errors import ArchitectureError, PackageError
from partialnet.export import to_fixed
from partialnet.fuse import fuse
from partialnet.layers.dpconv import dpconv_layers
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.networks import architecture_of, base_network, create, output_count
from partialnet.package import Preprocessing, load_package, save_package
from partialnet.search.budget import Budget
from partialnet.search.learn_split import learn_split

PREPROCESSING = Preprocessing("digits", tuple("0123456789"), (3, 32, 32), (0.5,) * 3, (0.25,) * 3)


class Plain(nn.Module):
    """A user's network, with a module of each kind at the top."""

    def __init__(self, num_classes: int = 10, in_chans: int = 3, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_chans, width, 3, 2, 1)
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x + F.relu(self.second(F.relu(self.first(x))))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offer the user's network as an installed package does."""
    offered = [
        EntryPoint("plain", f"{__name__}:Plain", networks.GROUP),
        EntryPoint("absent", f"{__name__}:Absent", networks.GROUP),
        EntryPoint("number", "math:pi", networks.GROUP),
        EntryPoint("text", "os:getcwd", networks.GROUP),
    ]
    monkeypatch.setattr(networks, "entry_points", lambda group: offered if group == networks.GROUP else [])


def architecture(model: str, rules: ConversionRules | None = None, **options: object) -> Architecture:
    return Architecture(model, {"num_classes": 10, **options}, {}, rules or ConversionRules())


RESNET = architecture("timm/resnet18")
SMALL = {"channels": [16, 16, 32, 32], "layers": [1, 1, 1, 1]}
SMALL_RESNET = architecture("timm/resnet18", **SMALL)
FAMILIES = [
    pytest.param(RESNET, 13, id="resnet18"),
    pytest.param(architecture("torchvision/resnet50"), 13, id="resnet50"),
    pytest.param(architecture("torchvision/mobilenet_v2"), 13, id="mobilenet_v2"),
    pytest.param(architecture("timm/convnext_tiny"), 18, id="convnext_tiny"),
    pytest.param(architecture("installed/plain", width=8), 2, id="plain"),
]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("wanted", "layers"), FAMILIES)
def test_its_searchable_and_fixed_forms_have_one_architecture(wanted: Architecture, layers: int) -> None:
    with torch.device("meta"):
        searched, fixed = create(wanted, searchable=True), create(wanted)
    names = list(dpconv_layers(searched))
    assert len(names) == layers
    assert names == [name for name, module in fixed.named_modules() if isinstance(module, PartialConv2d)]
    for name in names:
        searched.get_submodule(name).set_level(0)
    described = architecture_of(searched)
    assert described.active_channels == {n: searched.get_submodule(n).levels[0] for n in names}
    with torch.device("meta"):
        again = create(described)
    assert architecture_of(again) == described
    assert output_count(again) == 10
    assert set(again.state_dict()) == set(fixed.state_dict())


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("wanted", [SMALL_RESNET, architecture("installed/plain", width=8)], ids=["resnet18", "plain"])
def test_from_a_search_to_a_package_in_a_new_place(tmp_path: Path, wanted: Architecture) -> None:
    torch.manual_seed(0)
    images, targets = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    searched = create(wanted, searchable=True)
    result = learn_split(
        searched, [(images, targets)], F.cross_entropy,
        Budget.from_b(4, input_shape=(3, 32, 32)), method="fractional", steps=4,
    )  # fmt: skip
    fixed = to_fixed(searched, input_shape=(3, 32, 32)).eval()
    assert architecture_of(fixed).active_channels == result.active_channels
    exported = wanted is not SMALL_RESNET  # one of another family as well: see test_onnx_export.py
    package = load_package(save_package(tmp_path / "net", fixed, PREPROCESSING, onnx=exported))
    assert package.architecture == architecture_of(fixed)
    with torch.no_grad():
        expected = fixed(images)
        torch.testing.assert_close(package.model(images), expected)
        torch.testing.assert_close(fuse(package.model)(images), expected, rtol=1e-4, atol=1e-4)
    assert architecture_of(copy.deepcopy(package.model)) == package.architecture
    assert json.loads((tmp_path / "net/architecture.json").read_text())["schema"] == 2


def test_rules_select_layers_and_bound_their_levels() -> None:
    rules = ConversionRules(
        convert=("layer1.*", "layer2.*"), keep=("*.1.conv2",), min_ratio={"layer1.0.*": 0.3, "layer*": 0.125}
    )
    with torch.device("meta"):
        found = dpconv_layers(create(architecture("timm/resnet18", rules), searchable=True))
    assert list(found) == ["layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer2.0.conv2", "layer2.1.conv1"]
    assert [layer.levels[0] for layer in found.values()] == [32, 32, 8, 16, 16]
    assert found["layer1.0.conv1"].levels == (32, 64)


@pytest.mark.usefixtures("installed")
def test_a_step_between_levels_replaces_no_other_layers() -> None:
    rules = ConversionRules(min_ratio={"first": 0.6})  # halvings of 64 have only 64 itself
    wanted = architecture("installed/plain", rules, width=64)
    with torch.device("meta"):
        searched = create(wanted, searchable=True, level_step=16)
        found = dpconv_layers(searched)
        again = create(architecture_of(searched))
    assert {name: layer.levels for name, layer in found.items()} == {"second": (16, 32, 48, 64)}
    assert architecture_of(again) == architecture_of(searched)


def test_given_weights_go_through_the_conversion() -> None:
    torch.manual_seed(0)
    base = base_network("timm/resnet18", {"num_classes": 10})
    made = create(RESNET, weights={f"module.{name}": tensor for name, tensor in base.state_dict().items()})
    torch.testing.assert_close(made.conv1.weight, base.conv1.weight)
    n = made.layer1[0].conv1.active_channels
    torch.testing.assert_close(made.layer1[0].conv1.conv.weight, base.layer1[0].conv1.weight[:n, :n])


def test_the_id_of_the_family_is_what_it_was() -> None:
    """Written by the version before conversions."""
    known = Architecture("partialnet_t0", {"num_classes": 10}, {"stages.0.blocks.0.mixer": 8})
    assert known.to_dict()["schema"] == 1
    assert "conversion" not in known.to_dict()
    assert known.id == "6aa7b01b9be4453a196b0fa6f7c08276222756d06aeca55abfbaf72fa96dd149"


def test_the_json_form_and_pickle_keep_the_rules() -> None:
    rules = ConversionRules(("a*",), ("ab",), "identity", 2, 0.0, {"a1": 0.5})
    whole = Architecture("timm/x", {"depth": 2}, {"a1": 4}, rules)
    assert Architecture.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole
    assert pickle.loads(pickle.dumps(whole)) == whole
    assert whole.id != Architecture("timm/x", {"depth": 2}, {"a1": 4}, ConversionRules()).id


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"convert": "layer1"}, "'convert' is 'layer1', but must be a list"),
        ({"keep": [1]}, "'keep' is .*must be a list"),
        ({"min_ratio": [0.5]}, "'min_ratio' is .*must be an object"),
        ({"min_ratio": {"*": 0}}, "above 0 and at most 1"),
        ({"rests": "identity"}, "rests.*must be an object of the keys"),
        (3, "has int"),
    ],
)
def test_wrong_rules_are_explained(form: object, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        ConversionRules.from_dict(form)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (architecture("timm/resnet81"), "no network 'timm/resnet81'; did you mean .*resnet18"),
        (architecture("torchvision/resnet81"), "no network 'torchvision/resnet81'; did you mean"),
        (architecture("torchvision/fasterrcnn_resnet50_fpn"), "no network"),
        (architecture("installed/zzz"), "installed packages offer absent, number, plain, text"),
        (architecture("installed/absent"), "Absent cannot be imported"),
        (architecture("installed/number"), "must be a function"),
        (architecture("hub/resnet18"), "unknown source of networks 'hub'.*known: timm, torchvision, installed"),
        (architecture("timm/resnet18", dept=3), r"cannot be built with .*dept=3"),
        (architecture("torchvision/resnet18", in_chans=1), "images of 3 channels, not of 1; take a network of timm"),
        (architecture("timm/vit_tiny_patch16_224"), "contains no convolution that a partial one can replace: 1 x"),
        (architecture("timm/resnet18", ConversionRules(("layer9.*",))), "patterns select none .*: layer1.0.conv1"),
        (architecture("timm/resnet18", ConversionRules(min_ratio={"*": 0.9})), "no convolution can be split: layer1"),
        (architecture("timm/resnet18", ConversionRules(rest="magic")), "magic"),
        (Architecture("timm/resnet18", {}, {"fc": 4}, ConversionRules()), "active_channels names fc"),
    ],
)
def test_what_cannot_be_built_is_said(wanted: Architecture, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message), torch.device("meta"):
        create(wanted)


def test_weights_that_do_not_fit_are_named() -> None:
    state = base_network("timm/resnet18", {"num_classes": 7}).state_dict()
    with pytest.raises(ArchitectureError, match=r"given weights do not fit: fc.weight has shape \[7, 512\] instead of"):
        create(RESNET, weights=state)
    with pytest.raises(ArchitectureError, match="for networks of other families only"):
        create(Architecture("partialnet_micro"), weights=state)


def test_a_network_that_nobody_built_here_has_no_architecture(tmp_path: Path) -> None:
    foreign = timm.create_model("resnet18", num_classes=10)
    with pytest.raises(ArchitectureError, match=r"a ResNet has no architecture: build it with partialnet\.create"):
        architecture_of(foreign)
    with pytest.raises(PackageError, match="has no architecture"):
        save_package(tmp_path / "net", foreign, PREPROCESSING)
