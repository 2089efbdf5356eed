"""How many channels the attention beside a partial convolution serves, as a choice; the others pass as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NoReturn

from partialnet.errors import ArchitectureError
from partialnet.kinds import Kind
from partialnet.layers.choice import Choice


class AttendedChannels(Choice):
    """The number of channels at the end of a layer's width that its attention serves; convolved ones are never among
    them.

    Args:
        channels: Width C of the layer.
        starts: First attended channel at each level of the split, ascending; the width means none.
        attended_channels: First choice; None for all that are not convolved.
    """

    kind: ClassVar[Kind] = "attention"
    quantity: ClassVar[str] = "attended_channels"
    stands_alone: ClassVar[bool] = False

    def __init__(self, channels: int, starts: Sequence[int], attended_channels: int | None = None) -> None:
        super().__init__()
        self.channels = channels
        self._offer(tuple(sorted(channels - start for start in starts)))
        self.choose(self.levels[-1] if attended_channels is None else attended_channels)

    def start(self, active_channels: int, level: int | None = None) -> int:
        """Return the first attended channel beside ``active_channels`` convolved ones; the width if there is none.

        Args:
            active_channels: Number of convolved channels.
            level: Level of the choice; None for the present one.
        """
        attended = self.chosen if level is None else self.levels[level]
        return max(active_channels, self.channels - attended)

    def fixed(self) -> NoReturn:
        """Refuse: the fixed form is that of the layer around it."""
        raise ArchitectureError("a number of attended channels alone has no fixed form")
