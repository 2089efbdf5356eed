"""Stratified selections of images: each class keeps its share, and a seed selects the same images everywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from partialnet.errors import DataError


def stratified_split(targets: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Divide images in two parts, each class in the same proportion up to rounding.

    Args:
        targets: Class of each image, int64 [N].
        count: Number of images in the second part.
        seed: Seed of the selection.

    Returns:
        Indices of the first part (N - count) and of the second (count), ascending.

    Raises:
        DataError: If ``count`` is not in 0..N.
    """
    total = len(targets)
    if not 0 <= count <= total:
        raise DataError(f"{count} images were requested, but there are {total}")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(total, dtype=torch.bool)
    sizes = torch.bincount(targets) if total else torch.zeros(0, dtype=torch.int64)
    for label, quota in enumerate(_quotas(sizes.tolist(), count)):
        members = (targets == label).nonzero().flatten()
        chosen[members[torch.randperm(len(members), generator=generator)[:quota]]] = True
    return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()


def _quotas(sizes: list[int], count: int) -> list[int]:
    """Divide ``count`` among classes by largest remainders, in integers: no rounding differs between machines."""
    total = sum(sizes)
    if total == 0:
        return [0] * len(sizes)
    quotas = [size * count // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda label: (-(sizes[label] * count % total), label))
    for label in by_remainder[: count - sum(quotas)]:
        quotas[label] += 1
    return quotas
