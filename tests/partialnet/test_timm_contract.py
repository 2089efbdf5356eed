"""What timm's tests of all its models demand, demanded of ours, in timm's terms.

Shapes of the large ones are checked without numbers (on the meta device), numbers on the small ones. The ``patnet_*``
names build the same networks (see ``test_ablations.py``).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import FeatureInfo, get_notrace_functions, get_notrace_modules, save_for_hf
from torch import Tensor, nn
from torchvision.models.feature_extraction import NodePathTracer, create_feature_extractor, get_graph_node_names

import partialnet  # noqa: F401 (registers)
from partialnet.fuse import fuse
from tests.partialnet.reference_state import randomize
from tests.samples import sampled

NAMES = timm.list_models("partialnet_*")
SMALL = ("partialnet_micro", "partialnet_t0")


def shapes_only(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, **options).eval()


def real(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return randomize(timm.create_model(name, **options)).eval()


def image(model: nn.Module, limit: int = 96, batch: int = 2) -> Tensor:
    """Return images of the size that the network was made for, at most ``limit`` pixels; on the meta device as it."""
    channels, height, width = model.default_cfg["input_size"]
    size = (batch, channels, min(limit, height), min(limit, width))
    return torch.randn(size, device=next(model.parameters()).device)


def check_maps(maps: Sequence[Tensor], info: FeatureInfo, x: Tensor) -> None:
    assert len(maps) == len(info.channels()) == len(info.reduction())
    for out, channels, reduction in zip(maps, info.channels(), info.reduction(), strict=True):
        assert out.shape == (len(x), channels, x.shape[2] // reduction, x.shape[3] // reduction)


@pytest.mark.parametrize(
    "name", [name if name in SMALL else pytest.param(name, marks=pytest.mark.long) for name in NAMES]
)
def test_default_configuration_and_shapes(name: str) -> None:
    model = shapes_only(name)
    cfg = model.default_cfg
    x = image(model, 448)
    assert model(x).shape == (2, 1000)
    assert model.pretrained_cfg is cfg
    assert cfg["architecture"] == name
    state = model.state_dict()
    assert state[f"{cfg['classifier']}.weight"].shape == (cfg["num_classes"], model.head_hidden_size)
    assert state[f"{cfg['first_conv']}.weight"].shape[1] == cfg["input_size"][0] == model.in_chans

    features = model.forward_features(x)
    assert features.shape == (2, model.num_features, *cfg["pool_size"])
    last, maps = model.forward_intermediates(x, output_fmt="NCHW")
    assert last.shape == features.shape
    check_maps(maps, FeatureInfo(model.feature_info, range(len(model.feature_info))), x)
    hidden = model.forward_head(features, pre_logits=True)
    assert hidden.shape == (2, model.head_hidden_size)
    model.reset_classifier(0)
    assert model.num_classes == 0
    assert model(x).shape == hidden.shape
    model.reset_classifier(0, "")
    unpooled = (2, model.head_hidden_size, *cfg["pool_size"])
    assert model(x).shape == unpooled
    assert shapes_only(name, num_classes=0, global_pool="")(x).shape == unpooled


@pytest.mark.parametrize(
    ("name", "options"),
    [pytest.param(name, {}, marks=[pytest.mark.long] * (name not in SMALL)) for name in NAMES]
    + [("partialnet_micro", {"feature_cls": kind}) for kind in ("getter", "dict", "hook", "fx")]
    + [("partialnet_micro", {"feature_cfg": {"feature_cls": kind}}) for kind in ("getter", "fx")],
)
def test_features_only(name: str, options: dict[str, Any]) -> None:
    model = shapes_only(name, features_only=True, **options)
    maps = model(image(model))
    check_maps(list(maps.values()) if isinstance(maps, dict) else maps, model.feature_info, image(model))


CHOICES = [(0,), (3,), (1, 2), (0, 3), (0, 1, 2, 3)]
FROM_THE_LAST = [(-1,), (-3, -1)]  # timm's graphs cannot


@pytest.mark.parametrize(
    ("feature_cls", "out_indices"),
    [*sampled(["fx", "list", "getter"], CHOICES), *sampled(["list", "getter"], FROM_THE_LAST)],
)
def test_features_of_chosen_stages(feature_cls: str, out_indices: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    plain = timm.create_model("partialnet_micro").eval()
    torch.manual_seed(0)
    options = {"features_only": True, "out_indices": out_indices, "feature_cls": feature_cls}
    model = timm.create_model("partialnet_micro", **options).eval()
    x = image(model)
    with torch.no_grad():
        maps = model(x)
        _, expected = plain.forward_intermediates(x)
    check_maps(maps, model.feature_info, x)
    for out, index in zip(maps, out_indices, strict=True):
        assert torch.equal(out, expected[index])


@pytest.mark.parametrize("name", SMALL)
def test_training_reaches_every_parameter(name: str) -> None:
    model = timm.create_model(name, num_classes=42).train()
    out = model(image(model, 64))
    out.mean().backward()
    assert out.shape == (2, 42)
    assert out.isfinite().all()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without


@pytest.mark.parametrize("name", SMALL)
def test_forward_with_and_without_checkpointing(name: str) -> None:
    model = real(name)
    x = image(model)
    with torch.no_grad():
        out = model(x)
        assert out.isfinite().all()
        model.set_grad_checkpointing()
        assert torch.allclose(model(x), out, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_arguments_of_forward_intermediates() -> None:
    model = real("partialnet_micro")
    x = image(model)
    expected = model.forward_features(x)
    last, maps = model.forward_intermediates(x)
    assert torch.equal(last, expected)
    assert torch.equal(maps[-1], expected)
    for indices, stages in ((2, [2, 3]), ([1], [1]), ((0, 2), [0, 2]), ([-1, -4], [0, 3])):
        for stop_early in (False, True):
            for norm in (False, True):  # there is no final normalisation, so it changes nothing
                options = {"indices": indices, "stop_early": stop_early, "norm": norm}
                last, some = model.forward_intermediates(x, **options)
                only = model.forward_intermediates(x, **options, intermediates_only=True)
                for out, again, stage in zip(some, only, stages, strict=True):
                    assert torch.equal(out, maps[stage])
                    assert torch.equal(again, maps[stage])
                assert torch.equal(last, maps[stages[-1]] if stop_early else expected)
    model.set_grad_checkpointing()
    assert torch.allclose(model.forward_intermediates(x)[0], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("indices", [1, [0], [1, 2], [0, 3]])
def test_a_pruned_network_has_the_same_intermediates(indices: int | list[int]) -> None:
    model = real("partialnet_micro", num_classes=5)
    x = image(model)
    expected = model.forward_intermediates(x, indices, intermediates_only=True)
    logits = model(x)
    for prune_head in (True, False):
        pruned = copy.deepcopy(model)
        kept = pruned.prune_intermediate_layers(indices, prune_norm=True, prune_head=prune_head)
        assert len(pruned.stages) == max(kept) + 1
        for out, before in zip(pruned.forward_intermediates(x, kept, intermediates_only=True), expected, strict=True):
            assert torch.equal(out, before)
        out = pruned(x)
        if prune_head or max(kept) < 3:
            assert torch.equal(out, expected[-1])
            assert isinstance(pruned.get_classifier(), nn.Identity)
            assert pruned.num_features == pruned.head_hidden_size == out.shape[1]
        else:
            assert torch.equal(out, logits)


def graph_of(model: nn.Module, *, train: bool = False) -> nn.Module:
    """Return the symbolic trace as timm's tests make it: nodes that lead to the output, in either mode."""
    options = {
        "leaf_modules": get_notrace_modules(),
        "autowrap_functions": get_notrace_functions(),
        "param_shapes_constant": True,
    }
    train_nodes, eval_nodes = get_graph_node_names(model, tracer_kwargs=options)
    returned = [train_nodes[-1]]
    if train:
        nodes = list(NodePathTracer(**options).trace(model).nodes)
        inputs = [node.name for node in nodes[-1].all_input_nodes]
        returned = [train_nodes[[node.name for node in nodes].index(name)] for name in inputs]
    return create_feature_extractor(
        model, train_return_nodes=returned, eval_return_nodes=[eval_nodes[-1]], tracer_kwargs=options
    )


