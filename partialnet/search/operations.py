"""Multiply-adds of a network module by module: fvcore's counter, with the products of attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from types import MappingProxyType
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import nn


def attention_macs(inputs: list[Any], _outputs: list[Any]) -> int:
    """Count ``scaled_dot_product_attention`` for fvcore, which leaves it out: 2 N^2 D over all heads."""
    query, key, value = (get_shape(tensor) for tensor in inputs[:3])
    assert query is not None
    assert key is not None
    assert value is not None
    return int(prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))


def example_input(model: nn.Module, input_shape: tuple[int, int, int]) -> torch.Tensor:
    """Return one input of zeros [1, C, H, W] on the device and in the precision of ``model``."""
    like = next(model.parameters(), None)
    if like is None:
        return torch.zeros(1, *input_shape)
    return torch.zeros(1, *input_shape, device=like.device, dtype=like.dtype)


Handle = Callable[[list[Any], list[Any]], Any]
"""Counts the multiply-adds of an operator from its inputs and outputs, as fvcore's handles do."""

ATTENTION: Mapping[str, Handle] = MappingProxyType({"aten::scaled_dot_product_attention": attention_macs})


def traced(
    network: nn.Module, input_shape: tuple[int, int, int], handles: Mapping[str, Handle | None] = ATTENTION
) -> FlopCountAnalysis:
    """Trace ``network`` once, and return fvcore's analysis with its counts for one input.

    Args:
        network: Network in eval mode.
        input_shape: Channels, height, width of the input.
        handles: Handles of operators beside fvcore's own; None for an operator without arithmetic.
    """
    analysis = FlopCountAnalysis(network, (example_input(network, input_shape),)).set_op_handle(**handles)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with torch.no_grad():
        analysis.total()
    return analysis


def macs_by_module(network: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, int]:
    """Return the multiply-adds of each module of ``network`` for one input; those of the whole network under "".

    Args:
        network: Network in eval mode.
        input_shape: Channels, height, width of the input.
    """
    return {name: int(count) for name, count in traced(network, input_shape).by_module().items()}
