"""What serves the remaining channels while the split is learned: full-width weights, of which the suffix is used.

At n active channels the rest owns channels n to C - 1, so every tensor is sliced from n on. Scale and shift are shared
by all levels, batch statistics are not: those of one level are invalid for another, since the attention's convolution
sums over the channels that are left.

A rest also says how it would differ at the neighbouring levels (its contrasts), without autograd and without a trace in
the running statistics.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partialnet.layers.channel_attention import SqueezeExcitation, gaussian_statistics, squeezed_channels
from partialnet.layers.dpconv_probe import Contrast, accumulator, wide
from partialnet.layers.self_attention import RelativePositionBias


class LevelBatchNorm2d(nn.Module):
    """Batch normalisation of a suffix of the channels, with running statistics for every level.

    Args:
        channels: Width C.
        levels: How many levels there are.
        eps: Added to the variance.
        momentum: Of the running statistics.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, levels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(levels, channels))
        self.register_buffer("running_var", torch.ones(levels, channels))
        self.register_buffer("num_batches_tracked", torch.zeros(levels, dtype=torch.long))

    def reset_running_stats(self) -> None:
        """Forget the statistics of every level."""
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.num_batches_tracked.zero_()

    def forward(self, x: Tensor, start: int, level: int, *, probe: bool = False) -> Tensor:
        """Normalise [B, C - start, H, W]; a ``probe`` leaves the running statistics as they are."""
        mean = self.running_mean[level, start:]
        var = self.running_var[level, start:]
        if self.training and probe:
            return F.batch_norm(x, None, None, self.weight[start:], self.bias[start:], True, 0.0, self.eps)
        if self.training:
            self.num_batches_tracked[level] += 1
        return F.batch_norm(
            x, mean, var, self.weight[start:], self.bias[start:], self.training, self.momentum, self.eps
        )

    def affine(self, mean: Tensor, variance: Tensor, start: int, level: int) -> tuple[Tensor, Tensor]:
        """Return scale and shift that a probe of inputs with these batch moments applies.

        Args:
            mean: [C - start]; used in training mode, as is ``variance``.
            variance: [C - start], biased.
            start: First channel.
            level: Index of the level.
        """
        if not self.training:
            mean, variance = self.running_mean[level, start:], self.running_var[level, start:]
        scale = self.weight[start:] * (variance + self.eps).rsqrt()
        return scale, self.bias[start:] - mean * scale

    def state_at(self, start: int, level: int) -> dict[str, Tensor]:
        """Return the state of the ``BatchNorm2d`` that does the same at ``level``."""
        return {
            "weight": self.weight[start:],
            "bias": self.bias[start:],
            "running_mean": self.running_mean[level, start:],
            "running_var": self.running_var[level, start:],
            "num_batches_tracked": self.num_batches_tracked[level],
        }


class Neighbours(NamedTuple):
    """The present level and those beside it that are probed.

    Args:
        level: Index of the present one.
        start: Its active channels n, where the rest starts.
        below: Active channels of the level below; None if it is not probed.
        above: Active channels of the level above; None if it is not probed.
        images: How many of the batch may stand for all where outputs of images do not depend on each other.
    """

    level: int
    start: int
    below: int | None
    above: int | None
    images: int


Contrasts = tuple[Contrast | None, Contrast | None]


class SearchableRest(nn.Module):
    """The rest passed on as it is; base of those that do something."""

    def forward(self, x: Tensor, start: int, level: int, *, probe: bool = False) -> Tensor:
        """Map [B, C - start, H, W] to the same shape.

        Args:
            x: Channels ``start`` to C - 1.
            start: Active channels n.
            level: Index of n among the levels.
            probe: Evaluate only: running statistics stay as they are, nothing is dropped out.
        """
        del start, level, probe
        return x

    def probed(self, rest: Tensor | None, x: Tensor, beside: Neighbours) -> tuple[Tensor | None, Contrasts]:
        """Return the output, and by how much it would differ at the levels below and above.

        Args:
            rest: Channels ``beside.start`` to C - 1; None if there are none.
            x: All channels, [B, C, H, W], without autograd.
            beside: The levels in question.

        Returns:
            Output, None if there is no rest, and the contrasts, None where a level is not probed.
        """
        one = x.new_ones((), dtype=accumulator(x))
        start, below, above = beside.start, beside.below, beside.above
        return rest, (
            None if below is None else Contrast(below, one, None, start),
            None if above is None else Contrast(start, -one, None, above),
        )

    @torch.no_grad()
    def _whole_contrasts(self, out: Tensor | None, x: Tensor, beside: Neighbours) -> Contrasts:
        """Return the contrasts from whole forwards at the levels below and above, on the images ``x``."""
        level, start, below, above, _ = beside
        removal = growth = None
        if below is not None:
            shift = wide(self(x[:, below:], below, level - 1, probe=True))
            if out is not None:
                shift[:, start - below :] -= out[: len(x)]
            removal = Contrast(below, None, shift)
        if above is not None and out is not None:
            shift = -wide(out[: len(x)])
            if above < x.shape[1]:
                shift[:, above - start :] += self(x[:, above:], above, level + 1, probe=True)
            growth = Contrast(start, None, shift)
        return removal, growth

    def state_at(self, start: int, level: int) -> dict[str, Tensor]:
        """Return the state of the fixed module that does the same at ``level``."""
        del start, level
        return {}


