"""Probes of the neighbouring levels of a DPConv layer: what one step of growth or removal would do to the loss.

With G = dL/dy, y(n) = cat(conv(x_n; W_n), rest_n(x)) and W_n the n x n block of the kernel,

    D+ = <G, y(2n) - y(n)> = <W_2n, dW_2n>_ring + <G, rest_2n - rest_n>,
    D- = <G, y(n) - y(n/2)> = <W_n, dW_n>_ring + <G, rest_n - rest_n/2>,

where dW_2n is the weight gradient that the 2n x 2n block would have and a ring is what a block has more than the next
smaller one. The convolution is linear in its kernel, so no other forward is needed: the weight gradient is taken on the
grown block instead (4 n^2 for n^2 multiply-adds), its corner is the ordinary one. What the rests differ by is prepared
in the forward (a :class:`Contrast`), so the backward evaluates no module.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from partialnet.layers.block import embed


class Contrast(NamedTuple):
    """What the rests of successive levels differ by: scale * x + shift, or maps, on the channels from ``start`` on.

    The rest of a level is 0 on the channels that the level convolves. There are one or two differences, k: present less
    below, above less present, as far as they are probed.

    Args:
        start: First channel where they differ.
        stop: One past the last.
        scale: [k, B or 1, channels]; None for 0.
        shift: [k, channels]; None for 0.
        maps: [k, b, channels, H, W], of the first b images, which stand for all; None for 0.
    """

    start: int
    stop: int
    scale: Tensor | None = None
    shift: Tensor | None = None
    maps: Tensor | None = None

    def inner(self, gradient: Tensor, x: Tensor) -> Tensor:
        """Return the k inner products with the output's gradient [B, C, H, W], in float32 at least."""
        part = wide(gradient[:, self.start : self.stop])
        if self.maps is not None:
            images = len(self.maps[0])
            return (part[:images] * self.maps).sum((1, 2, 3, 4)) * (len(part) / images)
        assert self.scale is not None
        total = ((part * x[:, self.start : self.stop]).sum((2, 3)) * self.scale).sum((1, 2))
        return total if self.shift is None else torch.addmv(total, self.shift, part.sum((0, 2, 3)))


class Plan(NamedTuple):
    """The numbers of one probed forward.

    Args:
        active: Channels that are convolved, n.
        below: n of the level below; None if removal is not probed.
        above: n of the level above; None if growth is not probed.
        images: How many of the batch estimate growth: the first ones.
        padding: Of the convolution.
        dtype: What the convolution computes in.
    """

    active: int
    below: int | None
    above: int | None
    images: int
    padding: int
    dtype: torch.dtype


class ProbedConvolution(torch.autograd.Function):
    """Convolve the active channels, append the rest, and hand (D-, D+) to a pair of numbers in the backward.

    Arguments of ``apply``: the active channels; the rest's output or None; the full kernel; the pair; the full input,
    detached; the parts of the contrast; the plan.
    """

    @staticmethod
    def forward(
        ctx: Any,
        active: Tensor,
        rest: Tensor | None,
        weight: Tensor,
        pair: Tensor,
        x: Tensor,
        start: int,
        stop: int,
        scale: Tensor | None,
        shift: Tensor | None,
        maps: Tensor | None,
        plan: Plan,
    ) -> Tensor:
        block = weight[: plan.active, : plan.active].to(plan.dtype)
        ctx.save_for_backward(weight, block, pair, x, scale, shift, maps)
        ctx.window, ctx.plan, ctx.has_rest = (start, stop), plan, rest is not None
        convolved = F.conv2d(active.to(plan.dtype), block, padding=plan.padding)
        return convolved if rest is None else torch.cat((convolved, rest), dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, block, pair, x, *parts = ctx.saved_tensors
        plan: Plan = ctx.plan
        n = plan.active
        whole, removal, growth = _weight_gradients(gradient, x, weight, plan)
        sides = [side for side in (removal, growth) if side is not None]
        if sides:
            sides = list((torch.stack(sides) + Contrast(*ctx.window, *parts).inner(gradient, x)).unbind())
        found = torch.stack([pair.new_zeros(()) if side is None else sides.pop(0) for side in (removal, growth)])
        inputs = None
        if ctx.needs_input_grad[0]:
            inputs = _convolution_backward(gradient[:, :n], x[:, :n], block, plan, of_input=True).to(x.dtype)
        return (
            inputs,
            gradient[:, n:] if ctx.has_rest else None,
            whole,
            found.to(pair.dtype),
            *(None,) * 7,
        )


class GatePair(torch.autograd.Function):
    """Two zeros whose gradient (D-, D+) becomes that of real gates.

    Half of D+ where a gate is 0, half of D- where it is 1, nothing beyond [-1, 1].
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor) -> Tensor:
        ctx.save_for_backward(gates)
        return gates.new_zeros(2, dtype=accumulator(gates))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (gates,) = ctx.saved_tensors
        chosen = torch.where(gates >= 0, gradient[0], gradient[1])
        share: Tensor = chosen * (gates.abs() <= 1) / 2
        return share.to(gates.dtype)


def _weight_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, plan: Plan
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the kernel's gradient, and the convolution's shares of D- and D+; None for what is not probed."""
    n, above, images = plan.active, plan.above, plan.images
    batch, growth, grown = len(x), None, None

    def of_block(width: int, part: slice) -> Tensor:
        # Of the kernel its shape is asked for, not its numbers.
        shape = weight.new_empty(width, width, *weight.shape[2:], dtype=plan.dtype)
        return _convolution_backward(gradient[part, :width], x[part, :width], shape, plan, of_input=False)

    if above is None:
        kernel = of_block(n, slice(None))
    else:
        grown = of_block(above, slice(images))
        kernel = grown[:n, :n]
        if images < batch:
            kernel = kernel + of_block(n, slice(images, None))
    whole = embed(kernel, weight, 0)
    removal = None if plan.below is None else _ring(weight[:n, :n], kernel, plan.below)
    if grown is not None:
        assert above is not None
        growth = _ring(weight[:above, :above], grown, n)
        if images < batch:
            growth = growth * (batch / images)
    return whole, removal, growth


def _convolution_backward(gradient: Tensor, x: Tensor, weight: Tensor, plan: Plan, *, of_input: bool) -> Tensor:
    padding = [plan.padding, plan.padding]
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient.to(plan.dtype),
        x.to(plan.dtype),
        weight.to(plan.dtype),
        None,
        [1, 1],
        padding,
        [1, 1],
        False,
        [0, 0],
        1,
        [of_input, not of_input, False],
    )
    return found[0] if of_input else found[1]


def _ring(block: Tensor, gradient: Tensor, inner: int) -> Tensor:
    """Return the inner product of a block and its gradient beyond their ``inner`` x ``inner`` corners.

    Not by two products of the two parts of a ring, which would be copied first: by one, with a corner of zeros.
    """
    ring = wide(gradient).clone(memory_format=torch.contiguous_format)
    ring[:inner, :inner] = 0
    # Several times as fast as the sum of products: no tensor of them is made.
    return torch.dot(wide(block).flatten(), ring.flatten())


def accumulator(tensor: Tensor) -> torch.dtype:
    """Return the type in which sums over ``tensor`` are taken: float32 at least."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def wide(tensor: Tensor) -> Tensor:
    """Return ``tensor`` in the type of its sums."""
    return tensor.to(accumulator(tensor))
