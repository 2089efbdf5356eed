"""A network and data small enough to be trained in a test, yet with all that matters: norms, dropout, augmentation."""

from __future__ import annotations

import torch
from torch import nn

from partialnet.data import Batches
from partialnet.data.pieces import Transform
from partialnet.data.source import TensorImages


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(32, 4),
        )


def quadrants(count: int = 160, seed: int = 0) -> TensorImages:
    """Noisy images with one bright quadrant, which is the class."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % 4
    images = torch.randint(0, 60, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    for index, target in enumerate(targets.tolist()):
        row, column = divmod(target, 2)
        images[index, 0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 150
    return TensorImages(images, targets, Transform((0.3,), (0.3,), False, 8))


def batches(seed: int = 0) -> Batches:
    return quadrants().batches(32, shuffle_seed=seed, augment="standard")
