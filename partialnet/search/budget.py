"""The budget of a search: a unit, a scope and a target."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import get_args

from torch import nn

from partialnet.errors import BudgetError
from partialnet.search.cost import CostTable, all_costs, layer_costs
from partialnet.search.latency_table import LatencyTable
from partialnet.search.units import Scope, Unit


@dataclass(frozen=True)
class Budget:
    """A target cost; a search meets it within 2 %, or reports why it does not.

    Args:
        unit: Unit of the cost: ``"macs"`` (multiply-adds), ``"params"`` or ``"latency"`` (ms, from ``table``).
        scope: Part of the network that counts: ``"conv"`` for the convolutions of the layers with a learned split (from
            a table: those layers); ``"network"`` for the whole exported network in its inference form.
        target: Absolute cost in the unit; None if ``b`` gives it.
        input_shape: Channels, height, width of one input.
        table: Latency table for the unit ``"latency"``.
        b: Complexity target of the paper, see :meth:`from_b`.

    Raises:
        BudgetError: If the parts do not fit together.
    """

    unit: Unit = "macs"
    scope: Scope = "conv"
    target: float | None = None
    input_shape: tuple[int, int, int] = (3, 224, 224)
    table: LatencyTable | None = None
    b: float | None = field(default=None)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        for name, value, known in (("unit", self.unit, get_args(Unit)), ("scope", self.scope, get_args(Scope))):
            if value not in known:
                raise BudgetError(f"{name} is {value!r}, but must be one of {', '.join(known)}")
        if len(self.input_shape) != 3 or any(not isinstance(size, int) or size < 1 for size in self.input_shape):
            raise BudgetError(f"input_shape is {self.input_shape}, but must be (channels, height, width), 1 at least")
        if (self.unit == "latency") != (self.table is not None):
            raise BudgetError("a latency table works only with unit='latency', and unit='latency' needs one")
        if (self.target is None) == (self.b is None):
            raise BudgetError(f"a budget needs either target or b, but got target={self.target} and b={self.b}")
        if self.target is not None and not (math.isfinite(self.target) and self.target > 0):
            raise BudgetError(f"target is {self.target}, but must be positive and finite")
        if self.b is not None:
            self._check_b(self.b)

    def _check_b(self, b: float) -> None:
        if self.scope != "conv" or self.unit == "latency":
            raise BudgetError(
                f"b counts convolutions (scope 'conv', unit 'macs' or 'params'), but got scope {self.scope!r} and "
                f"unit {self.unit!r}; give an absolute target instead"
            )
        if not (math.isfinite(b) and b >= 1):
            raise BudgetError(f"b is {b}, but must be at least 1, which keeps every channel")

    @classmethod
    def from_b(cls, b: float, *, unit: Unit = "macs", input_shape: tuple[int, int, int]) -> Budget:
        """Return the paper's target: b = 4 allows the cost of the uniform ratio 1/4, in scope ``conv``.

        Args:
            b: Complexity target, at least 1; the absolute target is the cost of all channels over b squared.
            unit: Unit of the cost: ``"macs"`` or ``"params"``.
            input_shape: Channels, height, width of one input.

        Raises:
            BudgetError: If ``b`` is out of its range, or the unit does not allow it.
        """
        return cls(unit=unit, input_shape=input_shape, b=b)

    def resolve(self, model: nn.Module) -> float:
        """Return the absolute target for ``model`` in the unit."""
        if self.target is not None:
            return float(self.target)
        return self.target_of(all_costs(model, self.input_shape, self.unit, self.scope))

    def target_of(self, costs: CostTable) -> float:
        """Return the absolute target for a network with these costs of all options, also of those out of bounds."""
        if self.target is not None:
            return float(self.target)
        assert self.b is not None
        return costs.full / self.b**2

    def check_comparable(self, other: Budget) -> None:
        """Refuse a budget whose costs differ in kind from those of this one.

        Raises:
            BudgetError: If they do; the message gives the difference.
        """
        for name in ("unit", "scope", "input_shape"):
            mine, its = getattr(self, name), getattr(other, name)
            if mine != its:
                raise BudgetError(f"{name} of a further budget is {its!r}, but must be {mine!r}, as in the first one")
        if self.table != other.table:
            raise BudgetError("a further budget has another latency table, but must have that of the first one")

    def absolute(self, model: nn.Module) -> Budget:
        """Return the same budget with an absolute target."""
        return replace(self, target=self.resolve(model), b=None)


def budget_costs(model: nn.Module, budget: Budget) -> CostTable:
    """Return :func:`layer_costs` in the unit and scope of ``budget``."""
    return layer_costs(model, budget.input_shape, budget.unit, budget.scope, budget.table)
