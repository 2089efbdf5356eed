"""Counts that need no data and no clock: multiply-adds, parameters and activations.

Multiply-adds are a convention, not a fact of nature. Ours: fvcore's (one multiply-add counts as one) on the inference
form of the network, with the two matrix products of ``scaled_dot_product_attention`` counted, which fvcore leaves out.
What stays uncounted is listed beside the figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from math import prod
from types import MappingProxyType
from typing import Any

import torch
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import nn

from nas.metrics import Measurement
from partialnet.fuse import fuse
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.search.cost import split_rows
from partialnet.search.operations import attention_macs, example_input

_ATTENTION = "aten::scaled_dot_product_attention"
# Views that fvcore's own list of operators without arithmetic has missed.
_FREE: Mapping[str, None] = MappingProxyType(
    dict.fromkeys(
        f"aten::{name}" for name in ("narrow", "unflatten", "movedim", "clone", "alias", "expand_as", "lift_fresh")
    )
)


def _attention_activations(_inputs: list[Any], outputs: list[Any]) -> int:
    shape = get_shape(outputs[0])
    assert shape is not None
    return prod(shape)


def _quiet(analysis: Any) -> Any:
    return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")


def count_operations(network: nn.Module, input_shape: tuple[int, int, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Count the multiply-adds of ``network`` as it is (no fusing) for one image.

    Args:
        network: In eval mode.
        input_shape: Channels, height, width.

    Returns:
        Multiply-adds by operator; and the operators that were not counted with how often each is called.
    """
    inputs = (example_input(network, input_shape),)
    analysis = _quiet(FlopCountAnalysis(network, inputs)).set_op_handle(_ATTENTION, attention_macs, **_FREE)
    counted = {name: int(value) for name, value in sorted(analysis.by_operator().items()) if value}
    return counted, {name: int(value) for name, value in sorted(analysis.unsupported_ops().items())}


def count_parameters(network: nn.Module) -> int:
    """Return the number of the network's parameters; one that several modules share counts once."""
    return sum(parameter.numel() for parameter in network.parameters())


def _conv_macs(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    # Networks without partial convolutions can be probed as well: theirs is 0.
    if not any(isinstance(module, PartialConv2d) for module in network.modules()):
        return 0
    return sum(row.macs for row in split_rows(network, input_shape))


def probe_flops(network: nn.Module, input_shape: tuple[int, int, int]) -> list[Measurement]:
    """Count a fixed network.

    Args:
        network: The training form; it is copied, not changed.
        input_shape: Channels, height, width of one image.

    Returns:
        ``params`` (training form), ``params_inference``, ``macs``, ``activations`` (both of the inference form) and
        ``conv_macs`` (the partial convolutions only). ``macs`` and ``activations`` say in ``figures["uncounted"]``
        which operators they leave out and how often each is called.
    """
    fused = fuse(network)
    with torch.no_grad():
        counted, uncounted = count_operations(fused, input_shape)
        outputs = _quiet(
            ActivationCountAnalysis(fused, (example_input(fused, input_shape),)).set_op_handle(
                _ATTENTION, _attention_activations
            )
        )
        activations = int(outputs.total())
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
