"""The kinds of choices that a search can make in a network. Loads no torch."""

from __future__ import annotations

from typing import Literal, get_args

Kind = Literal["split", "attention", "kernel", "mlp_ratio", "depth"]
"""Split, attended channels and kernel size of a partial convolution, hidden width of an MLP, presence of a block."""

KINDS: tuple[Kind, ...] = get_args(Kind)
