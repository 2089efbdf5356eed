"""The MLP of a block with a learned hidden width: the first h of the hidden channels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partialnet.errors import ArchitectureError
from partialnet.kinds import Kind
from partialnet.layers.choice import GROWTH, REMOVAL, Choice, PartValue
from partialnet.layers.mlp import Mlp


class PrefixBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation of the first channels of a map, with the state of a plain one.

    Levels share the statistics of a channel: a hidden channel does not depend on how many others there are. Those of
    other splits and blocks do differ, as for each plain normalisation; the last phase of a search renews them.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, n, H, W] by the parameters of the first n channels."""
        return self.between(x, 0)

    def between(self, x: Tensor, start: int, *, probe: bool = False) -> Tensor:
        """Normalise the channels from ``start`` on; a ``probe`` leaves the running statistics unchanged."""
        part = slice(start, start + x.shape[1])
        weight, bias = self.weight[part], self.bias[part]
        if self.training and probe:
            return F.batch_norm(x, None, None, weight, bias, True, 0.0, self.eps)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        mean, var = self.running_mean[part], self.running_var[part]
        return F.batch_norm(x, mean, var, weight, bias, self.training, self.momentum, self.eps)

    def _check_input_dim(self, input: Tensor) -> None:
        del input  # fewer channels are the purpose


class SearchableMlp(Choice):
    """An MLP that uses the first h of its hidden channels, and learns h.

    Args:
        channels: Width C of input and output.
        levels: Hidden widths to choose from, ascending.
        act_layer: Class of the activation.
        spatial: Module after the second convolution.
        hidden_channels: First hidden width; None for the largest.

    Attributes:
        fc1: Convolution to the largest hidden width; the first h outputs are used.
        norm: Normalisation of the first h hidden channels.
        fc2: Convolution from the largest hidden width; the first h inputs are used.

    Raises:
        ArchitectureError: If the levels are not at least two ascending widths, or do not have ``hidden_channels``.
    """

    kind: ClassVar[Kind] = "mlp_ratio"
    quantity: ClassVar[str] = "hidden_channels"

    def __init__(
        self,
        channels: int,
        levels: Sequence[int],
        act_layer: type[nn.Module],
        spatial: nn.Module,
        hidden_channels: int | None = None,
    ) -> None:
        super().__init__()
        levels = tuple(levels)
        if len(levels) < 2 or levels[0] < 1 or list(levels) != sorted(set(levels)):
            raise ArchitectureError(f"hidden widths are {list(levels)}, but must be several, positive and ascending")
        self.channels = channels
        self._offer(levels)
        self.fc1 = nn.Conv2d(channels, levels[-1], 1, bias=False)
        self.norm = PrefixBatchNorm2d(levels[-1])
        self.act = act_layer()
        self.fc2 = nn.Conv2d(levels[-1], channels, 1, bias=False)
        self.spatial = spatial
        self.choose(levels[-1] if hidden_channels is None else hidden_channels)

    @property
    def hidden_channels(self) -> int:
        """Hidden width at the present level."""
        return self.chosen

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        level, pair = self.level, self._pair()
        h = self.levels[level]
        hidden: Tensor = self.act(self.norm(F.conv2d(x, self.fc1.weight[:h])))
        below, above = (None, None) if pair is None else (self._below(level), self._above(level))
        if below is not None:
            hidden = PartValue.apply(hidden, hidden[:, below:].detach(), below, pair, REMOVAL)
        out = F.conv2d(hidden, self.fc2.weight[:, :h])
        if above is not None:
            out = PartValue.apply(out, self._ring(x, h, above), 0, pair, GROWTH)
        found: Tensor = self.spatial(out)
        return found

    @torch.no_grad()
    def _ring(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Return what the hidden channels from ``start`` to ``stop`` would add to the first images."""
        part = F.conv2d(x[: self._images(len(x))], self.fc1.weight[start:stop])
        return F.conv2d(self.act(self.norm.between(part, start, probe=True)), self.fc2.weight[:, start:stop])

    def fixed(self) -> Mlp:
        """Return the plain MLP of the present hidden width, with a copy of its weights."""
        h = self.hidden_channels
        with torch.device("meta"):
            plain = Mlp(self.channels, h, nn.Identity, nn.Identity())
        plain.act, plain.spatial = copy.deepcopy(self.act), copy.deepcopy(self.spatial)
        state = {"fc1.weight": self.fc1.weight[:h], "fc2.weight": self.fc2.weight[:, :h]}
        for key, value in self.norm.state_dict(keep_vars=True).items():
            state[f"norm.{key}"] = value[:h] if value.dim() else value
        state |= {f"spatial.{key}": value for key, value in plain.spatial.state_dict(keep_vars=True).items()}
        copies = {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in state.items()}
        plain.load_state_dict(copies, strict=True, assign=True)
        return plain.train(self.training)

    def extra_repr(self) -> str:
        """Return the text for ``repr``."""
        return f"{self.channels}, levels={self.levels}"
