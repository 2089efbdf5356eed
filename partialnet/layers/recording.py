"""Checks whether a network runs or is being recorded as a graph, in a form that TorchScript can compile as well.

TorchScript decides ``is_scripting()`` while it compiles, if that is the whole condition, and skips the other branch.
Code that it cannot compile must be in that branch.
"""

from __future__ import annotations

import torch
from torch.jit import is_scripting, is_tracing  # type: ignore[attr-defined]

__all__ = ["is_exporting", "is_recorded", "is_scripting", "is_tracing"]


def is_exporting() -> bool:
    """Return whether ``torch.export`` or the ONNX exporter is recording."""
    if is_scripting():
        return False
    else:  # noqa: RET505 (only a branch is left alone)
        return torch.compiler.is_exporting()


def is_recorded(x: object = None) -> bool:
    """Return whether operations, such as those on ``x``, become a graph: compiled, exported or traced, in any mode.

    Code that TorchScript compiles does not count.
    """
    recorded = torch.compiler.is_compiling() or bool(is_tracing())  # type: ignore[no-untyped-call]
    return recorded or isinstance(x, torch.fx.Proxy)
