"""A budget in milliseconds, as people write it, and its meaning for the other sections. Loads neither torch nor ray.

``budget: {unit: latency, target: 12, runtime: onnx, threads: 1}`` says in one place what three sections hold: the
circumstances stand in ``latency``, the target in ``space``, and a hard limit (``at_most``) among the ``constraints``
as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.definition.constraints import Constraint, parse_constraint

_CIRCUMSTANCES = ("runtime", "device", "threads", "batch", "table")
_TARGETS = ("target", "at_most")
_LOWEST = 0.86  # of a hard limit: where the targets of a front begin, so that 8 of them lie 2 % apart
PREDICTED = "predicted_ms"
MEASURED = "latency_ms"


def spelled_out(data: Mapping[str, Any], default_space: Mapping[str, Any], *, yields_front: bool) -> dict[str, Any]:
    """Return the sections of a definition that its budget in milliseconds implies; empty for another unit.

    Args:
        data: Definition as it was written.
        default_space: Space of the method, for a definition without one.
        yields_front: Whether a trial of the method yields a network for each of several targets.

    Raises:
        ValueError: If a key contradicts another section, or belongs to another unit; the message names both.
    """
    budget = data.get("budget")
    if not isinstance(budget, Mapping):
        return {}
    given = [key for key in (*_TARGETS, *_CIRCUMSTANCES) if budget.get(key) is not None]
    if budget.get("unit") != "latency":
        if given:
            raise ValueError(
                f"budget: {', '.join(given)} works only with unit 'latency'; targets of other units stand in 'space', "
                "e.g. space: {target: 4}"
            )
        return {}
    kept = {key: value for key, value in budget.items() if key not in (*_CIRCUMSTANCES, "target")}
    filled: dict[str, Any] = {"budget": kept, "objectives": data.get("objectives", ("top1", PREDICTED))}
    latency = data.get("latency", {})
    if isinstance(latency, Mapping):
        filled["latency"] = {"table": "auto", **_joined(budget, latency)}
    if any(key in given for key in _TARGETS):
        filled["space"] = _space(budget, data.get("space", dict(default_space)), "space" in data, yields_front)
    limit = budget.get("at_most")
    if limit is not None:
        filled["constraints"] = _limited(data.get("constraints", ()), float(limit))
    return filled


def _joined(budget: Mapping[str, Any], latency: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section ``latency`` with the circumstances that the budget names."""
    named = {key: budget[key] for key in _CIRCUMSTANCES if budget.get(key) is not None}
    for key, value in named.items():
        if key in latency and latency[key] != value:
            raise ValueError(f"budget.{key} is {value!r}, but latency.{key} is {latency[key]!r}; give one of them")
    return {**latency, **named}


def _space(budget: Mapping[str, Any], space: Any, written: bool, yields_front: bool) -> Any:
    """Return the space with the target of the budget."""
    target, limit = (_milliseconds(key, budget.get(key)) for key in _TARGETS)
    if target is not None and limit is not None:
        raise ValueError(f"budget: give target ({target:g}) or at_most ({limit:g}), not both")
    if not isinstance(space, Mapping):
        return space
    if written and "target" in space:
        if target is not None and space["target"] != target:
            raise ValueError(f"budget.target is {target:g}, but space.target is {space['target']!r}; give one of them")
        return space  # a limit leaves the targets below it to the user
    if target is not None:
        return {**space, "target": target}
    assert limit is not None
    return {**space, "target": {"uniform": [round(_LOWEST * limit, 6), limit]} if yields_front else limit}


def _milliseconds(key: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ValueError(f"budget.{key} is {value!r}, but must be a positive number of milliseconds")
    return float(value)


def _limited(constraints: Any, limit: float) -> Any:
    if not isinstance(constraints, (list, tuple)):
        return constraints
    implied = Constraint(MEASURED, limit)
    if implied in [_parsed(entry) for entry in constraints]:
        return constraints
    return [*constraints, str(implied)]


def _parsed(entry: Any) -> Constraint | None:
    try:
        return parse_constraint(entry)
    except ValueError:
        return None  # the check of the constraints says what is wrong


def told_limits(constraints: tuple[Constraint, ...], *, table: bool) -> tuple[Constraint, ...]:
    """Return the limits on latency that a searcher can learn: with a table, one on the measured latency holds for the
    predicted one as well.

    Args:
        constraints: Constraints of the study.
        table: Whether the study has a latency table.
    """
    if not table:
        return ()
    own = {(limit.bound, limit.at_most) for limit in constraints if limit.metric == PREDICTED}
    measured = (limit for limit in constraints if limit.metric == MEASURED)
    return tuple(Constraint(PREDICTED, m.bound, m.at_most) for m in measured if (m.bound, m.at_most) not in own)


def check_untimed(unit: str, objectives: Sequence[str], constraints: Sequence[Constraint]) -> None:
    """Refuse predicted milliseconds in a study without a latency table.

    Raises:
        ValueError: If budget, objectives or constraints need them; the message names the place.
    """
    for place, wants in (
        ("budget: unit 'latency'", unit == "latency"),
        ("objectives: 'predicted_ms'", PREDICTED in objectives),
        ("constraints: 'predicted_ms'", any(limit.metric == PREDICTED for limit in constraints)),
    ):
        if wants:
            raise ValueError(f"{place} needs a latency table; give latency: {{table: auto}}")
