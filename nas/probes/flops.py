"""Counts that need no data and no clock: multiply-adds, parameters and activations.

A count of multiply-adds depends on a convention. Ours counts with fvcore (one multiply-add is one) on the inference
form of the network. It adds the two matrix products of ``scaled_dot_product_attention``, which fvcore leaves out.
Operators that stay uncounted are listed beside the figure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from fvcore.nn import jit_handles
from torch import nn

from nas.metrics import Measurement
from partialnet.fuse import fuse
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.search.cost import split_rows
from partialnet.search.operations import ATTENTION, Handle, traced

# Views that fvcore's own list of operators without arithmetic lacks.
_FREE: Mapping[str, None] = MappingProxyType(
    dict.fromkeys(
        f"aten::{name}" for name in ("narrow", "unflatten", "movedim", "clone", "alias", "expand_as", "lift_fresh")
    )
)


# Operators whose outputs are activations, by fvcore's convention, and attention.
_ACTIVE: Mapping[str, Handle] = MappingProxyType(
    {
        "aten::_convolution": jit_handles.conv_flop_jit,
        "aten::addmm": jit_handles.addmm_flop_jit,
        "aten::bmm": jit_handles.bmm_flop_jit,
        "aten::einsum": jit_handles.einsum_flop_jit,
        "aten::linear": jit_handles.linear_flop_jit,
        "aten::matmul": jit_handles.matmul_flop_jit,
        **ATTENTION,
    }
)
_ACTIVATIONS = "activations"


class Operations(NamedTuple):
    """What one image takes in a network."""

    counted: dict[str, int]
    """Multiply-adds by operator."""
    uncounted: dict[str, int]
    """Number of calls of each operator that was not counted."""
    activations: int
    """Elements of the outputs of convolutions, linear layers, matrix products and attention."""
    by_module: dict[str, int]
    """Multiply-adds by module; those of the whole network under ""."""


def _with_activations(operator: str, macs: Handle) -> Handle:
    """Return a handle that counts an operator's activations beside its multiply-adds, so that one trace is enough."""

    def counts(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        found = macs(inputs, outputs)
        by_name = found if isinstance(found, Counter) else Counter({operator.removeprefix("aten::"): found})
        shape = jit_handles.get_shape(outputs[0])
        assert shape is not None
        return by_name + Counter({_ACTIVATIONS: prod(shape)})

    return counts


def count_operations(network: nn.Module, input_shape: tuple[int, int, int]) -> Operations:
    """Count the operations of ``network`` in its present form (no fusing) for one image, in one trace.

    Args:
        network: Network in eval mode.
        input_shape: Shape of one image: channels, height, width.
    """
    handles = {operator: _with_activations(operator, macs) for operator, macs in _ACTIVE.items()}
    analysis = traced(network, input_shape, {**handles, **_FREE})
    found = {name: int(value) for name, value in sorted(analysis.by_operator().items()) if value}
    activations = found.pop(_ACTIVATIONS, 0)
    uncounted = {name: int(value) for name, value in sorted(analysis.unsupported_ops().items())}
    by_module = {
        name: sum(int(value) for operator, value in counts.items() if operator != _ACTIVATIONS)
        for name, counts in analysis.by_module_and_operator().items()
    }
    return Operations(found, uncounted, activations, by_module)


def count_parameters(network: nn.Module) -> int:
    """Return the number of parameters; a parameter that several modules share counts once."""
    return sum(parameter.numel() for parameter in network.parameters())


def _conv_macs(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    # A network without partial convolutions has 0 of these multiply-adds.
    if not any(isinstance(module, PartialConv2d) for module in network.modules()):
        return 0
    return sum(row.macs for row in split_rows(network, input_shape))


def probe_flops(network: nn.Module, input_shape: tuple[int, int, int]) -> list[Measurement]:
    """Count the operations and parameters of a fixed network.

    Args:
        network: Network in the training form; the probe copies it and leaves it unchanged.
        input_shape: Shape of one image: channels, height, width.

    Returns:
        ``params`` (training form), ``params_inference``, ``macs``, ``activations`` (both of the inference form) and
        ``conv_macs`` (the partial convolutions only). ``macs`` and ``activations`` say in ``figures["uncounted"]``
        which operators they leave out and how often each is called.
    """
    fused = fuse(network)
    with torch.no_grad():
        counted, uncounted, activations, _ = count_operations(fused, input_shape)
        convolutions = _conv_macs(network, input_shape)
    shape = {"input_shape": list(input_shape)}
    counter = {**shape, "form": "inference", "counter": f"fvcore {version('fvcore')}"}
    resolution = "x".join(map(str, input_shape))
    return [
        Measurement("params", count_parameters(network), {"form": "training"}),
        Measurement("params_inference", count_parameters(fused), {"form": "inference"}),
        Measurement("macs", sum(counted.values()), {**counter, "counted": counted, "uncounted": uncounted}, resolution),
        Measurement("conv_macs", convolutions, shape, resolution),
        Measurement(
            "activations",
            activations,
            {**counter, "counts": "outputs of convolutions, linear layers, matrix products and attention"},
            resolution,
        ),
    ]
