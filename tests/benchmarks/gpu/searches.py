"""Whether searches end well: three methods on three networks, with torch's switches as they come."""

from __future__ import annotations

import time
from collections.abc import Callable

import timm
import torch
import torch.nn.functional as F
from torch import nn

from partialnet import Architecture, create
from partialnet.layers.dpconv import DPConv2d
from partialnet.retrofit import convert_to_patconv
from partialnet.search.budget import Budget
from partialnet.search.learn_split import METHODS, learn_split
from partialnet.search.supernet_options import SupernetOptions
from partialnet.train.recipe import Recipe
from tests.benchmarks.gpu.report import Report, Row

CLASSES = 10


def partialnet_t0() -> nn.Module:
    """Return PartialNet-T0, searchable."""
    return create(Architecture("partialnet_t0", {"num_classes": CLASSES}), searchable=True)


def resnet18() -> nn.Module:
    """Return timm's ResNet-18 with searchable convolutions."""
    return convert_to_patconv(timm.create_model("resnet18", num_classes=CLASSES), searchable=True)[0]


def plain() -> nn.Module:
    """Return what a user may write."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 4, 4), DPConv2d(32, rest="channel_attention"), nn.ReLU(), DPConv2d(32),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES),
    )  # fmt: skip


Network = tuple[str, Callable[[], nn.Module], int]
FULL: tuple[Network, ...] = (("partialnet_t0", partialnet_t0, 224), ("resnet18", resnet18, 64), ("plain", plain, 32))
TINY: tuple[Network, ...] = (("plain", plain, 16),)


def search(report: Report, network: Network, method: str, precision: str, steps: int, batch: int) -> None:
    """Search once, on random images; a row says how long it took and whether the budget was met."""
    name, make, size = network
    torch.manual_seed(0)
    batches = [(torch.randn(batch, 3, size, size), torch.randint(CLASSES, (batch,))) for _ in range(4)]
    start = time.monotonic()
    result = learn_split(
        make().to(report.device),
        batches,
        F.cross_entropy,
        Budget.from_b(4, input_shape=(3, size, size)),
        method=method,
        steps=steps,
        recipe=Recipe(precision=precision),
        **({"validation": batches[:1], "supernet": SupernetOptions(samples=8, best=2)} if method == "supernet" else {}),
    )
    note = "budget met" if result.within_budget else f"budget missed: {result.note}"
    report.add(Row("searches", f"{name}, {size} px, {method}, {precision}", time.monotonic() - start, "s", note=note))


def run(report: Report, *, tiny: bool, compile_too: bool) -> None:
    """Search every network by every method; the first network in reduced precision as well."""
    del compile_too
    networks, steps, batch = (TINY, 10, 4) if tiny else (FULL, 20, 32)
    reduced = ("bfloat16",) if report.device.type == "cpu" else ("bfloat16", "float16")
    cases = [(network, method, "float32") for network in networks for method in METHODS]
    cases += [(networks[0], "gates", precision) for precision in reduced]
    for network, method, precision in cases:
        if not report.late:
            with report.case("searches", f"{network[0]}, {method}, {precision}"):
                search(report, network, method, precision, steps, batch)
