"""The authors' checkpoints, in the wrappings and shapes that they come in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from partialnet.checkpoints import load_authors_checkpoint, rename_authors_key
from partialnet.errors import ArchitectureError
from partialnet.models.partialnet import create
from partialnet.state_dicts import plain_names
from tests.partialnet.reference_state import load_reference, make_state

MICRO, RELU, T0 = load_reference("authors_models.json")


def micro_state() -> dict[str, Tensor]:
    return make_state(MICRO["shapes"], MICRO["seed"])


def test_names() -> None:
    assert rename_authors_key("stages.3.reduction.weight") == "stages.2.downsample.reduction.weight"
    assert rename_authors_key("stages.6.blocks.1.mlp.4.norm2.bias") == "stages.3.blocks.1.mlp.spatial.conv_norm.bias"
    assert rename_authors_key("head.bias") == "classifier.bias"


@pytest.mark.parametrize("entry", [MICRO, RELU, T0], ids=lambda entry: entry["name"])
def test_shapes_tell_the_architecture(entry: dict) -> None:
    config = entry["config"]
    model = load_authors_checkpoint(
        make_state(entry["shapes"], entry["seed"]), activation=config["act_layer"].lower()
    )
    options = model.architecture().options
    assert not model.training
    assert options["embed_dim"] == config["embed_dim"]
    assert options["depths"] == tuple(config["depths"])
    assert options["num_classes"] == config["num_classes"]
    assert options["feature_dim"] == config.get("feature_dim", 1280)
    assert options["use_spatial_attn"] == config.get("use_spatial_attn", True)
    create(model.architecture()).load_state_dict(model.state_dict(), strict=True)


def test_names_the_variant() -> None:
    model = load_authors_checkpoint(make_state(T0["shapes"], T0["seed"]), activation="gelu")
    assert model.architecture().model == "partialnet_t0"


@pytest.mark.parametrize("wrap", [
    lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}, "epoch": 3},
    lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
    lambda state: {key: value.numpy() for key, value in state.items()},
    lambda state: {"state_dict": {"model": {"module": {f"_orig_mod.{key}": state[key] for key in state}}}},
    lambda state: {"model": {"state_dict": state, "epoch": 3}},
    lambda state: {key.replace("blocks.0.", "blocks.0._orig_mod."): value for key, value in state.items()},
], ids=["lightning", "data_parallel", "numpy", "nested", "nested_otherwise", "compiled_parts"])  # fmt: skip
def test_wrappings(wrap) -> None:
    plain = load_authors_checkpoint(micro_state(), activation="gelu").state_dict()
    wrapped = load_authors_checkpoint(wrap(micro_state()), activation="gelu").state_dict()
    assert all(torch.equal(wrapped[key], value) for key, value in plain.items())


@given(st.lists(st.sampled_from(["_orig_mod", "module", "model"]), max_size=4))
def test_names_of_wrappers_go_in_any_order_and_number(wrappers: list[str]) -> None:
    names = {"stages.0.weight": 1, "module_list.bias": 2, "stages.model.weight": 3}
    assert plain_names({".".join([*wrappers, name]): value for name, value in names.items()}) == names


def test_a_name_that_only_some_begin_with_is_the_network_s_own() -> None:
    names = {"model.weight": 1, "head.weight": 2}
    assert plain_names(names) == names
    assert plain_names({}) == {}


@pytest.mark.parametrize("order", [["_orig_mod", "module"], ["module", "model"], ["model", "module", "_orig_mod"]])
def test_an_authors_checkpoint_behind_several_wrappers(order: list[str]) -> None:
    plain = load_authors_checkpoint(micro_state(), activation="gelu").state_dict()
    wrapped = {".".join([*order, key]): value for key, value in micro_state().items()}
    loaded = load_authors_checkpoint(wrapped, activation="gelu").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in plain.items())


def test_half_of_the_channels() -> None:
    """Their n_div = 2: the same rule with other shapes."""
    shapes = {}
    for name, shape in MICRO["shapes"].items():
        if ".spatial_mixing." in name:
            width = 16 * 2 ** (int(name.split(".")[1]) // 2)
            sizes = {width // 4: width // 2, 3 * width // 4: width // 2, 9 * width // 4: 3 * width // 2}
            shape = [sizes.get(size, size) for size in shape]
        shapes[name] = shape
    model = load_authors_checkpoint(make_state(shapes, 1), activation="gelu")
    assert list(model.architecture().active_channels.values()) == [8, 16, 32, 32, 64]


def test_six_heads() -> None:
    state = micro_state()
    state["stages.6.blocks.0.spatial_mixing.attn.rpe_k.lookup_table_bias"] = torch.zeros(6, 81)
    assert load_authors_checkpoint(state, activation="gelu").architecture().options["num_heads"] == 6


class TestRefusals:
    def test_something_else(self) -> None:
        with pytest.raises(ArchitectureError, match=r"not one of a PartialNet: patch_embed\.proj\.weight is missing"):
            load_authors_checkpoint({"conv1.weight": torch.zeros(1)}, activation="relu")
        with pytest.raises(ArchitectureError, match=r"patch_embed\.proj\.weight is missing"):
            load_authors_checkpoint({}, activation="relu")
        with pytest.raises(ArchitectureError, match="state_dict is a str, but must map names to tensors"):
            load_authors_checkpoint("t0.pth", activation="relu")  # type: ignore[arg-type]
        with pytest.raises(ArchitectureError, match=r"has shape \[3\], but must have 4 dimensions"):
            load_authors_checkpoint({"patch_embed.proj.weight": torch.zeros(3)}, activation="relu")

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite(self, value: float) -> None:
        state = micro_state()
        state["head.bias"][3] = value
        with pytest.raises(ArchitectureError, match=r"not finite: classifier\.bias"):
            load_authors_checkpoint(state, activation="gelu")

    def test_what_is_no_tensor(self) -> None:
        with pytest.raises(ArchitectureError, match="holds 'arch', a str, but must map names to tensors"):
            load_authors_checkpoint({**micro_state(), "arch": "t0"}, activation="gelu")

    def test_activation(self) -> None:
        with pytest.raises(ArchitectureError, match="act_layer is 'GELU'"):
            load_authors_checkpoint(micro_state(), activation="GELU")

    def test_heads_that_do_not_divide(self) -> None:
        state = micro_state()
        state["stages.6.blocks.0.spatial_mixing.attn.rpe_k.lookup_table_bias"] = torch.zeros(5, 81)
        with pytest.raises(ArchitectureError, match=r"stages\.3\.blocks\.0\.mixer: .* with 5 attention heads"):
            load_authors_checkpoint(state, activation="gelu")

    def test_missing_unexpected_misshapen(self) -> None:
        state = micro_state()
        del state["stages.1.norm.bias"]
        state["extra"] = torch.zeros(1)
        state["head.bias"] = torch.zeros(3)
        message = r"missing \['stages.1.downsample.norm.bias'\], unexpected \['extra'\], misshapen \['classifier.bias'"
        with pytest.raises(ArchitectureError, match=message):
            load_authors_checkpoint(state, activation="gelu")
