"""Tasks whose right split is known: a student is to find the levels of the teacher that it imitates.

A teacher is a chain of residual blocks, x + MLP(partial convolution of x), with identity rest. Its pointwise MLPs are
frozen and shared with the student, which learns only 3x3 kernels and levels, by regression on the teacher's outputs,
under the teacher's own budget: the sum of n^2 over layers. The teacher's levels are a random permutation of a multiset.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.kernel_size import KERNELS
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.search.budget import Budget
from partialnet.search.learn_split import learn_split
from partialnet.train import seeded
from partialnet.train.recipe import Recipe


@dataclass(frozen=True)
class Instance:
    """A task.

    Args:
        channels: Width C.
        levels: Active channels of each layer of the teacher, before they are permuted.
        size: Height and width of the maps.
        seed: Seed of the permutation, the weights and the images.
        kernels: Kernel size of each layer of the teacher, if the student is to find them as well; permuted like the
            levels.
    """

    channels: int
    levels: tuple[int, ...]
    size: int
    seed: int
    kernels: tuple[int, ...] = ()

    @property
    def answer(self) -> list[int]:
        """Active channels of the teacher's layers."""
        levels = list(self.levels)
        random.Random(self.seed).shuffle(levels)
        return levels

    @property
    def sizes(self) -> list[int]:
        """Kernel sizes of the teacher's layers."""
        sizes = list(self.kernels or (3,) * len(self.levels))
        random.Random(self.seed).shuffle(sizes)
        return sizes

    @property
    def target(self) -> float:
        """Parameters of the teacher's kernels."""
        return float(sum((k * n) ** 2 for n, k in zip(self.answer, self.sizes, strict=True)))

    @property
    def label(self) -> str:
        """Short name."""
        levels, kernels = ("/".join(map(str, values)) for values in (self.levels, self.kernels))
        more = f" kernels {kernels}" if kernels else ""
        return f"C={self.channels} L={len(self.levels)} {self.size}x{self.size} {levels}{more} seed {self.seed}"


class Chain(nn.Module):
    """Residual blocks around the given mixers, with frozen MLPs."""

    def __init__(self, mixers: Sequence[nn.Module], channels: int) -> None:
        super().__init__()
        self.mixers = nn.ModuleList(mixers)
        self.expand = nn.ParameterList([torch.randn(2 * channels, channels, 1, 1) / channels**0.5 for _ in mixers])
        self.reduce = nn.ParameterList([torch.randn(channels, 2 * channels, 1, 1) / channels**0.5 for _ in mixers])
        for matrix in (*self.expand, *self.reduce):
            matrix.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        for mixer, expand, reduce in zip(self.mixers, self.expand, self.reduce, strict=True):
            x = x + F.conv2d(F.relu(F.conv2d(mixer(x), expand)), reduce)
        return x


def teacher(instance: Instance) -> Chain:
    """Return the network to be imitated."""
    with seeded(instance.seed):
        mixers = [
            PartialConv2d(instance.channels, n, k) for n, k in zip(instance.answer, instance.sizes, strict=True)
        ]
        for mixer in mixers:
            fan = mixer.active_channels * mixer.kernel_size**2
            nn.init.normal_(mixer.conv.weight, std=fan**-0.5)
        return Chain(mixers, instance.channels).eval()


def student(instance: Instance, active: Sequence[int] | None, seed: int) -> Chain:
    """Return a network with the teacher's MLPs and kernels of its own: fixed, or searchable."""
    with seeded(10_000 + seed):
        mixers: list[nn.Module] = [
            DPConv2d(instance.channels, kernel_sizes=KERNELS if instance.kernels else None)
            if active is None
            else PartialConv2d(instance.channels, active[index])
            for index in range(len(instance.levels))
        ]
        chain = Chain(mixers, instance.channels)
    source = teacher(instance)
    chain.expand, chain.reduce = source.expand, source.reduce
    return chain


@dataclass
class Stream:
    """Noise and what a teacher makes of it, another batch each time, the same ones for a seed."""

    teacher: nn.Module
    shape: tuple[int, int, int]
    """Channels, height and width of an input."""
    seed: int
    count: int
    batch: int = 16

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.count):
            x = torch.randn((self.batch, *self.shape), generator=generator)
            with torch.no_grad():
                y = self.teacher(x)
            yield x, y


def _stream(instance: Instance, seed: int, count: int, batch: int = 16) -> Stream:
    return Stream(teacher(instance), (instance.channels, instance.size, instance.size), seed, count, batch)


def relative_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the squared error over the targets' variance."""
    return (outputs - targets).square().mean() / targets.var().detach()


def level_error(found: Sequence[int], answer: Sequence[int]) -> float:
    """Return the mean distance of the levels, in halvings."""
    return sum(abs(math.log2(a / b)) for a, b in zip(found, answer, strict=True)) / len(answer)


RECIPE = Recipe(learning_rate=5e-3, weight_decay=0.0, warmup_fraction=0.05, clip_norm=1.0)


@dataclass(frozen=True)
class Found:
    """What a search found.

    Args:
        active: Channels per layer.
        error: Level error, see :func:`level_error`.
        seconds: CPU time.
        cost: Relative to the budget.
        kernel_error: Share of the layers with another kernel size than the teacher's.
    """

    active: list[int]
    error: float
    seconds: float
    cost: float
    kernel_error: float


def search(instance: Instance, method: str, seed: int, steps: int, **options: object) -> Found:
    """Let ``method`` look for the teacher's levels."""
    model = student(instance, None, seed)
    budget = Budget(
        unit="params",
        target=instance.target,
        input_shape=(instance.channels, instance.size, instance.size),
    )
    batches = _stream(instance, 20_000 + seed, steps)
    started = time.process_time()
    extra = dict(options)
    if method == "supernet":
        extra["validation"] = list(_stream(instance, 30_000 + seed, 2, 32))
    result = learn_split(
        model, batches, relative_error, budget, method=method, steps=steps, seed=seed, recipe=RECIPE, **extra
    )  # type: ignore[arg-type]
    active = list(result.active_channels.values())
    kernels = [value for name, value in result.settings.items() if name.endswith(".kernel")] or instance.sizes
    wrong = sum(mine != its for mine, its in zip(kernels, instance.sizes, strict=True)) / len(kernels)
    seconds = time.process_time() - started
    return Found(active, level_error(active, instance.answer), seconds, result.cost / result.target, wrong)


def retrained_error(instance: Instance, active: Sequence[int], seed: int, steps: int) -> float:
    """Return the error of a fixed student with these splits, trained from scratch."""
    model = student(instance, active, 500 + seed)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=RECIPE.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RECIPE.learning_rate, total_steps=steps, pct_start=0.05)
    for x, y in _stream(instance, 40_000 + seed, steps):
        optimizer.zero_grad(set_to_none=True)
        relative_error(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    losses = []
    model.eval()
    with torch.no_grad():
        losses = [float(relative_error(model(x), y)) for x, y in _stream(instance, 50_000, 4, 32)]
    return sum(losses) / len(losses)
