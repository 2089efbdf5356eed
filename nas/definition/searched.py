"""What a study searches in its network: splits, hidden widths of MLPs, presence of blocks. No torch, no ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.definition.model import ConvertedSpec, NetworkSpec
from nas.definition.sections import BudgetSpec
from partialnet.kinds import KINDS, Kind

SPLIT_ALONE: tuple[Kind, ...] = ("split",)
"""Kinds of a study without ``space: {search: ...}``."""


def take_search(data: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a definition that ``space: {search: [...]}`` changes: the space without it, and the kinds.

    Args:
        data: Definition with its space.
        default: Space of the method, for one that gives only ``search``.

    Raises:
        ValueError: If it is not a list of kinds; the message names them.
    """
    if "searched" in data:
        raise ValueError("searched: write space: {search: [...]} instead")
    space = data["space"]
    if not isinstance(space, Mapping) or "search" not in space:
        return {}
    given = space["search"]
    rest = {key: entry for key, entry in space.items() if key != "search"}
    known = ", ".join(KINDS)
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise ValueError(f"space: search must be a list of {known}, but got {given!r}")
    if unknown := [kind for kind in given if kind not in KINDS]:
        raise ValueError(f"space: search has {', '.join(map(repr, unknown))}, but must be a list of {known}")
    return {"space": rest or dict(default), "searched": tuple(kind for kind in KINDS if kind in given)}


def check_searched(searched: Sequence[Kind], method: str, budget: BudgetSpec, model: NetworkSpec) -> None:
    """Refuse a wider space that method, budget or network cannot serve.

    Raises:
        ValueError: If one cannot; the message says what would be right.
    """
    wider = ", ".join(kind for kind in searched if kind != "split")
    if not wider:
        return
    if isinstance(model, ConvertedSpec):
        raise ValueError(f"space: search has {wider}, but {model.model} is a converted network: only split is learned")
    if budget.unit == "latency":
        raise ValueError(f"space: search has {wider}, but a latency table has times of partial convolutions only")
    if budget.scope == "conv":
        raise ValueError(
            f"space: search has {wider}, but budget scope 'conv' counts partial convolutions only; give "
            "budget: {scope: network}, and targets as absolute costs"
        )
    if method == "fractional" and "depth" in searched and len(searched) > 1:
        raise ValueError(
            "space: method fractional cannot search the presence of blocks together with their layers; leave depth "
            "out, or take method gates or supernet"
        )
