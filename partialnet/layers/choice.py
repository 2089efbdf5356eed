"""What a search may choose in a module: levels in ascending order, gates that hold the choice, and probes of its value.

The kinds of choice: the split of a partial convolution (``DPConv2d``) and its kernel size (``KernelSize``), the hidden
width of an MLP (``SearchableMlp``), and whether a residual block is there (``Droppable``). Each level contains the next
lower one, so weights are shared.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from partialnet.errors import ArchitectureError
from partialnet.kinds import Kind
from partialnet.layers.dpconv_probe import GatePair, wide
from partialnet.layers.gates import check_level, gate_level, legal_gates


class Choice(nn.Module):
    """A module with several levels, of which a search chooses one.

    At rest the level is a function of the parameter ``gates`` alone. During training, a search sets an explicit level
    before the forward (:meth:`set_level`), so that a recomputation under checkpointing uses the same one.

    Attributes:
        channels: Width C of input and output.
        kind: Kind of the choice.
        quantity: Word for the values of the levels in messages.
        stands_alone: Whether it is called like a layer, and has a fixed form; otherwise it belongs to the choice around
            it.
        levels: Values to choose from, ascending.
        gates: Numbers, one for each level above the lowest; at least 0 counts as 1.
        probing: Whether a training forward lets the task's gradient reach the gates; a search sets it.
        probe_growth: Whether probing includes D+; otherwise D+ is 0 and costs nothing.
        probe_removal: Whether probing includes D-.
        probe_fraction: Share of the batch, in (0, 1], whose first images estimate growth. The estimate is unbiased if
            the order of images is random.
    """

    kind: ClassVar[Kind]
    quantity: ClassVar[str]
    stands_alone: ClassVar[bool] = True

    channels: int
    levels: tuple[int, ...]
    gates: nn.Parameter

    def _offer(self, levels: tuple[int, ...]) -> None:
        """Set the levels; a constructor calls it once, and then :meth:`choose`."""
        self.levels = levels
        self.gates = nn.Parameter(torch.empty(len(levels) - 1))
        self.probing = False
        self.probe_growth = True
        self.probe_removal = True
        self.probe_fraction = 1.0
        self._probe_target: Tensor | None = None
        self._level: int | None = None

    @property
    def level(self) -> int:
        """Index of the choice among ``levels``: the set one, or that of the gates.

        Raises:
            ArchitectureError: If a gate is not a number.
        """
        return gate_level(self.gates) if self._level is None else self._level

    @property
    def chosen(self) -> int:
        """Value at the present level."""
        return self.levels[self.level]

    def set_level(self, index: int | None) -> None:
        """Use the level ``index`` from now on, regardless of the gates; None gives the choice back to the gates.

        The level is not stored: a state dict holds only the gates.

        Raises:
            ArchitectureError: If there is no such level.
        """
        if index is not None and not 0 <= index < len(self.levels):
            raise ArchitectureError(
                f"level {index} does not exist: {self.quantity} has levels 0 to {len(self.levels) - 1}"
            )
        self._level = index

    @torch.no_grad()
    def choose(self, value: int) -> None:
        """Move the gates to the legal vector of ``value``, and let them decide.

        Raises:
            ArchitectureError: If it is not a level; the message lists the levels.
        """
        level = check_level(self.levels, value, self.quantity)
        if self.gates.is_meta:
            # Gates without values, as in the sketch of a large network, decide nothing.
            self._level = level
            return
        self.gates.copy_(legal_gates(level, len(self.gates)))
        self._level = None

    @property
    def probe_target(self) -> Tensor | None:
        """Tensor of two numbers whose gradient receives (D-, D+) instead of the gates; None, the default, for the
        gates.

        It is neither a parameter nor part of the state, and a copy of the layer has none. Its owner moves it between
        devices and, with several processes, averages its gradient. Its value is never read. It has at least float32,
        whatever the layer's type.

        Raises:
            ArchitectureError: If the new value cannot receive them.
        """
        return self._probe_target

    @probe_target.setter
    def probe_target(self, target: Tensor | None) -> None:
        if target is not None:
            if target.shape != (2,) or target.dtype not in (torch.float32, torch.float64):
                raise ArchitectureError(
                    f"probe_target has shape {tuple(target.shape)} and type {target.dtype}, but must hold two numbers, "
                    "float32 or float64"
                )
            if not target.requires_grad:
                raise ArchitectureError("probe_target must require a gradient, to receive (D-, D+)")
        self._probe_target = target

    @abstractmethod
    def fixed(self) -> nn.Module:
        """Return the plain module with the present choice and a copy of its weights."""

    def _pair(self) -> Tensor | None:
        """Return the tensor that receives (D-, D+); None if nothing needs them."""
        if not self.probing or not torch.is_grad_enabled():
            return None
        if self._probe_target is not None:
            return self._probe_target
        if not self.gates.requires_grad:
            return None
        pair: Tensor = GatePair.apply(self.gates)
        return pair

    def _below(self, level: int) -> int | None:
        """Return the value of the level below, if removal is probed and there is one."""
        return self.levels[level - 1] if self.probe_removal and level > 0 else None

    def _above(self, level: int) -> int | None:
        """Return the value of the level above, if growth is probed and there is one."""
        return self.levels[level + 1] if self.probe_growth and level + 1 < len(self.levels) else None

    def _images(self, batch: int) -> int:
        """Return the number of first images that estimate growth.

        Raises:
            ArchitectureError: If ``probe_fraction`` is out of its range.
        """
        if not 0 < self.probe_fraction <= 1:
            raise ArchitectureError(f"probe_fraction is {self.probe_fraction}, but must be above 0 and at most 1")
        return math.ceil(self.probe_fraction * batch - 1e-6)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_probe_target": None}


def choices_of(model: nn.Module) -> Mapping[str, Choice]:
    """Return the choices of ``model`` by module name, in the order of its modules; a block precedes its parts.

    Raises:
        ArchitectureError: If there is none.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, Choice)}
    if not found:
        raise ArchitectureError(f"{type(model).__name__} contains no DPConv2d layer, so there is no split to learn")
    return found


