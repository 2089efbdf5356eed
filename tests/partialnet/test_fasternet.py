"""FasterNet as options of the family, with timm's own as the reference: the same names, numbers and parameters."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from torch import nn

import partialnet
from tests.partialnet.reference_state import randomize

# embed_dim, depths, activation of timm's variants
FASTERNETS = {
    "t0": (40, (1, 2, 8, 2), "gelu"),
    "t1": (64, (1, 2, 8, 2), "gelu"),
    "t2": (96, (1, 2, 8, 2), "relu"),
    "s": (128, (1, 2, 13, 2), "relu"),
}
RENAMED = (
    (r"spatial_mixing\.partial_conv3\.", "mixer.conv."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.1\.", ".mlp.norm."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
)


def twins(variant: str) -> tuple[nn.Module, nn.Module]:
    """Return timm's FasterNet and ours with its weights, both in eval mode."""
    width, depths, activation = FASTERNETS[variant]
    reference = randomize(timm.create_model(f"fasternet_{variant}", num_classes=10)).eval()
    ours = timm.create_model(
        "partialnet_t0",
        num_classes=10,
        embed_dim=width,
        depths=depths,
        act_layer=activation,
        rests=("identity",) * 4,
        use_spatial_attn=False,
    )
    state = {}
    for key, value in reference.state_dict().items():
        for pattern, name in RENAMED:
            key = re.sub(pattern, name, key)
        state[key] = value
    ours.load_state_dict(state, strict=True)
    return reference, ours.eval()


@pytest.mark.parametrize(
    "variant", [name if name in ("t0", "t2") else pytest.param(name, marks=pytest.mark.long) for name in FASTERNETS]
)
def test_outputs_and_parameters_equal_those_of_timm(variant: str) -> None:
    reference, ours = twins(variant)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in reference.parameters())
    with torch.inference_mode():
        x = torch.randn(2, 3, 64, 96)
        expected = reference(x)
        assert float(expected.std()) > 1e-3
        for form in (ours, partialnet.fuse(ours)):
            torch.testing.assert_close(form(x), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_gradients_equal_those_of_timm() -> None:
    """In training mode too: batch statistics, and what flows back into the images."""
    reference, ours = twins("t0")
    gradients = []
    for model in (reference, ours):
        x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0), requires_grad=True)
        model.train()(x).square().sum().backward()
        gradients.append(x.grad)
    assert float(gradients[0].abs().max()) > 0
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5 * float(gradients[0].abs().max()))
