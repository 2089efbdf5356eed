"""Compiled training steps: fewer launches than operations, the same weights, names and checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from partialnet.errors import PartialNetError

SHAPES = 16  # number of shapes of inputs that are compiled before others run uncompiled

_log = logging.getLogger(__name__)


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


class KnownShapes:
    """The shapes of inputs that compiled code has met: beyond the limit, torch runs others uncompiled.

    Args:
        limit: Number of shapes that are compiled.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._met: set[torch.Size] = set()

    def meet(self, shape: torch.Size) -> None:
        """Count a shape; warn at the first one that is not compiled."""
        if shape in self._met or len(self._met) > self.limit:
            return
        self._met.add(shape)
        if len(self._met) > self.limit:
            _log.warning(
                "compile is true, but only the first %d shapes of batches are compiled; others, such as %s, run "
                "uncompiled and slower", self.limit, list(shape)
            )  # fmt: skip


def compiled(model: nn.Module, device: torch.device, shapes: int = SHAPES) -> nn.Module:
    """Return a module that runs like ``model`` with code compiled at its first run; both share parameters and modes.

    Args:
        model: Module to compile.
        device: Device of its parameters.
        shapes: Number of shapes of inputs that are compiled.

    Raises:
        PartialNetError: If there is no working compiler.
    """
    check_compiler(device)
    # A last batch of another size has code of its own, which is faster than code for any size.
    made: nn.Module = compiled_apart(model, shapes=shapes)
    return made


def compiled_apart(
    function: Callable[..., Any], backend: str | Callable[..., Any] = "inductor", shapes: int = SHAPES
) -> Any:
    """Return ``function`` compiled for each input shape, up to ``shapes``, independently of its other compilations."""
    return torch.compile(  # type: ignore[call-overload]
        function, dynamic=False, isolate_recompiles=True, recompile_limit=shapes, backend=backend
    )
