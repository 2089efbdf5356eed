"""How a module declares which of its children the inference form may fold together (see ``partialnet.fuse``).

A module that has something to fold defines ``foldings() -> list[Folding]``. Names are paths below the module. Only what
is exact may be declared: the module knows the order in which its children run, and child order alone does not tell it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn


@dataclass(frozen=True)
class NormAfter:
    """A batch normalisation that acts on all outputs of a convolution, and on nothing else.

    Args:
        conv: Path of the convolution.
        norm: Path of the normalisation that follows it.
    """

    conv: str
    norm: str


@dataclass(frozen=True)
class NormBefore:
    """A normalisation whose output goes nowhere but into a pointwise convolution or a linear layer.

    A batch normalisation is folded entirely, of a layer normalisation scale and shift are.

    Args:
        norm: Path of the normalisation.
        conv: Path of the layer that follows; without padding, or the shift would not fold exactly at the border.
        start: First input channel of that layer that comes from the normalisation.
    """

    norm: str
    conv: str
    start: int = 0


@dataclass(frozen=True)
class Absorb:
    """A module whose first operations are linear, so that the pointwise convolution before it can do them.

    Args:
        conv: Path of the convolution, whose output goes nowhere but into ``module``.
        module: Path of an :class:`Absorbable` module.
        join: Path of the :class:`~partialnet.layers.spatial_attention.Shortcut` that alone sees the output of
            ``module``, in eval mode; what is left of ``module`` takes its place if it can add. None if there is none.
    """

    conv: str
    module: str
    join: str | None = None


@dataclass(frozen=True)
class ReluAfter:
    """A rectifier that acts on all outputs of a pointwise convolution, and on nothing else.

    Args:
        conv: Path of the convolution.
        act: Path of the activation that follows it; other activations than a rectifier stay.
    """

    conv: str
    act: str


Folding = ReluAfter | NormAfter | NormBefore | Absorb


@runtime_checkable
class Absorbable(Protocol):
    """A module that can hand its leading linear operations to the convolution before it."""

    def absorbed_by(self, conv: nn.Conv2d) -> tuple[nn.Conv2d, nn.Module]:
        """Return the convolution that does both, and what is left to do after it; both in eval mode, both new."""


@runtime_checkable
class Foldable(Protocol):
    """A module that declares what may be folded in it."""

    def foldings(self) -> list[Folding]:
        """Return the foldings, to be carried out in this order."""
