"""The state of an interrupted search, from which it continues without a difference."""

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
    """The state after a step of a search.

    Args:
        plan: Arguments that a resumed search must share.
        step: Number of completed steps.
        epoch: Number of complete passes over the batches.
        index: Number of batches taken in the present pass.
        frozen_batches: Number of steps since the levels froze.
        model: State of the module, a copy of its ``state_dict()``.
        optimizer: State of the weights' optimiser, a copy.
        method: Levels, estimates and generators of the method.
        history: Mappings of plain values, one for each step.
        projection: Result of the projection, once the levels are frozen.
        scaler: State of the gradients' scaler; empty if gradients are not scaled.
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
            PartialNetError: If the file cannot be read, or holds no state; the message names it.
        """
        content = read_tensors(path, SCHEMA)
        content.setdefault("scaler", {})  # files from before float16 have none
        missing = sorted(set(cls.__dataclass_fields__) - set(content))
        if missing:
            raise PartialNetError(f"{path}: not the state of a search: {', '.join(missing)} missing")
        return cls(**{name: content[name] for name in cls.__dataclass_fields__})

    def check(self, plan: Mapping[str, Any], model: nn.Module) -> None:
        """Refuse to resume with other arguments, or with another network.

        Raises:
            BudgetError: If they differ; the message names the differences.
        """
        had, has = _shapes(self.model), _shapes(model.state_dict())
        tensors = [f"{key} {had.get(key)} (now {has.get(key)})" for key in has | had if had.get(key) != has.get(key)]
        if tensors:
            raise BudgetError(f"the search to resume belongs to another network: it has {_few(tensors)}")
        mine, wanted = _flat(self.plan), _flat(plan)
        arguments = [
            f"{key} {mine.get(key)!r} (now {wanted.get(key)!r})"
            for key in wanted | mine
            if mine.get(key) != wanted.get(key)
        ]
        if arguments:
            raise BudgetError(
                f"the search to resume had {_few(arguments)}; use the same, or start anew"
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
