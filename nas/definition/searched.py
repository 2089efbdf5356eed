"""What a study searches: splits, kernel sizes, hidden widths of MLPs, presence of blocks. No torch, no ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from nas.definition.model import ConvertedSpec, NetworkSpec
from nas.definition.sections import BudgetSpec
from partialnet.kinds import KINDS, Kind

SPLIT_ALONE: tuple[Kind, ...] = ("split",)
"""Kinds of a study without ``space: {search: ...}``."""

_WORDS: Mapping[Kind, str] = MappingProxyType(
    {
        "split": "split",
        "attention": "attended channels",
        "kernel": "kernel size",
        "mlp_ratio": "MLP width",
        "depth": "depth",
    }
)


def network_word(searched: Sequence[Kind]) -> str:
    """Return the noun for what a search finds, or draws at random: ``split``, or ``network`` if it chooses more."""
    return "split" if tuple(searched) == SPLIT_ALONE else "network"


def choice_words(searched: Sequence[Kind]) -> str:
    """Return in words which choices a search makes, such as ``split, MLP width and depth``."""
    *first, last = (_WORDS[kind] for kind in searched)
    return f"{', '.join(first)} and {last}" if first else last


def choices_beside(searched: Sequence[Kind]) -> str:
    """Return the choices in brackets, to stand behind the noun; empty for splits alone, which the noun says."""
    return "" if tuple(searched) == SPLIT_ALONE else f" ({choice_words(searched)})"


def take_search(data: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a definition that ``space: {search: [...], level_step: 16}`` changes: the space without them,
    the kinds, and the step.

    Args:
        data: Definition with its space.
        default: Space of the method, for one that gives only ``search``.

    Raises:
        ValueError: If it is not a list of kinds, or the step no whole number; the message says what would be right.
    """
    for key, written in (("searched", "search: [...]"), ("level_step", "level_step: 16")):
        if key in data:
            raise ValueError(f"{key}: write space: {{{written}}} instead")
    space = data["space"]
    if not isinstance(space, Mapping) or not {"search", "level_step"} & set(space):
        return {}
    given, step = space.get("search", list(SPLIT_ALONE)), space.get("level_step")
    rest = {key: entry for key, entry in space.items() if key not in ("search", "level_step")}
    if step is not None and (isinstance(step, bool) or not isinstance(step, int) or not 1 <= step <= 1024):
        raise ValueError(f"space: level_step must be a whole number of channels from 1 to 1024, but got {step!r}")
    known = ", ".join(KINDS)
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise ValueError(f"space: search must be a list of {known}, but got {given!r}")
    if unknown := [kind for kind in given if kind not in KINDS]:
        raise ValueError(f"space: search has {', '.join(map(repr, unknown))}, but must be a list of {known}")
    kinds = tuple(kind for kind in KINDS if kind in given)
    return {"space": rest or dict(default), "searched": kinds, **({} if step is None else {"level_step": step})}


def check_searched(searched: Sequence[Kind], budget: BudgetSpec, model: NetworkSpec) -> None:
    """Refuse a wider space that budget or network cannot serve.

    Raises:
        ValueError: If one cannot; the message says what would be right.
    """
    wider = ", ".join(kind for kind in searched if kind != "split")
    if not wider:
        return
    if isinstance(model, ConvertedSpec):
        raise ValueError(f"space: search has {wider}, but {model.model} is a converted network: only split is learned")
    if budget.scope == "conv" and set(searched) - {"split", "attention", "kernel"}:
        raise ValueError(
            f"space: search has {wider}, but budget scope 'conv' counts partial convolutions only; give "
            "budget: {scope: network}, and targets as absolute costs"
        )
    parts = [kind for kind in ("kernel", "attention") if kind in searched]
    if parts and "split" not in searched:
        raise ValueError(f"space: search has {parts[0]} without split, but both belong to one layer; add split")