class _GaussianAttention(nn.Module):
    """Full-width parts of the Gaussian channel attention, named as in the fixed module."""

    def __init__(self, channels: int, levels: int, *, depthwise: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, (1, 2), groups=channels if depthwise else 1, bias=False)
        self.norm = LevelBatchNorm2d(channels, levels)

    def scores(self, statistics: Tensor, start: int) -> Tensor:
        """Return what the gates of the channels from ``start`` on see, before normalisation: [B, C - start, 1, 1]."""
        groups = statistics.shape[1] if self.conv.groups > 1 else 1
        return F.conv2d(statistics, self.weight_from(start), groups=groups)

    def share(self, statistics: Tensor, rows: slice, columns: slice) -> Tensor:
        """Return what channels ``columns``, whose statistics these are, add to the scores of channels ``rows``."""
        weight = self.conv.weight
        if self.conv.groups > 1:  # the same as a dense kernel that is diagonal
            weight = torch.diag_embed(weight.squeeze(1, 2).t()).permute(1, 2, 0).unsqueeze(2)
        # As a matrix, several times as fast as a convolution of one pixel.
        return F.linear(statistics.flatten(1), weight[rows, columns].flatten(1))[:, :, None, None]

    def weight_from(self, start: int) -> Tensor:
        """Return the kernel of the channels from ``start`` on, as the fixed module has it."""
        return self.conv.weight[start:] if self.conv.groups > 1 else self.conv.weight[start:, start:]

    def factors(self, scores: Tensor, start: int, level: int, *, probe: bool = False) -> Tensor:
        """Return what channels from ``start`` on are multiplied by: [B, C - start, 1, 1]."""
        return F.hardsigmoid(self.norm(scores, start, level, probe=probe))


