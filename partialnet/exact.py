"""Exact comparison of the forms of a network, independent of the process's precision settings.

Torch may compute float32 convolutions and products in TF32 or bfloat16 (``fp32_precision``, ``allow_tf32``,
``set_float32_matmul_precision``), and autocast lowers them further. Two kernels for the same numbers then differ by
1e-3, which says nothing about the forms. None of this affects float64, so copies of the forms are compared in float64.

The switches themselves stay unchanged, because torch cannot restore all of them. A switch that was never set follows
the one above it; once it was set, it never does so again, whatever is written to it (torch 2.14).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from partialnet.errors import ArchitectureError
from partialnet.layers.copying import copied

TOLERANCE = 1e-5


def exact_outputs(models: Sequence[nn.Module], x: Tensor) -> list[list[Tensor]]:
    """Return the outputs of each model for ``x`` in eval mode, all computed in one precision.

    They are computed in float64, each on the device of its model. If a module refuses that (it casts to float32 inside,
    or its device has no float64), all are computed on the CPU in float32, in full precision. The models, the random
    numbers and torch's precision switches stay unchanged.

    Args:
        models: Forms to compare, of any floating type.
        x: Inputs of one batch.

    Returns:
        Output tensors of each model, one or several, in float64 on the CPU.

    Raises:
        ArchitectureError: If a model runs in neither way; the message gives both reasons.
    """
    with _outside_autocast(models):
        try:
            return [_run(model, x, torch.float64, None) for model in models]
        except (RuntimeError, TypeError) as refused:
            try:
                with _without_onednn():
                    return [_run(model, x, torch.float32, "cpu") for model in models]
            except (RuntimeError, TypeError) as error:
                raise ArchitectureError(
                    f"{type(models[0]).__name__} cannot be compared exactly: in float64 it fails ({refused}), and in "
                    f"float32 on the CPU as well ({error})"
                ) from error


def random_input(shape: tuple[int, int, int], batch: int = 2) -> Tensor:
    """Return inputs [batch, \\*shape] to compare forms with, always the same ones; float32, on the CPU."""
    # It has its own generator, because an export must not change the random numbers of a training.
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))


def outputs_of(out: Any) -> list[Tensor]:
    """Return the tensors of what a network returned: one, or several in a sequence."""
    return [out] if isinstance(out, Tensor) else [part for part in out if isinstance(part, Tensor)]


def check_equal(name: str, expected: Tensor, got: Tensor, *, forms: str, consequence: str) -> None:
    """Refuse outputs that differ by more than 1e-5 of the largest expected one (at least 1).

    Args:
        name: Name of the place or output, with which a message begins.
        expected: Outputs of the first form.
        got: Outputs of the second form.
        forms: Names of the two forms.
        consequence: Consequence of a difference, in words.

    Raises:
        ArchitectureError: If shapes or values differ; the message gives the difference and the limit.
    """
    if got.shape != expected.shape:
        raise ArchitectureError(
            f"{name}: {forms} have outputs of shapes {list(expected.shape)} and {list(got.shape)}, so {consequence}"
        )
    limit = TOLERANCE * max(1.0, float(expected.abs().max()))
    difference = float((got - expected).abs().max())
    if not difference <= limit:  # this form also refuses NaN
        raise ArchitectureError(
            f"{name}: outputs of {forms} differ by {difference:.3g}, but at most {limit:.3g} is allowed, so "
            f"{consequence}"
        )


def _run(model: nn.Module, x: Tensor, dtype: torch.dtype, device: str | None) -> list[Tensor]:
    place = device or next((parameter.device for parameter in model.parameters()), x.device)
    with torch.no_grad():
        out = copied(model).to(device=place, dtype=dtype).eval()(x.to(device=place, dtype=dtype))
    return [output.to(device="cpu", dtype=torch.float64) for output in outputs_of(out)]


@contextmanager
def _outside_autocast(models: Sequence[nn.Module]) -> Iterator[None]:
    """Turn autocast off inside the block, and run compiled modules uncompiled."""
    devices = {"cpu", *(parameter.device.type for model in models for parameter in model.parameters())}
    with ExitStack() as stack:
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        if "torch._dynamo" in sys.modules:  # otherwise nothing is compiled, and its import takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


@contextmanager
def _without_onednn() -> Iterator[None]:
    """Turn oneDNN off inside the block: by itself it can lower the precision of float32 on a CPU."""
    switch: Any = torch.backends.mkldnn
    enabled = switch.enabled
    switch.enabled = False
    try:
        yield
    finally:
        switch.enabled = enabled
