"""Registration with timm: an entry point and a default configuration for each name.

The import of this module registers ``partialnet_micro``, ``_t0``, ``_t1``, ``_t2``, ``_s``, ``_m`` and ``_l``, and the
names of the second paper for the same networks, ``patnet_t0`` to ``patnet_l``. The code of the networks is loaded with
the first network (see ``partialnet.registration`` for the reason).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import generate_default_cfgs, register_model

from partialnet.variants import PATNET_PREFIX, PREFIX, VARIANTS, Variant

if TYPE_CHECKING:
    from partialnet.models.partialnet import PartialNet

__all__: list[str] = []

# micro has no name in the papers: it is for images of 8 to 32 pixels.
_NAMES: Mapping[str, str] = MappingProxyType(
    {PREFIX + variant: variant for variant in VARIANTS}
    | {PATNET_PREFIX + variant: variant for variant in VARIANTS if variant != "micro"}
)


def _cfg(variant: Variant) -> dict[str, Any]:
    _, height, width = variant.input_size
    reduction = variant.patch_size * math.prod(variant.merge_strides)
    return {
        "url": "", "num_classes": 1000, "input_size": variant.input_size,
        "pool_size": (height // reduction, width // reduction),
        "crop_pct": 1.0 if height <= 32 else 0.9, "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj", "classifier": "classifier",
        "paper_ids": "arXiv:2502.01303", "origin_url": "https://github.com/haiduo/PartialNet",
    }  # fmt: skip


def _entrypoint(name: str, variant: str) -> Callable[..., PartialNet]:
    def build(pretrained: bool = False, **kwargs: Any) -> PartialNet:
        from partialnet.models.partialnet import build_variant

        return build_variant(variant, pretrained, **kwargs)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"{'PATNet' if name.startswith(PATNET_PREFIX) else 'PartialNet'}-{variant.upper()}."
    return build


default_cfgs = generate_default_cfgs({name: _cfg(VARIANTS[variant]) for name, variant in _NAMES.items()})
for _name, _variant in _NAMES.items():
    register_model(_entrypoint(_name, _variant))
