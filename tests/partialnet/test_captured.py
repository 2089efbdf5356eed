"""Captured networks: what is refused anywhere, and on a GPU the same outputs as uncaptured."""

from __future__ import annotations

import gc

import pytest
import timm
import torch
from torch import nn

from partialnet.captured import CapturedNetwork
from partialnet.errors import PartialNetError
from partialnet.fuse import fuse

on_a_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"),
]


def test_a_processor_has_no_graphs() -> None:
    with pytest.raises(PartialNetError, match="captured on a GPU, but the images are on cpu"):
        CapturedNetwork(nn.Identity().eval(), torch.zeros(1, 3, 8, 8))


class TestOnAGpu:
    pytestmark = on_a_gpu

    @pytest.mark.parametrize("name", ["partialnet_micro", "fasternet_t0"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_outputs_are_those_of_the_network(self, name: str, dtype: torch.dtype) -> None:
        model = timm.create_model(name).eval().cuda().to(dtype)
        network = fuse(model) if name.startswith("partialnet") else model
        first, second = (torch.randn(4, 3, 64, 64, device="cuda", dtype=dtype) for _ in range(2))
        captured = CapturedNetwork(network, first)
        with torch.no_grad():
            expected = [network(images) for images in (first, second)]
        for images, out in zip((first, second), expected, strict=True):
            torch.testing.assert_close(captured(images), out)

    def test_the_network_lives_as_long_as_its_graph(self) -> None:
        network = fuse(timm.create_model("partialnet_micro").eval().cuda())
        images = torch.randn(4, 3, 32, 32, device="cuda")
        with torch.no_grad():
            expected = network(images)
        captured = CapturedNetwork(network, images)
        del network
        gc.collect()
        torch.cuda.empty_cache()
        rubbish = [torch.full((1 << 18,), float("nan"), device="cuda") for _ in range(64)]
        torch.testing.assert_close(captured(images), expected)
        del rubbish

    def test_other_images_and_training_are_refused(self) -> None:
        network = timm.create_model("partialnet_micro").cuda()
        images = torch.randn(4, 3, 32, 32, device="cuda")
        with pytest.raises(PartialNetError, match=r"training mode: call \.eval\(\)"):
            CapturedNetwork(network, images)
        with pytest.raises(PartialNetError, match=r"captured for images \(4, 3, 32, 32\).*these are \(2, 3, 32, 32\)"):
            CapturedNetwork(network.eval(), images)(images[:2])
