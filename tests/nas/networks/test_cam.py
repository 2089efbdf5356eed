"""Grad-CAM against its closed form, gates against the block's own output."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from nas.errors import InputError
from nas.networks.cam import Tile, colored, grad_cams, overlay, sheet, spatial_gates, stages
from partialnet.architecture import Architecture
from partialnet.fuse import fuse
from partialnet.models.partialnet import create


class Corner(nn.Module):
    """Class 0 sees the map's top left quarter as bright, class 1 as dark: Grad-CAM knows the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Conv2d(1, 2, 1, bias=False)
        self.head = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.map.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
            self.head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))

    def forward(self, x):
        return self.head(self.map(x).mean((2, 3)))


def test_grad_cam_of_a_known_answer():
    network = Corner().eval()
    image = torch.zeros(1, 1, 8, 8)
    image[..., :4, :4] = 1
    bright = grad_cams(network, image, {"map": network.map}, 0)["map"]
    np.testing.assert_allclose(bright, image[0, 0].numpy(), atol=1e-6)
    # the second channel is -1 in the corner and 0 elsewhere: nothing speaks for class 1
    assert not grad_cams(network, -image, {"map": network.map}, 0)["map"].any()
    assert grad_cams(network, -image, {"map": network.map}, 1)["map"][0, 0] == pytest.approx(1)
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.fixture
def micro():
    torch.manual_seed(0)
    return create(Architecture("partialnet_micro", {"num_classes": 4})).eval()


def test_the_stages_of_a_network(micro):
    assert list(stages(micro)) == [f"stages.{i}" for i in range(4)]
    found = grad_cams(micro, torch.rand(1, 3, 32, 32), stages(micro), 2)
    assert {name: values.shape for name, values in found.items()} == dict.fromkeys(stages(micro), (32, 32))
    assert all(0 <= values.min() <= values.max() <= 1 for values in found.values())
    with pytest.raises(InputError, match="Corner does not say what its stages are"):
        stages(Corner())


def test_stages_of_timm_are_looked_at():
    network = timm.create_model("resnet18", num_classes=3).eval()
    found = grad_cams(network, torch.rand(1, 3, 64, 64), stages(network), 0)
    assert list(found) == ["act1", "layer1", "layer2", "layer3", "layer4"]


def test_tokens_are_no_map():
    network = timm.create_model("vit_tiny_patch16_224", num_classes=3).eval()
    with pytest.raises(InputError, match=r"blocks\.0 of VisionTransformer gives \[1, 197, 192\]"):
        grad_cams(network, torch.rand(1, 3, 224, 224), stages(network), 0)


def test_gates_are_what_the_block_multiplies_by(micro):
    image = torch.rand(1, 3, 32, 32)
    gates = spatial_gates(micro, image)
    assert list(gates) == [f"stages.{i}.blocks.{j}.mlp.spatial" for i, j in [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0)]]
    module = micro.get_submodule("stages.1.blocks.0.mlp.spatial")
    seen = {}
    hooks = [
        module.register_forward_pre_hook(lambda _m, inputs: seen.update(before=inputs[0])),
        module.norm.register_forward_pre_hook(lambda _m, inputs: seen.update(gated=inputs[0])),
    ]
    with torch.no_grad():
        micro(image)
    for hook in hooks:
        hook.remove()
    product = seen["before"][0, : module.width] * torch.from_numpy(gates["stages.1.blocks.0.mlp.spatial"])
    torch.testing.assert_close(product, seen["gated"][0])
    assert spatial_gates(fuse(micro), image) == {}


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    network = Corner().eval()
    with pytest.raises(InputError, match=r"install it: pip install 'partialnet-nas\[cam\]'"):
        grad_cams(network, torch.zeros(1, 1, 2, 2), {"map": network.map}, 0)


def test_pictures():
    values = np.array([[0.0, 1.0]], dtype=np.float32)
    blocks = np.asarray(colored(values, (4, 2)))
    assert (blocks[:, :2] == blocks[0, 0]).all()
    assert blocks[0, 3].sum() > blocks[0, 0].sum()
    picture = Image.new("RGB", (4, 4), "white")
    assert np.asarray(overlay(picture, values, share=0.0)).min() == 255
    whole = sheet([[Tile("a", picture), Tile("b", picture)], [Tile("c", picture)]], 10)
    assert whole.size == (26, 70)
    assert whole.getpixel((5, 27)) == whole.getpixel((21, 27)) == (255, 255, 255)
