"""Modules for the remaining channels while the split is learned: full-width weights, whose suffix is used.

At n active channels the rest owns channels n to C - 1, so each tensor is sliced from n on. All levels share scale and
shift, but not batch statistics. Those of one level are invalid for another, since the attention's convolution sums over
the remaining channels.

A rest also computes its difference from the neighbouring levels (its contrast), without autograd and without changing
the running statistics.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partialnet.layers.block import block, compute_type, suffix
from partialnet.layers.channel_attention import SqueezeExcitation, gaussian_statistics, squeezed_channels
from partialnet.layers.dpconv_probe import Contrast, accumulator, wide
from partialnet.layers.level_norm import LevelBatchNorm2d
from partialnet.layers.self_attention import RelativePositionBias


class Neighbours(NamedTuple):
    """The present level and the neighbours that are probed.

    Args:
        level: Index of the present level.
        start: Number n of its active channels, at which the rest starts.
        below: Active channels of the level below; None if it is not probed.
        above: Active channels of the level above; None if it is not probed.
        images: Number of images that may represent the batch if the outputs of images are independent.
    """

    level: int
    start: int
    below: int | None
    above: int | None
    images: int

    @property
    def first(self) -> int:
        """Lowest number of active channels."""
        return self.start if self.below is None else self.below

    @property
    def starts(self) -> list[int]:
        """Active channels of all levels, ascending."""
        return [n for n in (self.below, self.start, self.above) if n is not None]


class SearchableRest(nn.Module):
    """The unchanged rest; base class of the rests with an operation."""

    def forward(self, x: Tensor, start: int, level: int, *, probe: bool = False) -> Tensor:
        """Map [B, C - start, H, W] to the same shape.

        Args:
            x: Channels ``start`` to C - 1.
            start: Number n of active channels.
            level: Index of n among the levels.
            probe: Whether running statistics stay unchanged and nothing is dropped out.
        """
        del start, level, probe
        return x

    def probed(self, rest: Tensor | None, x: Tensor, beside: Neighbours) -> tuple[Tensor | None, Contrast]:
        """Return the output, and the differences between the levels' outputs.

        Args:
            rest: Channels ``beside.start`` to C - 1; None if there are none.
            x: All channels, [B, C, H, W], without autograd.
            beside: Present level and its probed neighbours.
        """
        starts = beside.starts
        scale = x.new_zeros(len(starts) - 1, 1, starts[-1] - starts[0], dtype=accumulator(x))
        for row, (n, more) in enumerate(pairwise(starts)):
            scale[row, :, n - starts[0] : more - starts[0]] = -1
        return rest, Contrast(starts[0], starts[-1], scale)

    @torch.no_grad()
    def _whole_contrast(self, out: Tensor | None, x: Tensor, beside: Neighbours) -> Contrast:
        """Return the contrast from whole forwards at the levels below and above, on the images ``x``."""
        first, starts = beside.first, beside.starts
        maps = x.new_zeros(len(starts) - 1, *x[:, first:].shape, dtype=accumulator(x))
        if beside.below is not None:
            maps[0] -= self(x[:, first:], first, beside.level - 1, probe=True)
        if beside.above is not None and beside.above < x.shape[1]:
            above = self(x[:, beside.above :], beside.above, beside.level + 1, probe=True)
            maps[-1, :, beside.above - first :] += above
        if out is not None:
            present = out[: len(x)]
            if beside.below is not None:
                maps[0, :, beside.start - first :] += present
            if beside.above is not None:
                maps[-1, :, beside.start - first :] -= present
        return Contrast(first, x.shape[1], maps=maps)

    def state_at(self, start: int, level: int) -> dict[str, Tensor]:
        """Return the state of an equal fixed module at ``level``."""
        del start, level
        return {}


class _GaussianAttention(nn.Module):
    """Full-width parts of the Gaussian channel attention, named as in the fixed module."""

    def __init__(self, channels: int, levels: int, *, depthwise: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, (1, 2), groups=channels if depthwise else 1, bias=False)
        self.norm = LevelBatchNorm2d(channels, levels)

    def scores(self, statistics: Tensor, start: int) -> Tensor:
        """Return the inputs of the gates from channel ``start`` on, before normalisation: [B, C - start, 1, 1]."""
        weight = self.weight_from(start, compute_type(self.conv.weight))
        if self.conv.groups > 1:
            return (statistics * weight.squeeze(1)).sum(-1, keepdim=True)
        # As a matrix: several times as fast as a convolution of one pixel.
        return F.linear(statistics.flatten(1), weight.flatten(1))[:, :, None, None]

    def scores_at(self, statistics: Tensor, starts: list[int]) -> Tensor:
        """Return the scores at several levels, from the statistics of the channels from the first level on.

        Args:
            statistics: Statistics [B, C - starts[0], 1, 2].
            starts: Active channels of the levels, ascending.

        Returns:
            Scores [B, levels, C - starts[0]]; meaningless on the channels that a level convolves.
        """
        weight = self.weight_from(starts[0], compute_type(self.conv.weight)).flatten(1)
        if self.conv.groups > 1:
            return (statistics.squeeze(2) * weight).sum(-1, keepdim=True).mT.expand(-1, len(starts), -1)
        # Each level has one group of columns more than the next. Converted here once, not once for each group.
        weight, flat = weight.to(compute_type(weight)), statistics.flatten(1).to(compute_type(weight))
        ends = [2 * (n - starts[0]) for n in starts[1:]]
        scores: list[Tensor] = []
        for left, right in zip([0, *ends][::-1], [*ends, flat.shape[1]][::-1], strict=True):
            columns = flat[:, left:right], weight[:, left:right].mT
            scores.insert(0, torch.addmm(scores[0], *columns) if scores else torch.mm(*columns))
        return torch.stack(scores, dim=1)

    def weight_from(self, start: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return the kernel of the channels from ``start`` on, as in the fixed module; ``dtype`` None keeps its type.
        """
        weight = self.conv.weight
        if self.conv.groups > 1:
            return weight[start:]
        return block(weight, start, len(weight), dtype=dtype)


