"""A residual block that may be left out: its presence is learned."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from partialnet.kinds import Kind
from partialnet.layers.choice import GROWTH, REMOVAL, Choice, PartValue
from partialnet.layers.norms import batch_norms, statistics_kept

PRESENCE = (0, 1)
"""Levels of a block: absent, present."""


class Droppable(Choice):
    """A block that is the identity when it is absent; a subclass also inherits from the block, which it stands for.

    The value of the block's presence is the inner product of the output's gradient with what the block adds.
    """

    kind: ClassVar[Kind] = "depth"
    quantity: ClassVar[str] = "presence"

    @property
    def present(self) -> bool:
        """Whether the block is there."""
        return bool(self.chosen)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        pair = self._pair()
        if not self.present:
            return x if pair is None or not self.probe_growth else self._grown(x, pair)
        out: Tensor = super().forward(x)
        if pair is not None and self.probe_removal:
            out = PartValue.apply(out, (out - x).detach(), 0, pair, REMOVAL)
        return out

    def _grown(self, x: Tensor, pair: Tensor) -> Tensor:
        images = x[: self._images(len(x))]
        with torch.no_grad(), statistics_kept(batch_norms(self.modules())):
            added = super().forward(images) - images
        out: Tensor = PartValue.apply(x, added, 0, pair, GROWTH)
        return out

    def fixed(self) -> nn.Module:
        """Return the plain block with its parts as they are, or the identity if it is absent."""
        return self.plain() if self.present else nn.Identity()

    @abstractmethod
    def plain(self) -> nn.Module:
        """Return the block that is always there, with the same parts."""
