"""Affine maps as numbers: normalisations and pointwise layers in the form that folding needs. Double precision."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

from partialnet.errors import ArchitectureError
from partialnet.layers.copying import copied

_Layer = TypeVar("_Layer", bound=nn.Conv2d | nn.Linear)


def batch_norm_affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return scale and shift of ``norm`` in eval mode, float64, one for each channel.

    Args:
        norm: Batch normalisation.

    Raises:
        ArchitectureError: If ``norm`` has no running statistics, so that it is not an affine map.
    """
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
        raise ArchitectureError(f"only a BatchNorm2d with running statistics can be folded, but got {norm}")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    return scale, shift


def with_weights(layer: _Layer, weight: Tensor, bias: Tensor) -> _Layer:
    """Return a copy of a convolution or a linear layer with other numbers, with its own type and device.

    Args:
        layer: Layer to copy, which stays unchanged.
        weight: Weight with as many elements as the layer's, in the same order.
        bias: Bias [out]; the copy has a bias even if the layer has none.
    """
    other = copied(layer)
    other.weight = nn.Parameter(weight.reshape(layer.weight.shape).to(layer.weight))
    other.bias = nn.Parameter(bias.to(layer.weight))
    return other


def weights(layer: nn.Conv2d | nn.Linear) -> tuple[Tensor, Tensor]:
    """Return weight and bias (zeros without a bias) of a layer, float64."""
    weight = layer.weight.detach().double()
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().double()
    return weight, bias
