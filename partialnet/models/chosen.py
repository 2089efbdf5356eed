"""What may differ from block to block of PartialNet: splits, kernel sizes, hidden widths, and whether it is there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from partialnet.blocks import block_names
from partialnet.errors import ArchitectureError
from partialnet.kinds import KINDS, Kind
from partialnet.layers.mlp import Mlp

WIDTHS = (1 / 4, 1 / 2, 3 / 4, 1, 3 / 2)
"""Hidden widths that a search tries, in terms of the usual one: wide enough to spend there what is saved elsewhere."""


def searched_kinds(searchable: bool | Collection[str]) -> tuple[Kind, ...]:
    """Return the kinds of choices that are learned, in a fixed order; True means the split alone.

    Raises:
        ArchitectureError: If a kind is unknown, or a part of a layer is to be learned without its split.
    """
    if isinstance(searchable, bool):
        return ("split",) if searchable else ()
    unknown = sorted(set(searchable) - set(KINDS))
    if isinstance(searchable, str) or unknown:
        found = repr(searchable) if isinstance(searchable, str) else ", ".join(map(repr, unknown))
        raise ArchitectureError(f"searchable has {found}, but must be a list of {', '.join(KINDS)}")
    for kind in ("kernel", "attention"):
        if kind in searchable and "split" not in searchable:
            raise ArchitectureError(
                f"searchable has {kind!r} without 'split', but both belong to one layer; add 'split'"
            )
    return tuple(kind for kind in KINDS if kind in searchable)


def is_present(block: nn.Module) -> bool:
    """Return whether a block is there; an absent one is the identity, or a searchable block that is off."""
    return not isinstance(block, nn.Identity) and bool(getattr(block, "present", True))


def hidden_width(mlp: nn.Module) -> int:
    """Return the present hidden width of an MLP; TorchScript compiles properties, so a plain one has none."""
    width: int = mlp.fc2.in_channels if isinstance(mlp, Mlp) else mlp.hidden_channels  # type: ignore[assignment]
    return width


def hidden_widths(usual: int) -> tuple[int, ...]:
    """Return the hidden widths that a search tries, ascending."""
    return tuple(sorted({max(1, round(usual * share)) for share in WIDTHS}))


@dataclass(frozen=True)
class Chosen:
    """Choices of a network block by block.

    Args:
        active_channels: Number of convolved channels by name of the partial convolution.
        hidden_channels: Hidden width by name of the MLP.
        absent: Names of the blocks that are left out.
        kernel_sizes: Kernel size by name of the partial convolution.
        attended_channels: Number of attended channels by name of the partial convolution.
    """

    active_channels: Mapping[str, int] = field(default_factory=dict)
    hidden_channels: Mapping[str, int] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    kernel_sizes: Mapping[str, int] = field(default_factory=dict)
    attended_channels: Mapping[str, int] = field(default_factory=dict)

    def check(self, depths: Sequence[int]) -> None:
        """Refuse names that the network does not have, and choices of absent blocks.

        Raises:
            ArchitectureError: If there are any; the message gives the known names.
        """
        names = block_names(depths)
        for key, given, part in (
            ("active_channels", self.active_channels, ".mixer"),
            ("hidden_channels", self.hidden_channels, ".mlp"),
            ("kernel_sizes", self.kernel_sizes, ".mixer"),
            ("attended_channels", self.attended_channels, ".mixer"),
            ("absent_blocks", self.absent, ""),
        ):
            if unknown := sorted(set(given) - {name + part for name in names}):
                raise ArchitectureError(
                    f"{key}: unknown layers {', '.join(unknown)}; known: stages.I.blocks.J{part}, from "
                    f"{names[0]}{part} to {names[-1]}{part}, of depths {list(depths)}"
                )
            if part and (gone := sorted(name for name in given if name.removesuffix(part) in self.absent)):
                raise ArchitectureError(f"{key} has {', '.join(gone)}, but absent_blocks leaves these blocks out")
        if len(self.absent) == len(names):
            raise ArchitectureError("absent_blocks names every block, but one must stay")
