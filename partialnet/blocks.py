"""The blocks of a network of this package's family as plain rows, from its architecture. Loads no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from partialnet.architecture import Architecture


@dataclass(frozen=True)
class BlockChoices:
    """Choices of blocks beside their splits.

    Args:
        hidden_channels: Hidden width by name of the MLP, where it differs from the usual one.
        absent_blocks: Names of the blocks that are left out, in alphabetical order.
        kernel_sizes: Kernel size by name of the partial convolution, where it differs from the usual one.
        attended_channels: Number of attended channels by name of the partial convolution, where some are left out.
    """

    hidden_channels: Mapping[str, int] = field(default_factory=dict)
    absent_blocks: tuple[str, ...] = ()
    kernel_sizes: Mapping[str, int] = field(default_factory=dict)
    attended_channels: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, architecture: Architecture) -> BlockChoices:
        """Return those of an architecture."""
        return cls(
            dict(architecture.hidden_channels),
            tuple(architecture.absent_blocks),
            dict(architecture.kernel_sizes),
            dict(architecture.attended_channels),
        )

    def is_absent(self, layer: str) -> bool:
        """Return whether the layer with this module name is in an absent block."""
        return any(layer.startswith(f"{block}.") for block in self.absent_blocks)

    def to_json(self) -> str | None:
        """Return the canonical JSON text; None for the blocks as published."""
        if self == AS_PUBLISHED:
            return None
        data = asdict(self)
        # Without the newer keys the text is as before there were any.
        known = {key: value for key, value in data.items() if value or key in ("hidden_channels", "absent_blocks")}
        return json.dumps(known, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None) -> BlockChoices:
        """Return the choices that :meth:`to_json` wrote."""
        if text is None:
            return AS_PUBLISHED
        data = json.loads(text)
        return cls(**{**data, "absent_blocks": tuple(data["absent_blocks"])})


AS_PUBLISHED = BlockChoices()
"""All blocks, with their usual MLPs."""

_NEEDED = ("depths", "embed_dim", "mlp_ratio")


@dataclass(frozen=True)
class BlockRow:
    """A block of a network.

    Args:
        name: Module name.
        index: Zero-based index among all blocks, in forward order.
        stage: Zero-based stage.
        block: Zero-based block within the stage.
        present: Whether the block is there.
        channels: Width C.
        active_channels: Convolved channels; None without a partial convolution, or if the block is absent.
        hidden_channels: Hidden width of the MLP; None if the block is absent.
        kernel_size: Kernel size of the partial convolution; None without one, or if the block is absent.
        attended_channels: Channels that its attention serves, if it leaves some out.
    """

    name: str
    index: int
    stage: int
    block: int
    present: bool
    channels: int
    active_channels: int | None
    hidden_channels: int | None
    kernel_size: int | None = None
    attended_channels: int | None = None


def block_names(depths: Sequence[int]) -> list[str]:
    """Return the module names of the blocks, in forward order."""
    return [f"stages.{i}.blocks.{j}" for i, depth in enumerate(depths) for j in range(depth)]


def block_rows(architecture: Architecture) -> list[BlockRow]:
    """Return the blocks of a network in forward order; none for another family, or if the options do not say them."""
    options = architecture.options
    if architecture.conversion is not None or any(key not in options for key in _NEEDED):
        return []
    rows = []
    for index, name in enumerate(block_names(options["depths"])):
        _, stage, _, block = name.split(".")
        width = options["embed_dim"] * 2 ** int(stage)
        present = name not in architecture.absent_blocks
        hidden = architecture.hidden_channels.get(f"{name}.mlp", round(width * options["mlp_ratio"]))
        active = architecture.active_channels.get(f"{name}.mixer")
        kernel = architecture.kernel_sizes.get(f"{name}.mixer", options.get("kernel_size"))
        rows.append(
            BlockRow(
                name, index, int(stage), int(block), present, width, active, hidden if present else None,
                None if active is None else kernel, architecture.attended_channels.get(f"{name}.mixer"),
            )
        )  # fmt: skip
    return rows
