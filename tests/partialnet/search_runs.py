"""Short searches for tests: networks, batches of three kinds, and one call that gives every method what it needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from partialnet.data.pieces import Transform
from partialnet.data.source import TensorImages
from partialnet.layers.dpconv import DPConv2d
from partialnet.search.budget import Budget
from partialnet.search.learn_split import learn_split
from partialnet.search.phases import PhaseSchedule
from partialnet.search.result import SplitResult
from partialnet.search.supernet_options import SupernetOptions
from tests.partialnet.searchable import SmallNet

SHAPE = (3, 6, 6)
SCHEDULE = PhaseSchedule(0.1, 0.3, 0.3, 0.3)
METHODS = ("gates", "fractional", "supernet")
Batches = Iterable[tuple[Tensor, Tensor]]


def random_batches(count: int = 3, size: int = 8, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, *SHAPE, generator=generator), torch.randint(4, (size,), generator=generator))
        for _ in range(count)
    ]


def small_net(seed: int = 0, width: int = 16) -> SmallNet:
    torch.manual_seed(seed)
    return SmallNet(width)


class NoisyNet(nn.Module):
    """Whatever draws random numbers or keeps statistics while it trains: dropout, attention, normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = DPConv2d(8, rest="channel_attention")
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.2)
        self.second = DPConv2d(8, rest="self_attention", num_heads=2, attn_drop=0.1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.drop(self.norm(self.first(x)))
        x = x + self.second(x)
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def noisy_net(seed: int = 0) -> NoisyNet:
    torch.manual_seed(seed)
    return NoisyNet()


class NoisyImages(Dataset[tuple[Tensor, Tensor]]):
    """Twenty images, augmented by noise from torch's global generator."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(20, *SHAPE, generator=generator)
        self.targets = torch.randint(4, (20,), generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        return image + 0.1 * torch.randn_like(image), self.targets[index]


def batches_of(kind: str) -> Batches:
    """Return new batches, three in each pass: a list, those of an image source, or a loader that shuffles."""
    if kind == "list":
        return random_batches()
    if kind == "loader":
        return DataLoader(NoisyImages(), batch_size=8, shuffle=True)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (20, *SHAPE), generator=generator, dtype=torch.uint8)
    targets = torch.randint(4, (20,), generator=generator)
    transform = Transform(mean=(0.5,) * 3, std=(0.25,) * 3, flip=True, size=6)
    return TensorImages(images, targets, transform).batches(8, shuffle_seed=3, augment="standard")


def search(model: nn.Module | None = None, budget: Budget | None = None, **options: Any) -> SplitResult:
    """Take 20 steps in phases of 2, 6, 6 and 6, unless told otherwise; a supernet takes 10 and scores few networks."""
    batches = options.pop("batches", None)
    batches = random_batches() if batches is None else batches
    if options.get("method") == "supernet":
        short = {"steps": 10, "supernet": SupernetOptions(sampled=1, samples=8, best=3)}
        options = {"validation": random_batches(seed=1), **short, **options}
    elif options.get("schedule") is None:
        options["schedule"] = SCHEDULE
    return learn_split(
        small_net() if model is None else model,
        batches,
        options.pop("loss_fn", F.cross_entropy),
        budget or Budget.from_b(2, input_shape=SHAPE),
        **{"steps": 20, **options},
    )


def same_state(one: nn.Module, other: nn.Module) -> bool:
    """Return whether all parameters and buffers are bitwise equal."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