@pytest.mark.filterwarnings("ignore:NOTE. The nodes obtained by tracing the model in eval mode:UserWarning")
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.long),
        {"rests": ("se_attention", "srm_attention", "identity", "self_attention")},
        {"full_attention": ("channel", "spatial", "self"), "drop_rate": 0.1, "drop_path_rate": 0.1},
    ],
    ids=["published", "rests", "full"],
)
def test_symbolic_trace(options: dict[str, Any]) -> None:
    model = real("partialnet_micro", num_classes=7, **options)
    x = image(model)
    with torch.no_grad():
        expected = model(x)
        (out,) = graph_of(copy.deepcopy(model)).eval()(x).values()
        assert torch.equal(out, expected)
        (out,) = graph_of(fuse(model)).eval()(x).values()
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    traced = graph_of(model.train(), train=True)
    (out,) = traced(x).values()
    out.mean().backward()
    assert out.shape == (2, 7)
    assert not [name for name, parameter in traced.named_parameters() if parameter.grad is None]


@torch.no_grad()
@pytest.mark.parametrize("form", [lambda model: model, fuse], ids=["training_form", "inference_form"])
@pytest.mark.parametrize("name", SMALL)
def test_channels_last(name: str, form) -> None:
    model = form(real(name, num_classes=5))
    x = image(model)
    expected = model(x)
    model = model.to(memory_format=torch.channels_last)
    formats = []
    for stage in model.stages:
        for module in (stage, *stage.blocks):
            module.register_forward_hook(
                lambda _module, _inputs, out: formats.append(out.is_contiguous(memory_format=torch.channels_last))
            )
    out = model(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    assert formats
    assert all(formats)


@torch.no_grad()
@pytest.mark.parametrize("form", [lambda model: model, fuse], ids=["training_form", "inference_form"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU here"))])  # fmt: skip
def test_autocast(device: str, dtype: torch.dtype, form) -> None:
    """The error is that of the type: bfloat16 keeps 8 bits of each number, float16 keeps 11."""
    model = form(real("partialnet_t0", num_classes=5)).to(device)
    x = image(model, 64)
    expected = model(x)
    with torch.autocast(device, dtype):
        out = model(x)
    assert out.dtype == dtype
    error = float((out.float() - expected).norm() / expected.norm())
    assert 0 < error < 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_training_under_autocast(dtype: torch.dtype) -> None:
    model = real("partialnet_micro", num_classes=5, attn_drop_rate=0.0).train()
    x = image(model, batch=8)
    model(x).square().sum().backward()
    expected = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    with torch.autocast("cpu", dtype):
        loss = model(x).float().square().sum()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    matrices = [(p.grad, g) for p, g in zip(model.parameters(), expected, strict=True) if p.dim() == 4]
    assert max(float((a - b).norm() / b.norm()) for a, b in matrices) < 0.2


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (37, 91), (65, 33), (224, 32), (127, 129)])
def test_sizes_of_images(size: tuple[int, int]) -> None:
    """Outputs of an image do not depend on those beside it, whatever its size."""
    model = real("partialnet_t0", num_classes=5, embed_dim=16)
    x = torch.randn(2, 3, *size)
    out = model(x)
    torch.testing.assert_close(model(x[1:]), out[1:], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(fuse(model)(x), out, rtol=0, atol=1e-5 * float(out.abs().max()))
    assert model.forward_features(x).shape == (2, 128, *(math.floor(pixels / 32) for pixels in size))


def test_data_configuration() -> None:
    config = resolve_model_data_config(shapes_only("partialnet_t1"))
    assert (config["input_size"], config["crop_pct"]) == ((3, 224, 224), 0.9)
    assert resolve_model_data_config(shapes_only("partialnet_t1"), {"input_size": (3, 64, 64)})["input_size"][2] == 64


@torch.no_grad()
def test_saved_in_timms_format_and_loaded_for_other_classes(tmp_path: Path) -> None:
    model = real("partialnet_micro", num_classes=6, act_layer="relu", num_heads=2)
    save_for_hf(model, tmp_path)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = image(model)
    assert torch.equal(again(x), model(x))
    assert again.architecture() == model.architecture()
    other = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=3, in_chans=1).eval()
    assert other(x[:, :1]).shape == (2, 3)
    backbone = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True).eval()
    assert torch.equal(backbone(x)[-1], model.forward_features(x))


def test_there_are_no_weights_to_download() -> None:
    with pytest.raises(RuntimeError, match="No pretrained weights exist for partialnet_t0"):
        timm.create_model("partialnet_t0", pretrained=True)
