"""Optimisers with the right parameter groups, and the learning rate of a step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from partialnet.train.recipe import Recipe, learning_rate_factor

_NEVER_DECAYED = ("bias", "table", "gate", "level")


def decayed(name: str, parameter: nn.Parameter, exempt: Iterable[str] = ()) -> bool:
    """Return whether weight decay applies, which is only for kernels and matrices.

    Norms, biases and other vectors, tables of relative positions, and gates have no decay: it would pull a gate towards
    the threshold at which it flips.

    Args:
        name: Name as in ``named_parameters()``.
        parameter: Parameter with this name.
        exempt: Further names that the model excludes (timm's ``no_weight_decay``).
    """
    leaf = name.rpartition(".")[2]
    return parameter.ndim >= 2 and name not in exempt and not any(word in leaf for word in _NEVER_DECAYED)


def build_optimizer(
    model: nn.Module, recipe: Recipe, *, extra_groups: Sequence[Mapping[str, Any]] = ()
) -> torch.optim.Optimizer:
    """Build the recipe's optimiser over all trainable parameters of ``model``.

    Args:
        model: Network to train; its ``no_weight_decay()``, if it has one, names parameters without decay.
        recipe: Optimiser, rates and decay.
        extra_groups: Parameter groups of their own, each with ``params`` and any of the optimiser's options (``lr``,
            ``weight_decay``; 0 if absent). Their parameters are removed from the other groups. A group with
            ``"scheduled": False`` keeps its rate.

    Raises:
        ValueError: If no parameter is trainable.
    """
    groups = [{"weight_decay": 0.0, **group, "params": list(group["params"])} for group in extra_groups]
    taken = {id(parameter) for group in groups for parameter in group["params"]}
    no_weight_decay = getattr(model, "no_weight_decay", None)
    exempt = frozenset(no_weight_decay()) if callable(no_weight_decay) else frozenset()
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in taken:
            (matrices if decayed(name, parameter, exempt) else others).append(parameter)
    groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0}, *groups]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ValueError("the model has no trainable parameters")
    optimizer = _make(groups, recipe)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
        group.setdefault("scheduled", True)
    return optimizer


def _make(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            groups,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.momentum > 0,
            fused=True,
        )
    # Fused: a sixth of the time, which matters for small networks.
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)


def schedule_learning_rate(optimizer: torch.optim.Optimizer, step: int, steps: int, recipe: Recipe) -> float:
    """Set the rates of ``step`` (zero-based) of ``steps`` on each scheduled group; return that of the first group."""
    factor = learning_rate_factor(step, steps, recipe)
    for group in optimizer.param_groups:
        if group["scheduled"]:
            group["lr"] = group["initial_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])
