"""Constraints of a study, such as ``latency_ms <= 20``: limits that networks keep. Loads neither torch nor ray."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from nas.metrics import METRICS

_NUMBER = r"[0-9][0-9.]*(?:[eE][+-]?[0-9]+)?"
_FORM = re.compile(rf"\s*(?P<metric>\w+)\s*(?P<sign><=|>=)\s*(?P<bound>{_NUMBER})\s*(?P<unit>\S*)\s*")
_COUNTS: Mapping[str, float] = MappingProxyType({"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9})
_EXAMPLE = "'latency_ms <= 20 ms' or 'params <= 1.5 M' or 'top1 >= 90 %'"


@dataclass(frozen=True)
class Constraint:
    """A limit on a metric of a network.

    Args:
        metric: Key of :data:`nas.metrics.METRICS`.
        bound: Limit in the stored unit of the metric (a fraction, not percent), which is allowed itself.
        at_most: Whether the limit is the greatest allowed value; otherwise it is the least.
    """

    metric: str
    bound: float
    at_most: bool = True

    def __str__(self) -> str:
        return f"{self.metric} {'<=' if self.at_most else '>='} {self.bound!r}"

    def violation(self, values: Mapping[str, float]) -> float | None:
        """Return by how much a network breaks the limit, as a share of it; not positive if it keeps the limit.

        Args:
            values: Values of the network by metric; without one for this metric, the result is None.
        """
        if self.metric not in values:
            return None
        return float(self.excess(values[self.metric])) / (abs(self.bound) or 1.0)

    def excess(self, value: Any) -> Any:
        """Return by how much a value, or each value of an array, breaks the limit; not positive if it keeps it."""
        return value - self.bound if self.at_most else self.bound - value


def parse_constraint(value: Any) -> Constraint:
    """Return a constraint from its text: metric, ``<=`` or ``>=``, number, and the unit if it has one.

    Raises:
        ValueError: If it has another form, the metric is unknown, or the unit is not one of the metric.
    """
    if isinstance(value, Constraint):
        return value
    found = _FORM.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"a constraint is a text such as {_EXAMPLE}, but got {value!r}")
    name = found["metric"] if found["metric"] in METRICS else f"{found['metric']}_ms"
    if name not in METRICS:
        raise ValueError(f"unknown metric {found['metric']!r}; known: {', '.join(METRICS)}")
    units = _units(name)
    if found["unit"] not in units:
        known = " or ".join(repr(unit) for unit in units if unit)
        raise ValueError(f"{name} has no unit {found['unit']!r}; leave it out, or write {known or 'nothing'}")
    try:
        bound = float(found["bound"]) * units[found["unit"]]
    except ValueError:
        raise ValueError(f"a constraint is a text such as {_EXAMPLE}, but got {value!r}") from None
    if not math.isfinite(bound):
        raise ValueError(f"the limit of {name} must be a finite number, but got {found['bound']}")
    return Constraint(name, bound, found["sign"] == "<=")


def _units(metric: str) -> Mapping[str, float]:
    facts = METRICS[metric]
    if facts.percent:
        return {"": 1.0, "%": 0.01}
    if facts.is_count:
        return _COUNTS
    return {"": 1.0, "ms": 1.0} if metric.endswith("_ms") else {"": 1.0}


ConstraintText = Annotated[Constraint, BeforeValidator(parse_constraint), PlainSerializer(str)]
"""A constraint in a definition, which is written as a text."""


def broken(constraints: Sequence[Constraint], values: Mapping[str, float]) -> tuple[Constraint, ...]:
    """Return the constraints that a network breaks; one without a value of a metric does not break its limit."""
    return tuple(limit for limit in constraints if (limit.violation(values) or 0.0) > 0)
