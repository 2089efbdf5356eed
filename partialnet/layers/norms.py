"""Batch normalisations of any kind, and how to run them without moving their running statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from partialnet.layers.level_norm import LevelBatchNorm2d

Norm = LevelBatchNorm2d | _BatchNorm


def batch_norms(modules: Iterable[nn.Module]) -> list[Norm]:
    """Return the batch normalisations among ``modules`` that keep running statistics."""
    return [
        module
        for module in modules
        if isinstance(module, LevelBatchNorm2d) or (isinstance(module, _BatchNorm) and module.track_running_stats)
    ]


@contextmanager
def statistics_kept(norms: Iterable[Norm]) -> Iterator[None]:
    """Let ``norms`` run in the mode that they are in, but leave their running statistics as they are."""
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, _, _ in kept:
        norm.momentum = 0.0
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, momentum, count in kept:
            norm.momentum = momentum
            norm.num_batches_tracked = count


def checkpoint_blocks(blocks: nn.Sequential, x: Tensor) -> Tensor:
    """Run ``blocks`` one after the other, keeping the inputs of each alone; the backward computes the rest again.

    Running statistics see the batch once, in the forward, as they do without.
    """
    for block in blocks:
        if torch.compiler.is_compiling():
            # A compiled backward changes no buffers, and the compiler takes no contexts of others.
            x = checkpoint(block, x, use_reentrant=False)
        else:
            x = checkpoint(block, x, use_reentrant=False, context_fn=_contexts(block))
    return x


def _contexts(block: nn.Module) -> Callable[[], tuple[AbstractContextManager[None], AbstractContextManager[None]]]:
    """Return what the forward and the recomputation of ``block`` run in."""
    return lambda: (nullcontext(), statistics_kept(batch_norms(block.modules())))
