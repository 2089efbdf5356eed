"""A search that was interrupted: all that it needs to go on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from partialnet.errors import BudgetError
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
        return cls(**{name: content[name] for name in cls.__dataclass_fields__})

    def check(self, plan: Mapping[str, Any]) -> None:
        """Refuse to go on with other arguments.

        Raises:
            BudgetError: Names what differs.
        """
        differing = [key for key in plan if self.plan.get(key) != plan[key]]
        if differing:
            details = ", ".join(f"{key} {self.plan.get(key)!r} (now {plan[key]!r})" for key in differing)
            raise BudgetError(f"the search to go on with was made with {details}; use the same, or start anew")
