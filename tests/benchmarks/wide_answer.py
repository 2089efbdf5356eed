"""Tasks whose right choices are known in a wider space: splits, hidden widths of MLPs, and which blocks are there.

A teacher is a chain of residual blocks, x + MLP(partial convolution of x), with identity rest. The features of the MLPs
are frozen and shared with the student, so that each block and each hidden channel keeps its place. The student learns
kernels and the gains of features. It chooses for each block its split, its hidden width and whether it is there, by
regression on the teacher's outputs, under the teacher's own number of parameters.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partialnet.kinds import Kind
from partialnet.layers.choice import GROWTH, REMOVAL, Choice, PartValue
from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.droppable import PRESENCE, Droppable
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.search.budget import Budget
from partialnet.search.learn_split import learn_split
from partialnet.train import seeded
from tests.benchmarks.known_answer import RECIPE, Stream, relative_error

HALVINGS = 3
"""Halvings of the hidden width that the student may choose."""


class Hidden(nn.Module):
    """Frozen features of the channels, each with a learned gain.

    Args:
        expand: Frozen weights of the features [h, C, 1, 1].
        reduce: Frozen directions of the features [C, h, 1, 1].
        gain: Gains [h, 1, 1].
    """

    def __init__(self, expand: Tensor, reduce: Tensor, gain: Tensor) -> None:
        super().__init__()
        self.register_buffer("expand", expand)
        # A parameter, so that it counts.
        self.reduce = nn.Parameter(reduce, requires_grad=False)
        self.gain = nn.Parameter(gain)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        return F.conv2d(F.conv2d(x, self.expand).relu() * self.gain, self.reduce)


class SearchableHidden(Choice):
    """A :class:`Hidden` that learns its width as well."""

    kind: ClassVar[Kind] = "mlp_ratio"
    quantity: ClassVar[str] = "hidden_channels"

    def __init__(self, expand: Tensor, reduce: Tensor) -> None:
        super().__init__()
        self.channels = len(reduce)
        self._offer(hidden_levels(self.channels))
        self.register_buffer("expand", expand)
        self.reduce = nn.Parameter(reduce, requires_grad=False)
        self.gain = nn.Parameter(torch.full((len(expand), 1, 1), 0.5))
        self.choose(self.levels[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        pair, h = self._pair(), self.chosen
        below, above = (None, None) if pair is None else (self._below(self.level), self._above(self.level))
        hidden = F.conv2d(x, self.expand[:h]).relu() * self.gain[:h]
        if below is not None:
            hidden = PartValue.apply(hidden, hidden[:, below:].detach(), below, pair, REMOVAL)
        out = F.conv2d(hidden, self.reduce[:, :h])
        if above is not None:
            with torch.no_grad():
                part = F.conv2d(x, self.expand[h:above]).relu() * self.gain[h:above]
                part = F.conv2d(part, self.reduce[:, h:above])
            out = PartValue.apply(out, part, 0, pair, GROWTH)
        return out

    def fixed(self) -> Hidden:
        """Return the plain module of the present width."""
        h = self.chosen
        return Hidden(self.expand[:h].clone(), self.reduce[:, :h].detach().clone(), self.gain[:h].detach().clone())


class Residual(nn.Module):
    """A residual block: a partial convolution, then an MLP."""

    def __init__(self, mixer: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        out: Tensor = x + self.mlp(self.mixer(x))
        return out


class SearchableResidual(Droppable, Residual):
    """A :class:`Residual` that may be absent."""

    def __init__(self, mixer: nn.Module, mlp: nn.Module, channels: int) -> None:
        Residual.__init__(self, mixer, mlp)
        self.channels = channels
        self._offer(PRESENCE)
        self.choose(1)

    def plain(self) -> Residual:
        """Return the block that is always there."""
        return Residual(self.mixer, self.mlp)


Block = tuple[int, int] | None
"""Active channels and hidden width of a block; None for an absent one."""


@dataclass(frozen=True)
class WideInstance:
    """A task.

    Args:
        channels: Width C.
        blocks: Blocks of the teacher.
        size: Height and width of the maps.
        seed: Seed of the weights and images.
    """

    channels: int
    blocks: tuple[Block, ...]
    size: int
    seed: int

    @property
    def label(self) -> str:
        """Short name."""
        blocks = " ".join("-" if block is None else f"{block[0]}/{block[1]}" for block in self.blocks)
        return f"C={self.channels} {self.size}x{self.size} [{blocks}] seed {self.seed}"

    @property
    def target(self) -> float:
        """Parameters of the teacher."""
        return float(sum(9 * n * n + (self.channels + 1) * h for n, h in filter(None, self.blocks)))


def hidden_levels(channels: int) -> tuple[int, ...]:
    """Return the hidden widths to choose from."""
    return tuple(2 * channels >> halvings for halvings in range(HALVINGS, -1, -1))


def draw(number: int, kind: str = "held out") -> WideInstance:
    """Return the instance of a number."""
    chance = random.Random(f"wide {kind} {number}")
    while True:
        channels = chance.choice((32, 48, 64))
        # Lower levels differ by less than the tolerance of the budget, which then says nothing about them.
        splits, widths = [channels >> halvings for halvings in (1, 2, 3)], hidden_levels(channels)[1:]
        blocks = tuple(
            None if chance.random() < 0.25 else (chance.choice(splits), chance.choice(widths))
            for _ in range(chance.randint(4, 7))
        )
        if len(set(blocks)) >= 3 and None in blocks:
            return WideInstance(channels, blocks, chance.choice((5, 6, 8)), 7_000 + number)


def features(instance: WideInstance) -> list[tuple[Tensor, Tensor]]:
    """Return the frozen features of all blocks at full width."""
    c = instance.channels
    with seeded(instance.seed):
        return [
            (torch.randn(2 * c, c, 1, 1) / c**0.5, torch.randn(c, 2 * c, 1, 1) / c**0.5) for _ in instance.blocks
        ]


def teacher(instance: WideInstance) -> nn.Sequential:
    """Return the network to be imitated."""
    blocks: list[nn.Module] = []
    with seeded(instance.seed + 1):
        for block, (expand, reduce) in zip(instance.blocks, features(instance), strict=True):
            if block is None:
                continue
            n, h = block
            mixer = PartialConv2d(instance.channels, n)
            nn.init.normal_(mixer.conv.weight, std=(9 * n) ** -0.5)
            blocks.append(Residual(mixer, Hidden(expand[:h], reduce[:, :h].clone(), torch.ones(h, 1, 1))))
    return nn.Sequential(*blocks).eval()


def student(instance: WideInstance, seed: int) -> nn.Sequential:
    """Return a searchable network with the teacher's features, and kernels and gains of its own."""
    c = instance.channels
    with seeded(10_000 + seed):
        return nn.Sequential(
            *(SearchableResidual(DPConv2d(c), SearchableHidden(*parts), c) for parts in features(instance))
        )