class SearchableChannelAttention(SearchableRest):
    """Gaussian channel attention and batch normalisation (PAT_ch) on any suffix of the channels.

    Args:
        channels: Width C.
        levels: How many levels there are.
        depthwise: Whether a gate sees its own channel alone (SRM).
    """

    def __init__(self, channels: int, levels: int, *, depthwise: bool = False) -> None:
        super().__init__()
        self.attention = _GaussianAttention(channels, levels, depthwise=depthwise)
        self.norm = LevelBatchNorm2d(channels, levels)

    def forward(self, x: Tensor, start: int, level: int, *, probe: bool = False) -> Tensor:
        """Map [B, C - start, H, W] to the same shape (see the base class)."""
        out, _ = self._observed(x, start, level, probe=probe)
        return out

    def _observed(
        self, x: Tensor, start: int, level: int, *, probe: bool = False
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the output, and the statistics and scores it rests on."""
        statistics = gaussian_statistics(x)
        scores = self.attention.scores(statistics, start)
        attended = x * self.attention.factors(scores, start, level, probe=probe)
        return self.norm(attended, start, level, probe=probe), (statistics.detach(), scores.detach())

    def probed(self, rest: Tensor | None, x: Tensor, beside: Neighbours) -> tuple[Tensor | None, Contrasts]:
        """See the base class. All images count, since in training they share the batch statistics."""
        if rest is None:
            out, seen = None, (x.new_empty(len(x), 0, 1, 2), x.new_empty(len(x), 0, 1, 1))
        else:
            out, seen = self._observed(rest, beside.start, beside.level)
        with torch.no_grad():
            return out, self._contrasts(x, *seen, beside)

    def _contrasts(self, x: Tensor, statistics: Tensor, scores: Tensor, beside: Neighbours) -> Contrasts:
        level, start, below, above, _ = beside
        pixels = x.shape[2] * x.shape[3]
        present = self._affine(statistics, scores, start, level, pixels)
        removal = growth = None
        # Scores of another level: those of the present one, and what the channels add that come or go.
        if below is not None:
            coming = slice(below, start)
            added = gaussian_statistics(x[:, coming])
            every = torch.cat((added, statistics), dim=1)
            rows = [self.attention.share(every, coming, slice(below, None))]
            if start < x.shape[1]:
                rows.append(scores + self.attention.share(added, slice(start, None), coming))
            scale, shift = self._affine(every, torch.cat(rows, dim=1), below, level - 1, pixels)
            scale[:, start - below :] -= present[0]
            shift[start - below :] -= present[1]
            removal = Contrast(below, scale, shift)
        if above is not None:
            scale, shift = -present[0], -present[1]
            if above < x.shape[1]:
                going = above - start
                fewer = self.attention.share(statistics[:, :going], slice(above, None), slice(start, above))
                theirs = self._affine(statistics[:, going:], scores[:, going:] - fewer, above, level + 1, pixels)
                scale[:, going:] += theirs[0]
                shift[going:] += theirs[1]
            growth = Contrast(start, scale, shift)
        return removal, growth

    def _affine(
        self, statistics: Tensor, scores: Tensor, start: int, level: int, pixels: int
    ) -> tuple[Tensor, Tensor]:
        """Return scale [B, C - start] and shift [C - start] that make the input the output of a probe at ``level``.

        The moments of a product of maps and factors follow from those of each map.
        """
        if not scores.shape[1]:
            return statistics.new_empty(len(scores), 0), statistics.new_empty(0)
        factors = self.attention.factors(scores, start, level, probe=True).flatten(1)
        mean, deviation = statistics.to(accumulator(statistics)).squeeze(2).unbind(-1)
        variance = deviation.square() * ((pixels - 1) / pixels)
        means = factors * mean
        center = means.mean(0)
        total_variance = (factors.square() * variance + (means - center).square()).mean(0)
        scale, shift = self.norm.affine(center, total_variance, start, level)
        return factors * scale, shift

    def state_at(self, start: int, level: int) -> dict[str, Tensor]:
        """Return the state of the fixed module that does the same at ``level``."""
        inner, outer = self.attention.norm.state_at(start, level), self.norm.state_at(start, level)
        return {
            "attention.conv.weight": self.attention.weight_from(start),
            **{f"attention.norm.{key}": value for key, value in inner.items()},
            **{f"norm.{key}": value for key, value in outer.items()},
        }


class SearchableSelfAttention(SearchableRest):
    """Layer normalisation and self-attention with relative positions (PAT_sf) on any suffix of the channels.

    Channel c belongs to head c mod ``num_heads`` whatever the split is; the fixed module keeps the channels of a head
    together instead, so its rows of ``qkv`` and columns of ``proj`` are permuted. The queries' scale follows the
    channels per head and so depends on the level.

    Args:
        channels: Width C, which the heads divide.
        num_heads: Heads, all of them active at every level.
        attn_drop: Dropout on the attention and on the output while training.
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
        tokens = F.layer_norm(
            x.flatten(2).transpose(1, 2), (channels,), self.norm.weight[start:], self.norm.bias[start:], self.norm.eps
        )
        query, key, value = (
            F.linear(tokens, self._qkv_weight(start).reshape(3 * channels, channels))
            .reshape(batch, height * width, 3, channels // self.num_heads, self.num_heads)
            .permute(2, 0, 4, 1, 3)
        )
        bias = self.position(height, width)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.unsqueeze(0), dropout_p=drop)
        out = out.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        out = F.linear(out, self.proj.weight[start:, start:], self.proj.bias[start:])
        out = F.dropout(out, drop, training=drop > 0)
        return out.transpose(1, 2).reshape(batch, channels, height, width)

    def probed(self, rest: Tensor | None, x: Tensor, beside: Neighbours) -> tuple[Tensor | None, Contrasts]:
        """See the base class. The first images stand for all."""
        out = None if rest is None else self(rest, beside.start, beside.level)
        return out, self._whole_contrasts(out, x[: beside.images], beside)

    def _qkv_weight(self, start: int) -> Tensor:
        return self.qkv.weight.view(3, self.channels, self.channels)[:, start:, start:]

    def state_at(self, start: int, level: int) -> dict[str, Tensor]:
        """Return the state of the fixed module that does the same at ``level``."""
        del level
        left = self.channels - start
        heads_first = torch.arange(left, device=self.qkv.weight.device).view(-1, self.num_heads).t().flatten()
        return {
            "norm.weight": self.norm.weight[start:],
            "norm.bias": self.norm.bias[start:],
            "qkv.weight": self._qkv_weight(start)[:, heads_first].reshape(3 * left, left),
            "position.table": self.position.table,
            "proj.weight": self.proj.weight[start:, start:][:, heads_first],
            "proj.bias": self.proj.bias[start:],
        }


class SearchableSqueezeExcitation(SearchableRest):
    """SE and batch normalisation on any suffix of the channels; the last units of the bottleneck serve it.

    Args:
        channels: Width C.
        levels: How many levels there are.
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

    def probed(self, rest: Tensor | None, x: Tensor, beside: Neighbours) -> tuple[Tensor | None, Contrasts]:
        """See the base class. All images count, since in training they share the batch statistics."""
        out = None if rest is None else self(rest, beside.start, beside.level)
        return out, self._whole_contrasts(out, x, beside)

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
        """Return the state of the fixed module that does the same at ``level``."""
        attention = {f"attention.{key}": value for key, value in self._parts(start).items()}
        return attention | {f"norm.{key}": value for key, value in self.norm.state_at(start, level).items()}


def make_searchable_rest(
    rest: str, channels: int, levels: int, *, num_heads: int = 4, attn_drop: float = 0.1
) -> SearchableRest:
    """Return the module that serves what the convolution leaves of ``channels`` channels, at any level."""
    if rest == "identity":
        return SearchableRest()
    if rest == "self_attention":
        return SearchableSelfAttention(channels, num_heads, attn_drop=attn_drop)
    if rest == "se_attention":
        return SearchableSqueezeExcitation(channels, levels)
    return SearchableChannelAttention(channels, levels, depthwise=rest == "srm_attention")