class SearchableChannelAttention(SearchableRest):
    """Gaussian channel attention and batch normalisation (PAT_ch) on any suffix of the channels.

    Args:
        channels: Width C.
        levels: Number of levels.
        depthwise: Whether a gate depends only on its own channel (SRM).
    """

    def __init__(self, channels: int, levels: int, *, depthwise: bool = False) -> None:
        super().__init__()
        self.attention = _GaussianAttention(channels, levels, depthwise=depthwise)
        self.norm = LevelBatchNorm2d(channels, levels)

    def forward(self, x: Tensor, start: int, level: int, *, probe: bool = False) -> Tensor:
        """Map [B, C - start, H, W] to the same shape (see the base class)."""
        return self._attend(x, gaussian_statistics(x), start, level, probe=probe)

    def _attend(self, x: Tensor, statistics: Tensor, start: int, level: int, *, probe: bool = False) -> Tensor:
        scores = self.attention.norm(self.attention.scores(statistics, start), start, level, probe=probe)
        out: Tensor = self.norm(x * F.hardsigmoid(scores), start, level, probe=probe)
        return out

    def probed(self, rest: Tensor | None, x: Tensor, beside: Neighbours) -> tuple[Tensor | None, Contrast]:
        """See the base class. All images count, since in training they share the batch statistics."""
        out, statistics = None, x.new_empty(len(x), 0, 1, 2)
        if rest is not None:
            statistics = gaussian_statistics(rest)
            out = self._attend(rest, statistics, beside.start, beside.level)
        with torch.no_grad():
            if beside.below is not None:
                added = gaussian_statistics(x[:, beside.below : beside.start])
                statistics = torch.cat((added, statistics), dim=1)
            return out, self._contrast(statistics, beside, x.shape[2] * x.shape[3])

    def _contrast(self, statistics: Tensor, beside: Neighbours, pixels: int) -> Contrast:
        first, channels = beside.first, len(self.norm.weight)
        starts = [n for n in beside.starts if n < channels]
        lowest = beside.level if beside.below is None else beside.level - 1
        scale, shift = self._affine(statistics, starts, slice(lowest, lowest + len(starts)), pixels)
        for index, n in enumerate(starts):
            if n > first:
                scale[index, :, : n - first] = 0
                shift[index, : n - first] = 0
        if len(starts) < len(beside.starts):  # at n = C there is no rest
            scale, shift = F.pad(scale, (0, 0, 0, 0, 0, 1)), F.pad(shift, (0, 0, 0, 1))
        return Contrast(first, channels, scale.diff(dim=0), shift.diff(dim=0))

    def _affine(self, statistics: Tensor, starts: list[int], levels: slice, pixels: int) -> tuple[Tensor, Tensor]:
        """Return scale [levels, B, C - starts[0]] and shift [levels, C - starts[0]] that map the input to the output.

        The moments of scaled maps follow from those of each map.
        """
        scores = self.attention.scores_at(statistics, starts)
        factors = wide(F.hardsigmoid(self.attention.norm.probes(scores, starts[0], levels)))
        mean, deviation = wide(statistics).squeeze(2).unsqueeze(1).unbind(-1)
        means = factors * mean
        center = means.mean(0)
        variance = deviation.square() * ((pixels - 1) / pixels)
        spread = torch.addcmul((means - center).square(), factors.square(), variance).mean(0)
        scale, shift = self.norm.affine(center, spread, starts[0], levels, len(means))
        return (factors * scale).transpose(0, 1), shift

    def state_at(self, start: int, level: int) -> dict[str, Tensor]:
        """Return the state of an equal fixed module at ``level``."""
        inner, outer = self.attention.norm.state_at(start, level), self.norm.state_at(start, level)
        return {
            "attention.conv.weight": self.attention.weight_from(start),
            **{f"attention.norm.{key}": value for key, value in inner.items()},
            **{f"norm.{key}": value for key, value in outer.items()},
        }


