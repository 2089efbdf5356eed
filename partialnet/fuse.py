"""The inference form of a network: the same function with fewer operations.

Batch normalisations move into the convolutions beside them. The convolution of PAT_sp moves into the MLP's second one
and its gate to the shortcut, and rectifiers move into pointwise convolutions. Layers without effect in eval mode
(stochastic depth, dropout) are removed. Modules declare the order of their layers (``partialnet.layers.folding``);
nothing is guessed from the order of children.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, TypeVar

import torch
from timm.layers import DropPath
from torch import nn

from partialnet.errors import ArchitectureError
from partialnet.layers.copying import copied
from partialnet.layers.folding import Absorb, Absorbable, Foldable, Folding, NormAfter, NormBefore, ReluAfter
from partialnet.layers.linear_algebra import batch_norm_affine, weights, with_weights
from partialnet.layers.matrix_conv import as_matrix_conv
from partialnet.layers.spatial_attention import GatedHalf

_Network = TypeVar("_Network", bound=nn.Module)


def fuse(model: _Network) -> _Network:
    """Return the inference form of ``model``: a copy in eval mode whose outputs equal the model's in eval mode.

    Equal means up to rounding: sums are computed in another order, and weights are folded in float64 and rounded once.
    A module of another family is copied, and folded as far as its parts declare foldings. A second call changes nothing
    more. The result keeps no batch statistics, so it should not be trained.

    Raises:
        ArchitectureError: If the model still learns its split; apply ``partialnet.export.to_fixed`` first.
    """
    for name, module in model.named_modules():
        if hasattr(module, "set_level"):
            raise ArchitectureError(f"{name or 'the module'} still learns its split: apply to_fixed before fuse")
    return fuse_in_place(copied(model))


def fuse_in_place(network: _Network) -> _Network:
    """Bring ``network`` into its inference form; see :func:`fuse`, which copies it first.

    Args:
        network: Network without choices, whose training form nobody needs any more.

    Returns:
        Network ``network``.
    """
    network.eval()
    with torch.no_grad():
        # Parents first: if two declarations overlap, the parent's covers more of the neighbourhood.
        for module in list(network.modules()):
            if isinstance(module, Foldable):
                for folding in module.foldings():
                    _fold(module, folding)
    _drop_dead(network)
    for module in network.modules():
        as_matrix_conv(module)
    # Pointwise convolutions, most of the work, run faster in this layout, and maps are tokens without transposing.
    return network.to(memory_format=torch.channels_last)


def _fold(parent: nn.Module, folding: Folding) -> None:
    if isinstance(folding, NormAfter):
        _fold_norm_after(parent, folding)
    elif isinstance(folding, NormBefore):
        _fold_norm_before(parent, folding)
    elif isinstance(folding, ReluAfter):
        _fold_relu_after(parent, folding)
    else:
        _absorb(parent, folding)


def _fold_norm_after(parent: nn.Module, folding: NormAfter) -> None:
    norm = parent.get_submodule(folding.norm)
    if isinstance(norm, nn.Identity):
        return
    conv = _layer(parent, folding.conv)
    weight, bias = weights(conv)
    scale, shift = batch_norm_affine(norm)
    weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    parent.set_submodule(folding.conv, with_weights(conv, weight, scale * bias + shift), strict=True)
    parent.set_submodule(folding.norm, nn.Identity(), strict=True)


def _fold_norm_before(parent: nn.Module, folding: NormBefore) -> None:
    norm = parent.get_submodule(folding.norm)
    if isinstance(norm, nn.Identity) or (isinstance(norm, nn.LayerNorm) and norm.weight is None):
        return
    conv = _layer(parent, folding.conv)
    if isinstance(conv, nn.Conv2d) and (any(size != 1 for size in conv.kernel_size) or conv.groups != 1):
        raise ArchitectureError(f"{folding.conv} must be a pointwise convolution to take in {folding.norm}: {conv}")
    rest: nn.Module
    if isinstance(norm, nn.LayerNorm):
        scale = norm.weight.detach().double()
        shift = torch.zeros_like(scale) if norm.bias is None else norm.bias.detach().double()
        rest = nn.LayerNorm(norm.normalized_shape, norm.eps, elementwise_affine=False).eval()
    else:
        scale, shift = batch_norm_affine(norm)
        rest = nn.Identity()
    weight, bias = weights(conv)
    matrix = weight.flatten(1)
    columns = slice(folding.start, folding.start + len(scale))
    bias = bias + matrix[:, columns] @ shift
    matrix[:, columns] *= scale
    parent.set_submodule(folding.conv, with_weights(conv, matrix, bias), strict=True)
    parent.set_submodule(folding.norm, rest, strict=True)


def _fold_relu_after(parent: nn.Module, folding: ReluAfter) -> None:
    conv = parent.get_submodule(folding.conv)
    if type(parent.get_submodule(folding.act)) is nn.ReLU and as_matrix_conv(conv, relu=True):
        parent.set_submodule(folding.act, nn.Identity(), strict=True)


def _absorb(parent: nn.Module, folding: Absorb) -> None:
    module = parent.get_submodule(folding.module)
    if isinstance(module, Absorbable):
        conv = parent.get_submodule(folding.conv)
        if not isinstance(conv, nn.Conv2d):
            raise ArchitectureError(f"{folding.conv} must be a convolution to take in {folding.module}: {conv}")
        absorbing, rest = module.absorbed_by(conv)
        parent.set_submodule(folding.conv, absorbing, strict=True)
        parent.set_submodule(folding.module, rest.eval(), strict=True)
        if folding.join is not None and isinstance(rest, GatedHalf):
            parent.set_submodule(folding.module, nn.Identity(), strict=True)
            parent.set_submodule(folding.join, rest, strict=True)
        if isinstance(rest, Foldable):
            for inner in rest.foldings():
                _fold(rest, inner)


def _layer(parent: nn.Module, path: str) -> nn.Conv2d | nn.Linear:
    layer = parent.get_submodule(path)
    if not isinstance(layer, (nn.Conv2d, nn.Linear)):
        raise ArchitectureError(f"{path} must be a convolution or a linear layer to be folded: {layer}")
    return layer


def _drop_dead(model: nn.Module) -> None:
    for name, module in list(model.named_modules()):
        if name and isinstance(module, (DropPath, nn.Dropout)):
            model.set_submodule(name, nn.Identity(), strict=True)


class _Callable(ModuleType):
    """This module, callable as the function with its name.

    The import of a submodule sets it as the package's attribute, over the function that ``partialnet`` offers lazily
    under the same name. So ``partialnet.fuse(model)`` may find either, and both work.
    """

    def __call__(self, model: Any) -> Any:
        return fuse(model)


sys.modules[__name__].__class__ = _Callable
