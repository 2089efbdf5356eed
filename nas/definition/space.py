"""The search space of a study: distributions of parameters, as a definition writes them. No torch, no ray."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError, model_validator

from nas.definition.words import in_words, place_of

Parameters = Mapping[str, float | int | str | bool]
"""Values sampled for one trial, by name."""


Whole = Annotated[int, Strict()]
"""Whole number: not ``yes``, nor a text such as ``"010"``, which one reader takes for eight and another for ten."""

Real = Annotated[float, Strict()]
"""Number: not a text that looks like one."""


class StrictModel(BaseModel):
    """Base of all sections: refuses unknown keys, infinities and changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Uniform(StrictModel):
    """A uniform distribution between two numbers."""

    uniform: tuple[Real, Real]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.uniform
        if not low < high:
            raise ValueError(f"`low < high` must hold, but got (low={low}, high={high})")
        return self


class LogUniform(StrictModel):
    """A log-uniform distribution between two positive numbers."""

    log_uniform: tuple[Real, Real]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.log_uniform
        if not 0 < low < high:
            raise ValueError(f"`0 < low < high` must hold, but got (low={low}, high={high})")
        return self


class Integer(StrictModel):
    """A uniformly distributed integer between two bounds, both included."""

    int: tuple[Whole, Whole]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.int
        if not low < high:
            raise ValueError(f"`low < high` must hold, but got (low={low}, high={high})")
        return self


class Choice(StrictModel):
    """One value of a list, each with the same probability."""

    choice: tuple[float | int | str | bool, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(map(str, self.choice))) != len(self.choice):
            raise ValueError(f"choices must differ, but got {list(self.choice)}")
        return self


Distribution = Uniform | LogUniform | Integer | Choice
_DISTRIBUTIONS: Mapping[str, type[Distribution]] = MappingProxyType(
    {"uniform": Uniform, "log_uniform": LogUniform, "int": Integer, "choice": Choice}
)


def one_of(known: Mapping[str, object]) -> BeforeValidator:
    """Return the check that a value is a key of ``known``."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and value in known:
            return value
        *others, last = map(repr, known)
        raise ValueError(f"must be {', '.join(others)} or {last}")

    return BeforeValidator(check)


def parse_ratio(entry: Any) -> float:
    """Return a ratio in (0, 1], from a number or a text such as ``1/4``."""
    try:
        ratio = float(Fraction(str(entry).replace(" ", "")))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"a ratio is a number such as 0.25 or 1/4, but got {entry!r}") from None
    if not 0 < ratio <= 1:
        raise ValueError(f"a ratio must be in (0, 1], but got {entry!r}")
    return ratio


def parse_distribution(key: str, entry: Any) -> Any:
    """Return an entry of ``space`` as a distribution, or as the plain value that it is; ``key`` is for messages."""
    if not isinstance(entry, Mapping):
        if isinstance(entry, float) and not math.isfinite(entry):
            raise ValueError(f"{key} must be a finite number, but got {entry}")
        if isinstance(entry, (int, float, str, BaseModel)) and not isinstance(entry, bool):
            return entry
        raise ValueError(f"{key}: give a value or one of {', '.join(_DISTRIBUTIONS)}, but got {entry!r}")
    if len(entry) != 1 or next(iter(entry)) not in _DISTRIBUTIONS:
        raise ValueError(
            f"{key}: a distribution is one of {', '.join(_DISTRIBUTIONS)}, e.g. {{log_uniform: [2, 8]}}, "
            f"but got {dict(entry)!r}"
        )
    name = next(iter(entry))
    try:
        return _DISTRIBUTIONS[name].model_validate(dict(entry))
    except ValidationError as error:
        item = error.errors()[0]
        raise ValueError(f"{key}.{place_of(item) or name}: {in_words(item)} (got {entry[name]!r})") from None


def extremes(entry: Distribution | float | int | str) -> tuple[Any, ...]:
    """Return values that represent all draws: both bounds, each choice, or the constant."""
    match entry:
        case Uniform():
            return entry.uniform
        case LogUniform():
            return entry.log_uniform
        case Integer():
            return entry.int
        case Choice():
            return entry.choice
        case _:
            return (entry,)


def is_numeric(entry: Distribution | float | int | str) -> bool:
    """Return whether all draws of ``entry`` are numbers; truth values are none."""
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in extremes(entry))


def contains(entry: Distribution, value: Any) -> bool:
    """Return whether ``entry`` can yield ``value``."""
    if isinstance(entry, Choice):
        return any(value == known and isinstance(value, bool) == isinstance(known, bool) for known in entry.choice)
    if isinstance(value, (bool, str)) or (isinstance(entry, Integer) and not isinstance(value, int)):
        return False
    low, high = extremes(entry)
    return bool(low <= value <= high)


def written(entry: Distribution) -> str:
    """Return a distribution as a definition writes it, for messages."""
    [(name, values)] = entry.model_dump().items()
    return f"{{{name}: {list(values)}}}"


def spread_over(entry: Distribution | float | int | str, points: int) -> tuple[float, ...]:
    """Return ``points`` values from one bound of ``entry`` to the other, ascending and evenly spaced on its scale.

    For a choice, return its values; for a constant, return this one value.
    """
    values = [float(value) for value in extremes(entry)]
    if isinstance(entry, Choice) or len(values) == 1:
        return tuple(sorted(values))
    low, high = values
    if points == 1:
        return (math.sqrt(low * high) if isinstance(entry, LogUniform) else (low + high) / 2,)
    shares = [index / (points - 1) for index in range(points)]
    if isinstance(entry, LogUniform):
        between = [low * (high / low) ** share for share in shares]
    else:
        between = [low + (high - low) * share for share in shares]
    return (low, *between[1:-1], high)
