"""to_fixed: equal outputs, or nothing is handed out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from partialnet.architecture import Architecture
from partialnet.errors import ArchitectureError
from partialnet.export import to_fixed
from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.models.partialnet import create
from partialnet.search.levels import set_active_channels, uniform_active_channels
from tests.partialnet.searchable import SmallNet, scramble


class Sabotaged(DPConv2d):
    """Hands out a fixed form with wrong weights."""

    def fixed(self) -> PartialConv2d:
        layer = super().fixed()
        with torch.no_grad():
            layer.conv.weight[0, 0, 0, 0] += 0.01
        return layer


class Transposing(nn.Module):
    """Right layer by layer, wrong as a whole: it treats a fixed layer otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = DPConv2d(8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out if isinstance(self.layer, DPConv2d) else out.flip(1)


@pytest.mark.parametrize("ratio", [1, 1 / 2, 1 / 4, 1 / 8])
def test_a_partialnet_becomes_a_plain_one(ratio: float) -> None:
    model = create(Architecture("partialnet_micro", {"num_classes": 7}), searchable=True)
    scramble(model)
    set_active_channels(model, uniform_active_channels(model, ratio))
    fixed = to_fixed(model.train())
    assert model.training
    assert not any(isinstance(module, DPConv2d) for module in fixed.modules())
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert float((fixed.eval()(x) - model.eval()(x)).abs().max()) <= 1e-5
    again = create(fixed.architecture())
    again.load_state_dict(fixed.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(again.eval()(x), fixed(x))
    assert again.architecture() == fixed.architecture()
    assert fixed.architecture().active_channels == uniform_active_channels(model, ratio)
    assert not fixed.searchable


def test_any_module_can_be_exported() -> None:
    model = SmallNet()
    scramble(model)
    fixed = to_fixed(model, input_shape=(3, 6, 6))
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        assert float((fixed.eval()(x) - model.eval()(x)).abs().max()) <= 1e-5
    assert isinstance(to_fixed(DPConv2d(8)), PartialConv2d)


def test_outputs_that_differ_are_not_handed_out() -> None:
    model = SmallNet()
    model.second = Sabotaged(16)
    with pytest.raises(ArchitectureError, match=r"second: outputs of the searched and the fixed form differ by"):
        to_fixed(model)
    to_fixed(Transposing())  # each layer is right, and the shape of an input is not known
    with pytest.raises(ArchitectureError, match="the network: outputs of the searched and the fixed form differ"):
        to_fixed(Transposing(), input_shape=(8, 4, 4))


def test_outputs_that_are_no_numbers_are_not_handed_out() -> None:
    model = SmallNet()
    with torch.no_grad():
        model.first.conv.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ArchitectureError, match=r"first: .* differ by nan"):
        to_fixed(model)


def test_a_network_without_such_layers_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="contains no DPConv2d"):
        to_fixed(nn.Linear(2, 2))


def test_exporting_moves_no_random_numbers() -> None:
    model = SmallNet()
    state = torch.random.get_rng_state()
    to_fixed(model)
    assert torch.equal(state, torch.random.get_rng_state())


def test_uniform_ratios() -> None:
    model = create(Architecture("partialnet_micro"), searchable=True)
    fixed = to_fixed(model)
    assert uniform_active_channels(model, 1 / 4) == fixed.architecture().active_channels
    assert uniform_active_channels(fixed, 1 / 8) == uniform_active_channels(model, 1 / 8)
    assert set(uniform_active_channels(model, 0.3).values()) == {4, 8, 16, 32}
    with pytest.raises(ArchitectureError, match=r"ratio is 1\.5, but must be in"):
        uniform_active_channels(model, 1.5)
    with pytest.raises(ArchitectureError, match=r"blocks\.0\.mixer: a ratio of 0\.03 would be 0\.48 of 16 channels"):
        uniform_active_channels(model, 0.03)
    with pytest.raises(ArchitectureError, match="contains no partial convolution"):
        uniform_active_channels(nn.Linear(2, 2), 0.5)


def test_a_wrong_assignment_changes_nothing() -> None:
    model = SmallNet()
    with pytest.raises(ArchitectureError, match="unknown layers third; known: first, second"):
        set_active_channels(model, {"first": 8, "third": 4})
    with pytest.raises(ArchitectureError, match="second: active_channels is 5, but must be one of 1, 2, 4, 8, 16"):
        set_active_channels(model, {"first": 8, "second": 5})
    assert model.first.active_channels == model.second.active_channels == 4
