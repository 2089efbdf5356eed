"""The papers' comparison table, and which network of ours or of timm each of its rows is. No torch.

Sources: PartialNet (arXiv 2502.01303); PATNet (arXiv 2503.03148) has the same figures.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from importlib.resources import files
from types import MappingProxyType
from typing import NamedTuple

from nas.errors import InputError
from partialnet.variants import VARIANTS, model_name

TABLE = files("nas.bench") / "imagenet_published.csv"


class Published(NamedTuple):
    """A row of the papers' table, on ImageNet-1k."""

    network: str
    type: str
    params_m: float
    flops_g: float
    throughput_v100_fps: float
    throughput_mi250_fps: float
    latency_cpu_ms: float
    top1_percent: float

    @property
    def family(self) -> str:
        """What several rows have in common, such as ``MobileViTv2``."""
        return self.network.partition("-")[0].partition(" ")[0]


class Model(NamedTuple):
    """A network that can be built.

    Args:
        name: Registered with timm, by timm or by us.
        size: Height and width of the images that its published figures are for, in pixels.
    """

    name: str
    size: int = 224


def _models() -> dict[str, Model]:
    ours = {f"PartialNet-{variant.upper()}": Model(model_name(variant)) for variant in VARIANTS if variant != "micro"}
    fasternet = {f"FasterNet-{size}": Model(f"fasternet_{size.lower()}") for size in ("T0", "T1", "T2", "S", "M", "L")}
    efficientnet = {"B0": 224, "B1": 240, "B3": 300, "B4": 380, "B5": 456}
    return {
        **ours,
        **fasternet,
        **{f"EfficientNet-{key}": Model(f"efficientnet_{key.lower()}", size) for key, size in efficientnet.items()},
        **{f"MobileViT-{key}": Model(f"mobilevit_{key.lower()}", 256) for key in ("XXS", "XS", "S")},
        **{f"MobileViTv2-{key}": Model(f"mobilevitv2_{key.replace('.', '')}0", 256) for key in _MOBILEVIT_WIDTHS},
        **{f"PoolFormer-{key}": Model(f"poolformer_{key.lower()}") for key in ("S12", "S36", "M36", "M48")},
        **{f"ConvNeXt-{key[0].upper()}": Model(f"convnext_{key}") for key in ("tiny", "small", "base")},
        **{f"Swin-{key[0].upper()}": Model(f"swin_{key}_patch4_window7_224") for key in ("tiny", "small", "base")},
        "MobileNetV2": Model("mobilenetv2_100"),
        "MobileNetV2 x1.4": Model("mobilenetv2_140"),
        "GhostNet x1.3": Model("ghostnet_130"),
        "EfficientViT-B1-192": Model("efficientvit_b1", 192),
        "EfficientViT-B1": Model("efficientvit_b1"),
        "ResNet50": Model("resnet50"),
    }


_MOBILEVIT_WIDTHS = ("0.5", "1.0", "1.5", "2.0")
MODELS: Mapping[str, Model] = MappingProxyType(_models())
"""Published name to the network; those that neither we nor timm have are missing."""


def read_published() -> list[Published]:
    """Return the papers' table in its order."""
    return [
        Published(row["network"], row["type"], *(float(row[field]) for field in Published._fields[2:]))
        for row in csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines())
    ]


def choose(patterns: Sequence[str]) -> list[Published]:
    """Return the rows whose published or registered name matches a pattern of the shell; all without a pattern.

    Raises:
        InputError: If a pattern matches none.
    """
    rows = read_published()
    if not patterns:
        return rows
    for pattern in patterns:
        if not any(_matches(row, pattern) for row in rows):
            known = ", ".join(row.network for row in rows)
            raise InputError(f"--models {pattern}: there is no such network in the papers' table; there are {known}")
    return [row for row in rows if any(_matches(row, pattern) for pattern in patterns)]


def _matches(row: Published, pattern: str) -> bool:
    names = [row.network, MODELS[row.network].name] if row.network in MODELS else [row.network]
    return any(fnmatchcase(name.lower(), pattern.lower()) for name in names)
