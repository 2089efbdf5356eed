"""Networks by name and by file."""

from __future__ import annotations

import pytest
import torch

from nas.errors import InputError, NotFoundError
from nas.networks.named import load_network
from partialnet.architecture import Architecture
from partialnet.errors import ArchitectureError, PackageError
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.models.partialnet import PartialNet, create
from partialnet.package import Preprocessing, save_package

OPTIONS = {"num_classes": 3, "in_chans": 1, "patch_size": 1}


@pytest.mark.parametrize("name", ["micro", "Micro", "partialnet_micro"])
def test_names_of_ours(name):
    loaded = load_network(name)
    assert isinstance(loaded.network, PartialNet)
    assert loaded.network.architecture().model == "partialnet_micro"
    assert (loaded.input_shape, loaded.trained, loaded.network.training) == ((3, 32, 32), False, False)


def test_the_second_papers_names():
    network = load_network("patnet_t0", size=64).network
    assert isinstance(network, PartialNet)
    assert network.architecture() == load_network("t0").network.architecture()


def test_ratio_and_options():
    loaded = load_network("micro", ratio=0.125, options={"depths": [1, 1, 1, 1], "num_classes": 4})
    splits = [m for m in loaded.network.modules() if isinstance(m, PartialConv2d)]
    assert [m.active_channels / m.channels for m in splits] == [0.125] * 4
    assert loaded.network(torch.zeros(1, *loaded.input_shape)).shape == (1, 4)


def test_networks_of_timm():
    loaded = load_network("resnet18", size=48, options={"num_classes": 5, "in_chans": 1})
    assert loaded.input_shape == (1, 48, 48)
    assert loaded.notes == ()
    assert loaded.network(torch.zeros(1, 1, 48, 48)).shape == (1, 5)


def test_a_ratio_converts_networks_of_timm():
    loaded = load_network("resnet18", ratio=0.25)
    assert sum(isinstance(module, PartialConv2d) for module in loaded.network.modules()) == 13
    assert loaded.notes == (
        "convolutions made partial at ratio 0.25: 13 of 20 convolutions replaced; 3 with a 1x1 kernel are not listed",
    )


def test_files(tmp_path):
    network = create(Architecture("partialnet_micro", OPTIONS)).eval()
    shown = Preprocessing("digits", ("a", "b", "c"), (1, 8, 8), (0.5,), (0.25,))
    save_package(tmp_path / "package", network, shown)
    loaded = load_network(str(tmp_path / "package"))
    image = torch.rand(1, 1, 8, 8)
    assert torch.equal(loaded.network(image), network(image))
    assert (loaded.trained, loaded.preprocessing) == (True, shown)
    assert load_network(str(tmp_path / "package"), size=16).input_shape == (1, 16, 16)
    alone = load_network(str(tmp_path / "package" / "architecture.json"))
    assert (alone.trained, alone.input_shape) == (False, (1, 32, 32))
    assert alone.network.architecture() == network.architecture()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("partialnet_t9", "did you mean partialnet_t2"),
        ("resnet5", "resnet50"),
        ("qqqqqqqq", "ours: micro, t0"),
        ("none/architecture.json", "there is no such file"),
        ("architecture.json", "there is no such file"),
    ],
)
def test_what_does_not_exist(name, hint):
    with pytest.raises(NotFoundError, match=hint):
        load_network(name)


def test_what_cannot_be_built(tmp_path):
    with pytest.raises(ArchitectureError, match="unknown options depth"):
        load_network("micro", options={"depth": 3})
    with pytest.raises(InputError, match=r"resnet18 cannot be built with foo=3: .*foo"):
        load_network("resnet18", options={"foo": 3})
    with pytest.raises(ArchitectureError, match=r"10\.67 of the 32"):
        load_network("t0", ratio=1 / 3)
    with pytest.raises(PackageError, match=r"architecture\.json is missing"):
        load_network(str(tmp_path))
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ArchitectureError, match=r"a\.json: not valid JSON"):
        load_network(str(tmp_path / "a.json"))
    with pytest.raises(InputError, match="--ratio goes with a network's name"):
        load_network(str(tmp_path / "a.json"), ratio=0.5)
