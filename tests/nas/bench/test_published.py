"""The papers' table, and the networks that its rows are."""

from __future__ import annotations

import csv

import pytest
import timm
import torch
from fvcore.nn import FlopCountAnalysis

from nas.bench.measuring import build, count
from nas.bench.published import MODELS, TABLE, Model, Published, choose, read_published
from nas.errors import InputError
from nas.probes.flops import probe_flops


def test_the_table_is_read_in_full():
    rows = list(csv.reader(TABLE.read_text().splitlines()))
    assert tuple(rows[0]) == Published._fields
    found = read_published()
    assert [[*row[:2], *map(float, row[2:])] for row in rows[1:]] == [list(row) for row in found]
    assert len(found) == 42
    assert found[5] == Published("PartialNet-T0", "Hybrid", 4.3, 0.25, 7777, 11744, 12.2, 73.9)


def test_every_network_exists_but_two():
    missing = [row.network for row in read_published() if row.network not in MODELS]
    assert missing == ["ShuffleNetV2 x1.5", "ShuffleNetV2 x2"]
    assert set(MODELS) <= {row.network for row in read_published()}
    assert [model.name for model in MODELS.values() if not timm.is_model(model.name)] == []


BUILT = [row for row in read_published() if row.network in MODELS]


@pytest.mark.slow
@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=[] if place % 4 == 0 else pytest.mark.long) for place, row in enumerate(BUILT)],
    ids=[row.network for row in BUILT],
)
def test_parameters_are_those_published(row):
    """That each row is the network that is meant: rounded as printed, or within 4 % where papers disagree."""
    with torch.device("meta"):
        network = build(MODELS[row.network], MODELS[row.network].size)
    params = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert params == pytest.approx(row.params_m, rel=0.04, abs=0.05)


def test_counts_of_ours_are_the_papers():
    model = Model("partialnet_t0")
    network = build(model, 224)
    found = count(model, network, 224)
    probed = {item.metric: item.value for item in probe_flops(network, (3, 224, 224))}
    assert {name: found[name] for name in ("params", "params_inference", "macs")} == {
        name: probed[name] for name in ("params", "params_inference", "macs")
    }
    assert found["params"] == 4_292_072
    assert found["macs_papers"] == pytest.approx(0.252e9, abs=0.0005e9)


def test_counts_of_others_are_fvcores():
    model = Model("mobilenetv2_100")
    network = build(model, 96)
    found = count(model, network, 96)
    analysis = FlopCountAnalysis(network, torch.zeros(1, 3, 96, 96)).unsupported_ops_warnings(False)
    assert found["macs"] == found["macs_papers"] == analysis.total()


def test_patterns():
    assert len(choose(())) == 42
    assert [row.network for row in choose(["PartialNet-[TS]*"])] == [f"PartialNet-{v}" for v in ("T0", "T1", "T2", "S")]
    assert [row.network for row in choose(["resnet50", "shuffle*"])] == [
        "ShuffleNetV2 x1.5", "ShuffleNetV2 x2", "ResNet50"
    ]  # fmt: skip
    assert [row.network for row in choose(["efficientvit_b1"])] == ["EfficientViT-B1-192", "EfficientViT-B1"]
    with pytest.raises(InputError, match=r"--models vgg\*: no network of the papers' table matches"):
        choose(["resnet*", "vgg*"])


def test_families():
    assert {row.network: row.family for row in choose(["*b1-192", "ghost*", "mobilevitv2_05*"])} == {
        "EfficientViT-B1-192": "EfficientViT", "GhostNet x1.3": "GhostNet", "MobileViTv2-0.5": "MobileViTv2"
    }  # fmt: skip
