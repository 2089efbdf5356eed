"""Counts against closed forms and published figures."""

from __future__ import annotations

import pytest
import torch
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
from fvcore.nn.jit_handles import generic_activation_jit
from torch import nn
from torch.nn import functional

from nas.probes.flops import count_operations, probe_flops
from partialnet.architecture import Architecture
from partialnet.fuse import fuse
from partialnet.models.partialnet import create
from partialnet.search.operations import attention_macs, macs_by_module

ATTENTION = "aten::scaled_dot_product_attention"


class Attention(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, x):  # [B, D, H, W]
        tokens = x.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)
        return functional.scaled_dot_product_attention(tokens, tokens, tokens)


@pytest.mark.parametrize(("heads", "width", "side"), [(1, 8, 3), (4, 8, 2), (2, 12, 5)])
def test_attention_counts_both_products(heads, width, side):
    counted, uncounted, *_ = count_operations(Attention(heads), (width, side, side))
    assert sum(counted.values()) == 2 * side**4 * width
    assert uncounted == {}


def test_convolution_and_linear_layer():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(8 * 16, 5)).eval()
    counted = count_operations(network, (3, 4, 4)).counted
    assert sum(counted.values()) == 9 * 3 * 8 * 16 + 8 * 16 * 5


def test_what_is_not_counted_is_listed():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.GELU(), nn.GELU(), nn.ReLU(), nn.Softplus())
    uncounted = count_operations(network, (1, 2, 2)).uncounted
    # relu, views and padding cost no multiply-add; gelu and softplus do
    assert uncounted == {"aten::gelu": 2, "aten::softplus": 1}


@pytest.fixture(scope="module")
def micro():
    torch.manual_seed(0)
    active = {"stages.0.blocks.0.mixer": 3, "stages.1.blocks.0.mixer": 32}
    options = {"num_classes": 10, "in_chans": 1, "patch_size": 1}
    return create(Architecture("partialnet_micro", options, active)).eval()


def test_measurements_of_a_network(micro):
    state = {name: tensor.clone() for name, tensor in micro.state_dict().items()}
    found = {item.metric: item for item in probe_flops(micro, (1, 8, 8))}
    assert set(found) == {"params", "params_inference", "macs", "conv_macs", "activations"}
    assert found["params"].value == sum(parameter.numel() for parameter in micro.parameters())
    assert found["params_inference"].value < found["params"].value
    assert found["macs"].value == macs_by_module(fuse(micro), (1, 8, 8))[""]
    assert found["macs"].value == sum(found["macs"].figures["counted"].values())
    assert found["macs"].figures["uncounted"]
    assert not any("scaled_dot" in name or "batch_norm" in name for name in found["macs"].figures["uncounted"])
    assert found["activations"].value > 0
    # widths 16, 32, 64, 64, 128 on maps of 8, 4, 2, 2, 2 pixels; 3, 32 (all), and a quarter of the others
    assert found["conv_macs"].value == 9 * (64 * 3**2 + 16 * 32**2 + 4 * 16**2 * 2 + 4 * 32**2)
    assert all(torch.equal(tensor, state[name]) for name, tensor in micro.state_dict().items())


def test_one_trace_counts_what_fvcore_counts_in_two(micro):
    fused, inputs = fuse(micro), (torch.zeros(1, 1, 8, 8),)
    macs = FlopCountAnalysis(fused, inputs).set_op_handle(ATTENTION, attention_macs)
    outputs = ActivationCountAnalysis(fused, inputs).set_op_handle(ATTENTION, generic_activation_jit())
    found = {item.metric: item for item in probe_flops(micro, (1, 8, 8))}
    assert found["macs"].figures["counted"] == {name: count for name, count in macs.by_operator().items() if count}
    assert found["activations"].value == outputs.total()
    assert {"conv", "linear", "scaled_dot_product_attention"} <= set(found["macs"].figures["counted"])


def test_counts_of_modules_have_no_activations_among_them(micro):
    fused = fuse(micro)
    assert count_operations(fused, (1, 8, 8)).by_module == macs_by_module(fused, (1, 8, 8))


class Products(nn.Module):
    """Matrix products by several operators."""

    def forward(self, x):  # [1, 2, 4, 4]
        flat = x.flatten(1, 2)  # [1, 8, 4]
        return torch.einsum("bij,bkj->bik", flat, flat).sum() + torch.bmm(flat, x[:, 0]).sum() + (flat @ x[0, 0]).sum()


def test_matrix_products_have_activations_too():
    network, inputs = Products().eval(), (torch.zeros(1, 2, 4, 4),)
    found = {item.metric: item for item in probe_flops(network, (2, 4, 4))}
    assert found["activations"].value == ActivationCountAnalysis(network, inputs).total() == 64 + 32 + 32
    assert found["macs"].value == 8 * 8 * 4 + 8 * 4 * 4 + 8 * 4 * 4
    assert set(found["macs"].figures["counted"]) == {"einsum", "bmm", "matmul"}


def test_a_network_without_partial_convolutions():
    found = {item.metric: item.value for item in probe_flops(nn.Conv2d(1, 2, 1, bias=False), (1, 4, 4))}
    assert found["macs"] == 32
    assert found["conv_macs"] == 0
    assert found["params"] == found["params_inference"] == 2
    assert found["activations"] == 32


@pytest.mark.slow
@pytest.mark.parametrize(("name", "parameters", "published"), [("t0", 4_292_072, 0.252), ("t2", 12_650_424, 1.039)])
def test_published_variants(name, parameters, published):
    """The published FLOPs count another form (norms unfused), so they are matched to a few percent only."""
    found = {item.metric: item.value for item in probe_flops(create(Architecture(f"partialnet_{name}")), (3, 224, 224))}
    assert found["params"] == parameters
    assert found["macs"] / 1e9 == pytest.approx(published, rel=0.05)