def _stream(instance: WideInstance, seed: int, count: int, batch: int = 16) -> Stream:
    return Stream(teacher(instance), (instance.channels, instance.size, instance.size), seed, count, batch)


def blocks_of(settings: Mapping[str, int], count: int) -> list[Block]:
    """Return the blocks that a search found."""
    return [
        (settings[f"{index}.mixer"], settings[f"{index}.mlp"]) if settings[str(index)] else None
        for index in range(count)
    ]


def wide_error(found: Sequence[Block], answer: Sequence[Block]) -> float:
    """Return the mean distance over decisions: halvings of splits and hidden widths; 1 for a wrong presence.

    The layers of a block count if it is there in both.
    """
    errors: list[float] = []
    for mine, its in zip(found, answer, strict=True):
        errors.append(float((mine is None) != (its is None)))
        if mine is not None and its is not None:
            errors += [abs(math.log2(a / b)) for a, b in zip(mine, its, strict=True)]
    return sum(errors) / len(errors)


def random_error(instance: WideInstance, draws: int = 100) -> float:
    """Return the mean error of random permutations of the teacher's blocks."""
    chance = random.Random(0)
    shuffled = [chance.sample(instance.blocks, len(instance.blocks)) for _ in range(draws)]
    return sum(wide_error(blocks, instance.blocks) for blocks in shuffled) / draws


@dataclass(frozen=True)
class WideFound:
    """What a search found.

    Args:
        blocks: Chosen blocks, in forward order.
        error: Mean distance from the answer, see :func:`wide_error`.
        seconds: CPU time.
        cost: Relative to the budget.
    """

    blocks: list[Block]
    error: float
    seconds: float
    cost: float


def search(instance: WideInstance, method: str, seed: int, steps: int, **options: object) -> WideFound:
    """Let ``method`` look for the teacher's blocks."""
    budget = Budget(
        unit="params",
        scope="network",
        target=instance.target,
        input_shape=(instance.channels, instance.size, instance.size),
    )
    extra = dict(options)
    if method == "supernet":
        extra["validation"] = list(_stream(instance, 30_000 + seed, 2, 32))
    model, batches = student(instance, seed), _stream(instance, 20_000 + seed, steps)
    started = time.process_time()
    result = learn_split(
        model, batches, relative_error, budget, method=method, steps=steps, seed=seed, recipe=RECIPE, **extra
    )  # type: ignore[arg-type]
    blocks = blocks_of(result.settings, len(instance.blocks))
    error = wide_error(blocks, instance.blocks)
    return WideFound(blocks, error, time.process_time() - started, result.cost / result.target)
