"""State dicts as they come: names behind wrappers, and tensors that do not fit a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

# torch.compile, data parallelism and averaging, Lightning: each puts its attribute before every name.
_COMPILED, _WRAPPERS = "_orig_mod", ("_orig_mod", "module", "model")
_Value = TypeVar("_Value")


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside ``torch.compile`` and data-parallel or averaging wrappers, however they are nested."""
    while wrapped := [part for name, part in model.named_children() if name in (_COMPILED, "module")]:
        (model,) = wrapped
    return model


def plain_names(state: Mapping[str, _Value]) -> dict[str, _Value]:
    """Return ``state`` without the names of wrappers that all of its names begin with, in whatever order they are.

    The mark of ``torch.compile`` goes wherever it stands, since parts of a network can be compiled as well.
    """
    plain = {name.replace(f"{_COMPILED}.", ""): value for name, value in state.items()}
    while plain:
        prefix = next((f"{w}." for w in _WRAPPERS if all(name.startswith(f"{w}.") for name in plain)), None)
        if prefix is None:
            break
        plain = {name.removeprefix(prefix): value for name, value in plain.items()}
    return plain


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold NaN or an infinity."""
    return [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not tensor.is_meta and not bool(torch.isfinite(tensor).all())
    ]


def faults(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """Return what keeps ``tensors`` from being the state of a network, one clause for each tensor.

    Args:
        own: State dict of the network, which may be without values (on the meta device).
        tensors: Tensors that are to be its state.
    """
    found = [f"{name} is missing" for name in own if name not in tensors]
    found += [f"{name} is unknown" for name in tensors if name not in own]
    found += [
        f"{name} has shape {list(tensors[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in own.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    found += [f"{name} has no values (it is on the meta device)" for name, tensor in tensors.items() if tensor.is_meta]
    return found + [f"{name} holds values that are not finite" for name in not_finite(tensors)]


def in_words(found: list[str]) -> str:
    """Return the first three of ``found``, and how many more there are."""
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return "; ".join(found[:3]) + more
