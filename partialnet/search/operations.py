"""Counting the multiply-adds of a network module by module: fvcore's counter, with attention's products counted."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import nn


def attention_macs(inputs: list[Any], _outputs: list[Any]) -> int:
    """fvcore's handle for ``scaled_dot_product_attention``, which it leaves out: 2 N^2 D in all heads together."""
    query, key, value = (get_shape(tensor) for tensor in inputs[:3])
    assert query is not None
    assert key is not None
    assert value is not None
    return int(prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))


def example_input(model: nn.Module, input_shape: tuple[int, int, int]) -> torch.Tensor:
    """Return one input of zeros [1, C, H, W] where ``model`` is, in its precision."""
    like = next(model.parameters(), None)
    if like is None:
        return torch.zeros(1, *input_shape)
    return torch.zeros(1, *input_shape, device=like.device, dtype=like.dtype)


@torch.no_grad()
def macs_by_module(network: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, int]:
    """Return the multiply-adds of every module of ``network`` as it is, for one input; the whole network's under "".

    Args:
        network: In eval mode.
        input_shape: Channels, height, width.
    """
    analysis = FlopCountAnalysis(network, (example_input(network, input_shape),))
    analysis.set_op_handle("aten::scaled_dot_product_attention", attention_macs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    return {name: int(count) for name, count in analysis.by_module().items()}