class SearchableSelfAttention(SearchableRest):
    """Layer normalisation and self-attention with relative positions (PAT_sf) on any suffix of the channels.

    Channel c belongs to head c mod ``num_heads`` at any split. The fixed module keeps the channels of a head together,
    so its rows of ``qkv`` and columns of ``proj`` are permuted. This module permutes its weights before their use:
    weights are smaller than maps. The queries' scale follows the channels of a head and so depends on the level.

    Args:
        channels: Width C, which the heads divide.
        num_heads: Number of heads, all of them active at each level.
        attn_drop: Dropout on the attention and on the output in training.
    """

    def __init__(self, channels: int, num_heads: int, *, attn_drop: float = 0.1) -> None:
        super().__init__()
        self.channels = channels
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.position = RelativePositionBias(num_heads)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, start: int, level: int, *, probe: bool = False) -> Tensor:
        """Map [B, C - start, H, W] to the same shape (see the base class)."""
        del level
        batch, channels, height, width = x.shape
        drop = self.attn_drop if self.training and not probe else 0.0
        weight, bias, shift = suffix(start, self.norm.weight, self.norm.bias, self.proj.bias)
        tokens = F.layer_norm(x.flatten(2).transpose(1, 2), (channels,), weight, bias, self.norm.eps)
        query, key, value = (
            F.linear(tokens, self._qkv_weight(start))
            .reshape(batch, height * width, 3, self.num_heads, channels // self.num_heads)
            .permute(2, 0, 3, 1, 4)
        )
        bias = self.position(height, width)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.unsqueeze(0), dropout_p=drop)
        out = out.transpose(1, 2).reshape(batch, height * width, channels)
        out = F.linear(out, self._proj_weight(start), shift)
        out = F.dropout(out, drop, training=drop > 0)
        return out.transpose(1, 2).reshape(batch, channels, height, width)

    def probed(self, rest: Tensor | None, x: Tensor, beside: Neighbours) -> tuple[Tensor | None, Contrast]:
        """See the base class. The first images represent all."""
        out = None if rest is None else self(rest, beside.start, beside.level)
        return out, self._whole_contrast(out, x[: beside.images], beside)

    def _qkv_weight(self, start: int) -> Tensor:
        """Return [3 D, D] of the D channels from ``start`` on, rows of a head together, as in the fixed module."""
        left = self.channels - start
        weight = block(self.qkv.weight.view(3, self.channels, self.channels), start, self.channels, 1)
        return weight.view(3, left // self.num_heads, self.num_heads, left).transpose(1, 2).reshape(3 * left, left)

    def _proj_weight(self, start: int) -> Tensor:
        """Return [D, D] of the D channels from ``start`` on, columns of a head together, as in the fixed module."""
        left = self.channels - start
        weight = block(self.proj.weight, start, self.channels)
        return weight.view(left, left // self.num_heads, self.num_heads).transpose(1, 2).reshape(left, left)

    def state_at(self, start: int, level: int) -> dict[str, Tensor]:
        """Return the state of an equal fixed module at ``level``."""
        del level
        return {
            "norm.weight": self.norm.weight[start:],
            "norm.bias": self.norm.bias[start:],
            "qkv.weight": self._qkv_weight(start),
            "position.table": self.position.table,
            "proj.weight": self._proj_weight(start),
            "proj.bias": self.proj.bias[start:],
        }


class SearchableSqueezeExcitation(SearchableRest):
    """SE and batch normalisation on any suffix of the channels; it uses the last units of the bottleneck.

    Args:
        channels: Width C.
        levels: Number of levels.
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.channels = channels
        self.attention = SqueezeExcitation(channels)
        self.norm = LevelBatchNorm2d(channels, levels)

    def forward(self, x: Tensor, start: int, level: int, *, probe: bool = False) -> Tensor:
        """Map [B, C - start, H, W] to the same shape (see the base class)."""
        parts = self._parts(start)
        hidden = F.relu(F.conv2d(x.mean((2, 3), keepdim=True), parts["reduce.weight"], parts["reduce.bias"]))
        gates = F.hardsigmoid(F.conv2d(hidden, parts["expand.weight"], parts["expand.bias"]))
        out: Tensor = self.norm(x * gates, start, level, probe=probe)
        return out

    def probed(self, rest: Tensor | None, x: Tensor, beside: Neighbours) -> tuple[Tensor | None, Contrast]:
        """See the base class. All images count, since in training they share the batch statistics."""
        out = None if rest is None else self(rest, beside.start, beside.level)
        return out, self._whole_contrast(out, x, beside)

    def _parts(self, start: int) -> dict[str, Tensor]:
        reduce, expand = self.attention.reduce, self.attention.expand
        hidden = reduce.out_channels - squeezed_channels(self.channels - start)
        assert reduce.bias is not None
        assert expand.bias is not None
        return {
            "reduce.weight": reduce.weight[hidden:, start:],
            "reduce.bias": reduce.bias[hidden:],
            "expand.weight": expand.weight[start:, hidden:],
            "expand.bias": expand.bias[start:],
        }

    def state_at(self, start: int, level: int) -> dict[str, Tensor]:
        """Return the state of an equal fixed module at ``level``."""
        attention = {f"attention.{key}": value for key, value in self._parts(start).items()}
        return attention | {f"norm.{key}": value for key, value in self.norm.state_at(start, level).items()}


def make_searchable_rest(
    rest: str, channels: int, levels: int, *, num_heads: int = 4, attn_drop: float = 0.1
) -> SearchableRest:
    """Return the module for the remaining channels, of ``channels`` channels at any level."""
    if rest == "identity":
        return SearchableRest()
    if rest == "self_attention":
        return SearchableSelfAttention(channels, num_heads, attn_drop=attn_drop)
    if rest == "se_attention":
        return SearchableSqueezeExcitation(channels, levels)
    return SearchableChannelAttention(channels, levels, depthwise=rest == "srm_attention")
