"""Compiled training steps: fewer launches than operations, the same weights, names and checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from partialnet.errors import PartialNetError

SHAPES = 16  # number of batch shapes that are compiled before others run uncompiled


def check_compiler(device: torch.device) -> None:
    """Compile and run a small function on ``device``.

    Raises:
        PartialNetError: If that fails; the message says why.
    """
    # A compiler, a driver or a missing header can raise any type here.
    try:
        torch.compile(_something_small, fullgraph=True)(torch.zeros(2, device=device))
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise PartialNetError(
            f"compile is true, but torch.compile cannot make code for {device} here ({reason[0]}); install a C++ "
            "compiler (on a GPU also Triton), or leave compile out"
        ) from error


def _something_small(x: Tensor) -> Tensor:
    return (x + 1).sin()


def compiled(model: nn.Module, device: torch.device) -> nn.Module:
    """Return a module that runs like ``model`` with code compiled at its first run; both share parameters and modes.

    Raises:
        PartialNetError: If there is no working compiler.
    """
    check_compiler(device)
    # A last batch of another size has code of its own, which is faster than code for any size.
    made: nn.Module = compiled_apart(model)
    return made


def compiled_apart(function: Callable[..., Any], backend: str = "inductor") -> Any:
    """Return ``function`` compiled for each input shape, up to 16, independently of its other compilations."""
    return torch.compile(  # type: ignore[call-overload]
        function, dynamic=False, isolate_recompiles=True, recompile_limit=SHAPES, backend=backend
    )
