"""A search that was interrupted: all that it needs to go on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from partialnet.errors import BudgetError, PartialNetError
from partialnet.train.checkpoint import read_tensors, write_tensors

SCHEMA = 1


@dataclass(frozen=True)
class SearchState:
    """What stands after a step of a search.

    Args:
        plan: Arguments that the search that goes on must have as well.
        step: Steps done.
        epoch: Passes over the batches that are complete.
        index: Batches taken of the present pass.
        frozen_batches: Steps since the levels froze.
        model: The module's ``state_dict()``, copied.
        optimizer: Of the weights, likewise.
        method: Levels, estimates and generators of the method.
        history: One mapping of plain values per step.
        projection: What the search settled on, once the levels are frozen.
        scaler: State of the gradients' scale; empty where nothing is scaled.
    """

    plan: Mapping[str, Any]
    step: int
    epoch: int
    index: int
    frozen_batches: int
    model: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    method: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...]
    projection: Mapping[str, Any] | None = None
    scaler: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the state to a file, whole or not at all."""
        write_tensors(path, {"schema": SCHEMA, **{name: getattr(self, name) for name in self.__dataclass_fields__}})

    @classmethod
    def load(cls, path: Path) -> SearchState:
        """Read a state as tensors and plain values only.

        Raises:
            PartialNetError: If the file cannot be read, or is none; names it.
        """
        content = read_tensors(path, SCHEMA)
        content.setdefault("scaler", {})  # files from before float16 have none
        missing = sorted(set(cls.__dataclass_fields__) - set(content))
        if missing:
            raise PartialNetError(f"{path}: not the state of a search: {', '.join(missing)} missing")
        return cls(**{name: content[name] for name in cls.__dataclass_fields__})

    def check(self, plan: Mapping[str, Any], model: nn.Module) -> None:
        """Refuse to go on with other arguments, or with another network.

        Raises:
            BudgetError: Names what differs.
        """
        had, has = _shapes(self.model), _shapes(model.state_dict())
        tensors = [f"{key} {had.get(key)} (now {has.get(key)})" for key in has | had if had.get(key) != has.get(key)]
        if tensors:
            raise BudgetError(f"the search to go on with was that of another network: it has {_few(tensors)}")
        mine, wanted = _flat(self.plan), _flat(plan)
        arguments = [
            f"{key} {mine.get(key)!r} (now {wanted.get(key)!r})"
            for key in wanted | mine
            if mine.get(key) != wanted.get(key)
        ]
        if arguments:
            raise BudgetError(
                f"the search to go on with was made with {_few(arguments)}; use the same, or start anew"
            )


def _flat(plan: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in plan.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(getattr(value, "shape", ())) for key, value in state.items()}


def _few(parts: Sequence[str]) -> str:
    more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
    return ", ".join(parts[:3]) + more
