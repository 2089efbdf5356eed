"""Compiled training steps: fewer launches than operations, the same weights, names and checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from partialnet.errors import PartialNetError

SHAPES = 16  # of batches, for which code is made before the rest runs as it is


def check_compiler(device: torch.device) -> None:
    """Compile and run something small on ``device``.

    Raises:
        PartialNetError: If that fails; says why.
    """
    # Whatever a compiler, a driver or a missing header makes of it.
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
    """Return what runs as ``model`` does, by code that is compiled when it first runs; parameters and modes are shared.

    Raises:
        PartialNetError: If there is no working compiler.
    """
    check_compiler(device)
    # A last batch of another size has code of its own, faster than code for any size.
    made: nn.Module = compiled_apart(model)
    return made


def compiled_apart(function: Callable[..., Any], backend: str = "inductor") -> Any:
    """Return ``function`` compiled for every shape that it meets, up to 16, whatever else of it has been compiled."""
    return torch.compile(  # type: ignore[call-overload]
        function, dynamic=False, isolate_recompiles=True, recompile_limit=SHAPES, backend=backend
    )
