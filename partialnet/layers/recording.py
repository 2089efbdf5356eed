"""Whether a network runs or is being recorded as a graph, asked in a way that TorchScript can compile as well.

TorchScript decides ``is_scripting()`` while it compiles, if that is the whole condition, and leaves the other branch
alone; what it cannot compile must stand there.
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
    """Return whether operations, those on ``x`` say, become a graph: compiled, exported or traced, with numbers or not.

    Not for what TorchScript compiles.
    """
    recorded = torch.compiler.is_compiling() or bool(is_tracing())  # type: ignore[no-untyped-call]
    return recorded or isinstance(x, torch.fx.Proxy)
