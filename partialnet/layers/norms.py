"""Batch normalisations of any kind, and contexts that keep their running statistics."""

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
    """Let ``norms`` run in their present mode inside the block, but keep their running statistics."""
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
    """Run ``blocks`` one after the other and keep only the inputs of each; the backward recomputes the rest.

    Running statistics see the batch once, in the forward, as without checkpointing.
    """
    for block in blocks:
        if torch.compiler.is_compiling():
            # A compiled backward changes no buffers, and the compiler does not accept foreign contexts.
            x = checkpoint(block, x, use_reentrant=False)
        else:
            x = checkpoint(block, x, use_reentrant=False, context_fn=_contexts(block))
    return x


def _contexts(block: nn.Module) -> Callable[[], tuple[AbstractContextManager[None], AbstractContextManager[None]]]:
    """Return the contexts for the forward and the recomputation of ``block``."""
    return lambda: (nullcontext(), statistics_kept(batch_norms(block.modules())))
