"""Partial convolution with a learned split (DPConv): full-width weights, and gates that decide how many are used.

The forward computes only the active block and is the same function in training and evaluation. The task gradient of
the gates is that of the layer's multilinear form: y(g) is linear in each single gate, so the derivative with respect
to a gate is the difference of the outputs with the gate on and off. With gates in canonical order the output depends
only on their sum, and two differences serve all gates:

* growth   D+ = <G, y(2n) - y(n)>, for gates that are 0;
* removal  D- = <G, y(n) - y(n/2)>, for gates that are 1;

with G = dL/dy (``partialnet.layers.dpconv_probe`` computes them). The straight-through factor is 1/2 within [-1, 1].

It supports:

* ``torch.compile``: no graph breaks while the level is set (:meth:`DPConv2d.set_level`; otherwise it must read the
  gates). A level is part of the compiled code, so a new level is compiled separately.
* Activation checkpointing, of both kinds, if the level stays the same until the backward. As with any batch
  normalisation, running statistics see the batch twice, unless our networks checkpoint (``set_grad_checkpointing``).
* ``DistributedDataParallel``: with ``find_unused_parameters=True``, since levels and probes decide which parameters a
  step uses; all processes set the same levels. Gradients of gates are averaged like any others.
* Mixed precision: D+ and D- are summed in float32. A gradient scaler scales them like any gradient; a search unscales
  them.

Sources: DPConv, PartialNet (arXiv 2502.01303), corrected; DGConv (arXiv 1908.05867).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partialnet.errors import ArchitectureError
from partialnet.kinds import Kind
from partialnet.layers.attended import AttendedChannels
from partialnet.layers.block import block, compute_type
from partialnet.layers.choice import GROWTH, REMOVAL, Choice, PartValue
from partialnet.layers.dpconv_probe import Contrast, Plan, ProbedConvolution, wide
from partialnet.layers.gates import split_levels
from partialnet.layers.kernel_size import KernelSize, centre
from partialnet.layers.levels import nearest_level
from partialnet.layers.partial_conv import PartialConv2d, RestKind, check_partial_conv
from partialnet.layers.searchable_rest import Neighbours, make_searchable_rest
from partialnet.layers.three_parts import ThreePartConv2d


class DPConv2d(Choice):
    """Convolve the first n channels, serve the rest otherwise, and learn n.

    At rest n is a function of the parameter ``gates`` alone; see :class:`~partialnet.layers.choice.Choice`.

    Args:
        channels: Width C of input and output.
        kernel_size: Odd size of the kernel; zero padding keeps the map's size, without bias.
        kernel_sizes: Kernel sizes to choose from, of which ``kernel_size`` is the first choice; None for it alone.
        rest: Operation on channels n to C - 1, see :class:`~partialnet.layers.partial_conv.PartialConv2d`.
        num_heads: Number of heads of the self-attention; it divides both parts of each level.
        min_channels: Lower bound of the levels; None for the odd part of the width.
        max_channels: Upper bound of the levels that a search may choose; None for the width. The layer has the higher
            levels too, and its costs refer to them.
        attn_drop: Dropout of the self-attention in training.
        active_channels: First level; None for the one closest to a quarter of the width.
        level_step: Step between the levels; None for halvings of the width.
        parts: Number of parts of the width: 2, or 3 to learn also how many of the other channels the rest serves; those
            between pass as they are.
        attended_channels: First number of channels that the rest serves, if there are three parts; None for all.

    Attributes:
        levels: Legal numbers of active channels, ascending.
        gates: Numbers, one for each level above the lowest; at least 0 counts as 1.
        conv: Full-width convolution; the first n inputs and outputs are used, and the centre of its kernel.
        kernel: Choice of the kernel size; None if there is one alone.
        attended: Choice of the attended channels; None if there are two parts.
        rest: Full-width module for the rest; its suffix is used.

    Raises:
        ArchitectureError: If the width cannot be split, or an argument is out of its range.
    """

    kind: ClassVar[Kind] = "split"
    quantity: ClassVar[str] = "active_channels"

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        *,
        rest: RestKind = "identity",
        num_heads: int = 4,
        min_channels: int | None = None,
        max_channels: int | None = None,
        attn_drop: float = 0.1,
        active_channels: int | None = None,
        kernel_sizes: Sequence[int] | None = None,
        level_step: int | None = None,
        parts: int = 2,
        attended_channels: int | None = None,
    ) -> None:
        super().__init__()
        check_partial_conv(channels, kernel_size, rest, num_heads)
        self.channels = channels
        self.kernel = None if kernel_sizes is None else KernelSize(channels, kernel_sizes, kernel_size)
        largest = kernel_size if self.kernel is None else self.kernel.levels[-1]
        self.rest_kind = rest
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        levels = split_levels(
            channels, rest=rest, num_heads=num_heads, min_channels=min_channels, level_step=level_step
        )
        self._offer(levels)
        if parts not in (2, 3) or (parts == 3 and rest == "identity"):
            raise ArchitectureError(f"parts is {parts}, but must be 2, or 3 with a rest that is not the identity")
        self.attended = AttendedChannels(channels, self.levels, attended_channels) if parts == 3 else None
        if max_channels is not None and max_channels < self.levels[0]:
            raise ArchitectureError(f"max_channels is {max_channels}, below the lowest level {self.levels[0]}")
        self.max_channels = channels if max_channels is None else max_channels
        self.conv = nn.Conv2d(channels, channels, largest, padding=largest // 2, bias=False)
        self.rest = make_searchable_rest(rest, channels, len(self.levels), num_heads=num_heads, attn_drop=attn_drop)
        quarter = nearest_level(self.levels, channels, 1 / 4)
        self.set_active_channels(quarter if active_channels is None else active_channels)

    @property
    def active_channels(self) -> int:
        """Number of convolved channels."""
        return self.chosen

    @property
    def kernel_size(self) -> int:
        """Present size of the kernel."""
        size: int = self.conv.kernel_size[0] if self.kernel is None else self.kernel.chosen
        return size

    @property
    def attended_channels(self) -> int:
        """Number of channels that the rest serves."""
        return self.channels - self._start(self.active_channels)

    def set_active_channels(self, active_channels: int) -> None:
        """Move the gates to the legal vector of ``active_channels``, and let them decide.

        Raises:
            ArchitectureError: If it is not a level; the message lists the levels.
        """
        self.choose(active_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        level = self.level
        pair = self._pair()
        out = self._at_level(x, level) if pair is None else self._probed(x, level, pair)
        n = self.levels[level]
        if self.kernel is not None and (border := self.kernel._pair()) is not None:
            out = self.kernel.probed(out, x[:, :n], self.conv.weight[:n, :n], border)
        if self.attended is not None and (reach := self.attended._pair()) is not None:
            out = self._attention_probed(out, x.detach(), n, reach)
        return out

    def at_level(self, x: Tensor, level: int) -> Tensor:
        """Return the output at ``level`` without side effects: batch statistics stay, and nothing is dropped out."""
        return self._at_level(x, level, probe=True)

    def _at_level(self, x: Tensor, level: int, *, probe: bool = False) -> Tensor:
        n = self.levels[level]
        active, rest = self._split(x, n)
        weight = self._weight()
        kernel = block(weight, 0, n, dtype=compute_type(weight))
        convolved = F.conv2d(active, kernel, padding=self.kernel_size // 2)
        if rest is None:
            return convolved
        if self.attended is None:
            return torch.cat((convolved, self.rest(rest, n, level, probe=probe)), dim=1)
        return torch.cat((convolved, self._others(x, n, self._start(n), probe=probe)), dim=1)

    def _start(self, active_channels: int) -> int:
        """Return the first attended channel beside ``active_channels``; the width if there is none."""
        return active_channels if self.attended is None else self.attended.start(active_channels)

    def _others(self, x: Tensor, n: int, start: int, *, probe: bool = False) -> Tensor:
        """Return the channels from ``n`` on: as they are up to ``start``, attended to from there on."""
        if start == self.channels:
            return x[:, n:]
        rest = self.rest(x[:, start:], start, self.levels.index(start), probe=probe)
        return torch.cat((x[:, n:start], rest), dim=1) if start > n else rest

    def _probed(self, x: Tensor, level: int, pair: Tensor) -> Tensor:
        n, beside = self.levels[level], self._neighbours(level, len(x))
        active, rest = self._split(x, n)
        detached, contrast = x.detach(), Contrast(n, n)
        if self.attended is not None:
            rest = None if rest is None else self._others(x, n, self._start(n))
            if len(beside.starts) > 1:
                contrast = self._contrast(detached, beside.starts)
        elif len(beside.starts) > 1:
            rest, contrast = self.rest.probed(rest, detached, beside)
        elif rest is not None:
            rest = self.rest(rest, n, level)
        plan = Plan(n, beside.below, beside.above, beside.images, self.kernel_size // 2, compute_type(active))
        out: Tensor = ProbedConvolution.apply(active, rest, self._weight(), pair, detached, *contrast, plan)
        return out

    def _weight(self) -> Tensor:
        """Return the full-width kernel of the present size."""
        return centre(self.conv.weight, self.kernel_size)

    @torch.no_grad()
    def _contrast(self, x: Tensor, starts: Sequence[int]) -> Contrast:
        """Return the differences between the other channels at successive splits, from whole evaluations."""
        first = starts[0]
        whole = []
        for n in starts:
            others = self._others(x, n, self._start(n), probe=True) if n < self.channels else x[:, n:]
            whole.append(F.pad(wide(others), (0, 0, 0, 0, n - first, 0)))
        return Contrast(first, self.channels, maps=torch.stack(whole).diff(dim=0))

    def _attention_probed(self, out: Tensor, x: Tensor, n: int, pair: Tensor) -> Tensor:
        """Return an output unchanged, whose backward gives D- and D+ of the attended channels to ``pair``."""
        attended = self.attended
        assert attended is not None
        level, present = attended.level, self._start(n)
        for wanted, side, place in ((attended.probe_removal, -1, REMOVAL), (attended.probe_growth, 1, GROWTH)):
            other = level + side
            if not wanted or not 0 <= other < len(attended.levels):
                continue
            start = attended.start(n, other)
            if start != present:
                with torch.no_grad():
                    found = side * (self._others(x, n, start, probe=True) - self._others(x, n, present, probe=True))
                out = PartValue.apply(out, found, n, pair, place)
        return out

    def _neighbours(self, level: int, batch: int) -> Neighbours:
        return Neighbours(level, self.levels[level], self._below(level), self._above(level), self._images(batch))

    def _split(self, x: Tensor, n: int) -> tuple[Tensor, Tensor | None]:
        # One operation, so that autograd joins the two gradients instead of adding them up.
        if n == self.channels:
            return x, None
        active, rest = torch.split(x, [n, self.channels - n], dim=1)
        return active, rest

    def fixed(self) -> PartialConv2d:
        """Return the plain layer with the present split and a copy of its weights."""
        n = self.active_channels
        start = self._start(n)
        common: dict[str, Any] = {"rest": self.rest_kind, "num_heads": self.num_heads, "attn_drop": self.attn_drop}
        with torch.device("meta"):
            if start == n:
                layer = PartialConv2d(self.channels, n, self.kernel_size, **common)
            else:
                layer = ThreePartConv2d(self.channels, n, self.channels - start, self.kernel_size, **common)
        state: dict[str, Tensor] = {"conv.weight": self._weight()[:n, :n]}
        if start < self.channels:
            found = self.rest.state_at(start, self.levels.index(start))
            state |= {f"rest.{key}": value for key, value in found.items()}
        copies = {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in state.items()}
        layer.load_state_dict(copies, strict=True, assign=True)
        return layer.train(self.training)

    def extra_repr(self) -> str:
        """Return the text for ``repr``."""
        kernels = "" if self.kernel is None else f", kernels={self.kernel.levels}"
        kernels += "" if self.attended is None else ", parts=3"
        return f"{self.channels}, levels={self.levels}, rest={self.rest_kind!r}{kernels}"


def dpconv_layers(model: nn.Module) -> Mapping[str, DPConv2d]:
    """Return the layers of ``model`` with a learned split, by module name.

    Raises:
        ArchitectureError: If there is none.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, DPConv2d)}
    if not layers:
        raise ArchitectureError(f"{type(model).__name__} contains no DPConv2d layer, so there is no split to learn")
    return layers
