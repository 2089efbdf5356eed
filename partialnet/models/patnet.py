"""PATNet, the same networks by the names of the second paper (arXiv 2503.03148).

Importing this module registers ``patnet_t0``, ``_t1``, ``_t2``, ``_s``, ``_m`` and ``_l`` with timm. Each is the
network of the ``partialnet_*`` name, which is also the one that its architecture refers to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.models import generate_default_cfgs, register_model

from partialnet.models import partialnet as family
from partialnet.models.partialnet import PartialNet
from partialnet.variants import PATNET_PREFIX, VARIANTS, model_name

__all__: list[str] = []

_Entry = Callable[..., PartialNet]
_register: Callable[[_Entry], _Entry] = register_model
default_cfgs = generate_default_cfgs(
    {
        PATNET_PREFIX + variant: family.default_cfgs[model_name(variant)].default.to_dict()
        for variant in VARIANTS
        if variant != "micro"
    }
)


@_register
def patnet_t0(pretrained: bool = False, **kwargs: Any) -> PartialNet:
    """PATNet-T0."""
    return family.partialnet_t0(pretrained, **kwargs)


@_register
def patnet_t1(pretrained: bool = False, **kwargs: Any) -> PartialNet:
    """PATNet-T1."""
    return family.partialnet_t1(pretrained, **kwargs)


@_register
def patnet_t2(pretrained: bool = False, **kwargs: Any) -> PartialNet:
    """PATNet-T2."""
    return family.partialnet_t2(pretrained, **kwargs)


@_register
def patnet_s(pretrained: bool = False, **kwargs: Any) -> PartialNet:
    """PATNet-S."""
    return family.partialnet_s(pretrained, **kwargs)


@_register
def patnet_m(pretrained: bool = False, **kwargs: Any) -> PartialNet:
    """PATNet-M."""
    return family.partialnet_m(pretrained, **kwargs)


@_register
def patnet_l(pretrained: bool = False, **kwargs: Any) -> PartialNet:
    """PATNet-L."""
    return family.partialnet_l(pretrained, **kwargs)