@contextmanager
def at_levels(levels: Mapping[Choice, int]) -> Iterator[None]:
    """Run choices at given levels inside the block of code."""
    kept = {choice: choice._level for choice in levels}
    try:
        for choice, level in levels.items():
            choice.set_level(level)
        yield
    finally:
        for choice, before in kept.items():
            choice.set_level(before)


def fix_choices(model: nn.Module) -> nn.Module:
    """Replace each choice of ``model`` by its fixed form, in place.

    Returns:
        Network ``model``; its fixed form if it is a choice itself.
    """
    # Parts before the blocks that hold them, so that a block's fixed form receives fixed parts.
    for name, choice in reversed(list(choices_of(model).items())):
        if not name:
            return choice.fixed()
        if not choice.stands_alone:
            continue
        model.set_submodule(name, choice.fixed(), strict=True)
    return model


REMOVAL, GROWTH = 0, 1
"""Places of D- and D+ in a pair."""


class PartValue(torch.autograd.Function):
    """The identity of a map whose backward also yields the first-order value of a part of it: <G, part>.

    The arguments of ``apply`` are the map [B, C, H, W]; the part on the first b images and some successive channels;
    the first of these channels; the pair that receives the value; and the place in the pair.
    """

    @staticmethod
    def forward(ctx: Any, whole: Tensor, part: Tensor, start: int, pair: Tensor, place: int) -> Tensor:
        ctx.save_for_backward(part, pair)
        ctx.place = start, place
        return whole.view_as(whole)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        part, pair = ctx.saved_tensors
        start, place = ctx.place
        images, channels = part.shape[:2]
        value = (wide(gradient[:images, start : start + channels]) * wide(part)).sum() * (len(gradient) / images)
        found = torch.zeros_like(pair)
        found[place] = value.to(pair.dtype)
        return gradient, None, None, found, None
