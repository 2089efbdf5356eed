"""Mixed precision of a training: autocast, gradients that are scaled in float16, and weights that stay in float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from partialnet.errors import ArchitectureError, PartialNetError
from partialnet.train.recipe import Recipe

_HALVES: Mapping[str, torch.dtype] = MappingProxyType({"bfloat16": torch.bfloat16, "float16": torch.float16})


def autocast(device: torch.device, recipe: Recipe) -> AbstractContextManager[Any]:
    """Return the context in which a network runs in the precision of ``recipe``."""
    dtype = _HALVES.get(recipe.precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def run_model(model: nn.Module, inputs: Tensor, recipe: Recipe) -> Tensor:
    """Return the outputs of ``model``, computed in the precision of ``recipe``.

    They are float32 where autocast made them less: a loss would keep three digits, and its scaled gradient none.
    """
    with autocast(inputs.device, recipe):
        outputs: Tensor = model(inputs)
    return outputs.float() if outputs.dtype == _HALVES.get(recipe.precision) else outputs


def check_weights(model: nn.Module) -> None:
    """Refuse weights in float16, which cannot be trained: steps below a thousandth of a weight are lost.

    Raises:
        ArchitectureError: Names the first of them, and the way to train in float16.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.dtype == torch.float16:
            raise ArchitectureError(
                f"{name} is float16, but weights are trained in float32: use model.float(), and "
                "Recipe(precision='float16') to compute in float16"
            )


def check_precision(recipe: Recipe, device: torch.device) -> None:
    """Try the precision of ``recipe`` on ``device`` before hours depend on it.

    Raises:
        PartialNetError: If a convolution or its gradient cannot be had in it.
    """
    dtype = _HALVES.get(recipe.precision)
    if dtype is None:
        return
    image = torch.zeros(1, 1, 3, 3, dtype=dtype, device=device, requires_grad=True)
    try:
        nn.functional.conv2d(image, torch.ones_like(image), padding=1).sum().backward()  # type: ignore[no-untyped-call]
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise PartialNetError(
            f"precision is {recipe.precision}, which torch cannot compute in on {device} ({reason}); use float32"
        ) from error


class Scaler:
    """Scales the loss so that gradients fit into float16, and leaves steps out whose gradients do not; else nothing.

    All of it happens on the device: the host never learns whether a step was left out.

    Args:
        recipe: Scales if its precision is float16.
        device: Of the network.
    """

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.enabled = recipe.precision == "float16"
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.enabled)
        self._one = torch.ones((), device=device)

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of the scaled loss."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    @property
    def scale(self) -> Tensor:
        """The present factor, where the loss is."""
        return self._scaler.scale(self._one)

    def step(self, optimizer: torch.optim.Optimizer, weights: Iterable[Tensor], clip_norm: float) -> None:
        """Take a step along the unscaled gradients of ``weights``, of the norm ``clip_norm`` at most unless it is 0."""
        self._scaler.unscale_(optimizer)
        if clip_norm > 0:
            nn.utils.clip_grad_norm_(weights, clip_norm)
        self._scaler.step(optimizer)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Return the factor and how long it has held; empty if nothing is scaled."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the factor of another scaler; an empty state, as older files have, leaves this one as it is."""
        if self.enabled and state:
            self._scaler.load_state_dict(dict(state))
