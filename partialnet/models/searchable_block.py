"""A block of PartialNet that a search may leave out."""

from __future__ import annotations

from torch import nn

from partialnet.layers.droppable import PRESENCE, Droppable
from partialnet.models.block import Block


class SearchableBlock(Droppable, Block):
    """A :class:`Block` whose presence is learned; the names of its parts are the same.

    Args:
        mixer: Spatial mixing.
        attention: Attention over all channels; None without it.
        mlp: Mixing of channels.
        drop_path: Rate of stochastic depth.
        mixer_shortcut: Whether the mixer has a shortcut of its own.
        channels: Width C of input and output.
        present: Whether the block is there at first.
    """

    def __init__(
        self,
        mixer: nn.Module,
        attention: nn.Module | None,
        mlp: nn.Module,
        drop_path: float,
        mixer_shortcut: bool,
        *,
        channels: int,
        present: bool = True,
    ) -> None:
        Block.__init__(self, mixer, attention, mlp, drop_path, mixer_shortcut)
        self.channels = channels
        self._offer(PRESENCE)
        self.choose(int(present))

    def plain(self) -> Block:
        """Return the block that is always there, with the same parts."""
        block = Block(self.mixer, self.attention, self.mlp, 0.0, self.mixer_shortcut)
        block.drop_path, block.join = self.drop_path, self.join
        return block.train(self.training)
