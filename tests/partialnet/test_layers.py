"""The fixed layers: what is computed, on which channels, and what is refused."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from partialnet.errors import ArchitectureError
from partialnet.layers.channel_attention import ChannelAttentionRest, gaussian_statistics
from partialnet.layers.partial_conv import REST_KINDS, PartialConv2d, legal_active_channels
from partialnet.layers.self_attention import BUCKETS, RelativePositionBias, SelfAttentionRest, distance_buckets
from partialnet.layers.spatial_attention import PartialSpatialAttention
from tests.partialnet.reference_state import randomize
from tests.samples import examples


class TestPartialConv:
    @given(
        channels=st.integers(1, 24),
        active=st.integers(-1, 26),
        rest=st.sampled_from(REST_KINDS),
        num_heads=st.integers(1, 6),
    )
    @settings(max_examples=examples(100))
    def test_legal_splits_are_built_and_no_others(self, channels: int, active: int, rest, num_heads: int) -> None:
        if active in legal_active_channels(channels, rest, num_heads):
            layer = PartialConv2d(channels, active, rest=rest, num_heads=num_heads).eval()
            x = torch.randn(1, channels, 2, 3)
            assert layer(x).shape == x.shape
            assert (layer.rest is None) == (active == channels)
        else:
            with pytest.raises(ArchitectureError, match=f"active_channels is {active}, but must be one of "):
                PartialConv2d(channels, active, rest=rest, num_heads=num_heads)

    @pytest.mark.parametrize("rest", REST_KINDS)
    @pytest.mark.parametrize("kernel_size", [1, 3, 5])
    def test_first_channels_are_convolved_and_the_rest_served(self, rest, kernel_size: int) -> None:
        layer = PartialConv2d(16, 4, kernel_size, rest=rest).eval()
        randomize(layer)
        x = torch.randn(2, 16, 5, 6)
        out = layer(x)
        assert torch.equal(out[:, :4], F.conv2d(x[:, :4], layer.conv.weight, padding=kernel_size // 2))
        assert torch.equal(out[:, 4:], layer.rest(x[:, 4:]))
        if rest == "identity":
            assert torch.equal(out[:, 4:], x[:, 4:])

    @pytest.mark.parametrize(
        ("arguments", "options", "message"),
        [
            ((0, 1), {}, "channels is 0"),
            ((8, 4, 2), {}, "kernel_size is 2, but must be odd"),
            ((8, 4), {"rest": "se"}, "rest is 'se', but must be one of identity, channel_attention, self_at.*, se_at"),
            ((8, 4), {"num_heads": 0}, "num_heads is 0"),
            ((16, 5), {"rest": "self_attention"}, r"is 5, but must be one of 4, 8, 12, 16 for 16 channels with 4 att"),
        ],
    )
    def test_refusals(self, arguments: tuple, options: dict, message: str) -> None:
        with pytest.raises(ArchitectureError, match=message):
            PartialConv2d(*arguments, **options)


class TestChannelAttention:
    def test_statistics(self) -> None:
        x = torch.randn(2, 3, 4, 5)
        expected = torch.stack((x.mean((2, 3)), x.std((2, 3))), dim=-1).unsqueeze(2)
        torch.testing.assert_close(gaussian_statistics(x), expected)

    def test_statistics_of_maps_far_from_zero(self) -> None:
        x = 1000 + torch.randn(2, 3, 16, 16)
        torch.testing.assert_close(gaussian_statistics(x)[..., 1].squeeze(2), x.double().std((2, 3)).float())

    def test_single_pixel_has_no_deviation(self) -> None:
        x = torch.randn(2, 3, 1, 1)
        assert torch.equal(gaussian_statistics(x)[..., 0, 0], x[..., 0, 0])
        assert not gaussian_statistics(x)[..., 0, 1].any()

    @pytest.mark.parametrize("size", [(1, 1), (2, 1), (4, 4)])
    def test_gradients_of_constant_maps_are_finite(self, size: tuple[int, int]) -> None:
        layer = ChannelAttentionRest(6).train()
        x = torch.ones(2, 6, *size, requires_grad=True)
        layer(x).square().sum().backward()
        assert x.grad.isfinite().all()


class TestDistanceBuckets:
    @given(height=st.integers(1, 30), width=st.integers(1, 30), data=st.data())
    @settings(max_examples=examples(30))
    def test_definition(self, height: int, width: int, data: st.DataObject) -> None:
        buckets = distance_buckets(height, width)
        assert buckets.shape == (height * width,) * 2
        assert torch.equal(buckets, buckets.T)
        assert (buckets.diagonal() == 40).all()
        first, second = (data.draw(st.integers(0, height * width - 1)) for _ in range(2))
        (row, column), (other_row, other_column) = divmod(first, width), divmod(second, width)
        distance = round(math.hypot(row - other_row, column - other_column))
        expected = distance if distance <= 20 else min(40, round(20 + 20 * math.log(distance / 20) / math.log(8)))
        assert int(buckets[first, second]) == 40 + expected

    def test_far_away_is_the_last_bucket(self) -> None:
        assert int(distance_buckets(1, 400).max()) == BUCKETS - 1


class TestRelativePositionBias:
    def test_a_network_that_was_scored_in_inference_mode_trains_on(self) -> None:
        layer = SelfAttentionRest(8, num_heads=2).eval()
        with torch.inference_mode():
            layer(torch.randn(1, 8, 4, 4))
        layer.train()(torch.randn(2, 8, 4, 4)).sum().backward()
        assert layer.position.table.grad is not None
        layer.eval().position.table.requires_grad_(False)
        with torch.inference_mode():
            layer(torch.randn(1, 8, 4, 4))
        layer(torch.randn(1, 8, 4, 4, requires_grad=True)).sum().backward()

    def bias(self) -> RelativePositionBias:
        module = RelativePositionBias(2).eval()
        randomize(module)
        return module

    def test_looks_up(self) -> None:
        module = self.bias()
        assert torch.equal(module(3, 4), module.table[:, distance_buckets(3, 4)])

    def test_is_computed_once_per_map_size(self) -> None:
        module = self.bias()
        with torch.inference_mode():
            first = module(3, 4)
            assert module(3, 4) is first
            assert module(4, 3) is not first
            assert module(3, 4) is first

    def test_follows_the_table(self) -> None:
        module = self.bias()
        with torch.no_grad():
            for change in (
                lambda: module.table.add_(1),
                lambda: module.load_state_dict({"table": torch.randn(2, BUCKETS)}),
                lambda: module.double(),
                lambda: (module.train(), module.table.data.mul_(2), module.eval()),
                lambda: setattr(module.table, "data", torch.randn(2, BUCKETS)),
            ):
                module(3, 4)
                change()
                assert torch.equal(module(3, 4), module.table[:, distance_buckets(3, 4)])

    def test_learns_in_both_modes(self) -> None:
        for mode in (True, False):
            module = self.bias().train(mode)
            with torch.no_grad():
                module(2, 2)
            module(2, 2).sum().backward()
            assert float(module.table.grad.sum()) == 2 * 16

    def test_many_map_sizes_do_not_pile_up(self) -> None:
        module = self.bias()
        with torch.no_grad():
            for width in range(1, 30):
                module(2, width)
        assert len(module._biases) <= 8
        assert len(module._indices) <= 8
        assert not copy.deepcopy(module)._biases


def attention_by_hand(layer: SelfAttentionRest, x: Tensor) -> Tensor:
    """One head and one pair of positions at a time."""
    _, channels, height, width = x.shape
    head_dim = channels // layer.num_heads
    tokens = F.layer_norm(x.flatten(2).transpose(1, 2), (channels,), layer.norm.weight, layer.norm.bias, 1e-6)
    buckets = distance_buckets(height, width)
    heads = []
    for head in range(layer.num_heads):
        query, key, value = (
            tokens @ layer.qkv.weight[kind * channels + head * head_dim :][:head_dim].T for kind in range(3)
        )
        logits = head_dim**-0.5 * query @ key.transpose(1, 2) + layer.position.table[head][buckets]
        heads.append(logits.softmax(-1) @ value)
    out = torch.cat(heads, -1) @ layer.proj.weight.T + layer.proj.bias
    return out.transpose(1, 2).reshape(x.shape)


class TestSelfAttention:
    @pytest.mark.parametrize(("channels", "num_heads"), [(12, 4), (12, 6), (8, 1)])
    def test_by_hand(self, channels: int, num_heads: int) -> None:
        layer = SelfAttentionRest(channels, num_heads).eval()
        randomize(layer)
        x = torch.randn(2, channels, 3, 5)
        with torch.no_grad():
            torch.testing.assert_close(layer(x), attention_by_hand(layer, x), rtol=0, atol=2e-6)

    def test_drops_while_training_only(self) -> None:
        layer = SelfAttentionRest(12, 4, attn_drop=0.5)
        randomize(layer)
        x = torch.randn(2, 12, 3, 5)
        assert not torch.equal(layer.train()(x), layer.train()(x))
        assert torch.equal(layer.eval()(x), layer.eval()(x))
        calm = SelfAttentionRest(12, 4, attn_drop=0.0)
        calm.load_state_dict(layer.state_dict())
        torch.testing.assert_close(calm.train()(x), layer.eval()(x), rtol=0, atol=1e-6)

    def test_heads_must_divide(self) -> None:
        with pytest.raises(ArchitectureError, match="over 10 channels with num_heads=4"):
            SelfAttentionRest(10, 4)


class TestSpatialAttention:
    def test_halves_do_not_mix(self) -> None:
        layer = PartialSpatialAttention(8).eval()
        randomize(layer)
        x = torch.randn(2, 8, 3, 3)
        changed = torch.cat((x[:, :4], x[:, 4:] + 1), dim=1)
        assert torch.equal(layer(x)[:, :4], layer(changed)[:, :4])
        assert not torch.equal(layer(x)[:, 4:], layer(changed)[:, 4:])

    @pytest.mark.parametrize("channels", [0, 1, 7])
    def test_odd_widths_are_refused(self, channels: int) -> None:
        with pytest.raises(ArchitectureError, match=f"over {channels} channels.*even"):
            PartialSpatialAttention(channels)

    def test_moves_in_precision(self) -> None:
        assert PartialSpatialAttention(8).half().conv.weight.dtype == torch.float16
