"""The parameters of a study's space: their names and values. Loads neither torch nor ray."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from nas.definition.methods import METHODS
from nas.definition.model import NetworkSpec
from nas.definition.sections import BudgetSpec, TrainingSpec
from nas.definition.shapes import SHAPE_KEYS, check_shape
from nas.definition.space import Distribution, LogUniform, Uniform, extremes
from nas.definition.words import in_words


def check_parameter(
    key: str, entry: Distribution | float | int | str, method: str, budget: BudgetSpec, model: NetworkSpec
) -> None:
    """Refuse a parameter that a method does not know, or values that it cannot have.

    Args:
        key: Name of the parameter.
        entry: Value of all trials, or distribution.
        method: Name of the search method.
        budget: Budget of the study.
        model: Network of the study.

    Raises:
        ValueError: If it is unknown or a value is out of its range; the message says what would be right.
    """
    _check_name(key, method)
    if isinstance(entry, (Uniform, LogUniform)) and key in TrainingSpec.model_fields:
        _check_continuous(key, entry)
    for value in extremes(entry):
        if key in SHAPE_KEYS:
            check_shape(key, value, model)
        elif key in TrainingSpec.model_fields:
            _check_training(key, value)
        else:
            _check_own(key, value, budget)


def _check_name(key: str, method: str) -> None:
    own = METHODS[method].space
    training = [name for name in TrainingSpec.model_fields if name not in METHODS[method].unused]
    if key in own or key in training or key in SHAPE_KEYS:
        return
    shapes = f"; of the network: {', '.join(SHAPE_KEYS)}"
    if key in TrainingSpec.model_fields or any(key in known.space for known in METHODS.values()):
        raise ValueError(
            f"space: method {method} has no parameter {key!r}; its own are {', '.join(own)}, and the keys of "
            f"'training' that it uses: {', '.join(training)}{shapes}"
        )
    raise ValueError(f"space: unknown parameter {key!r}; known: {', '.join([*own, *training])}{shapes}")


def _check_continuous(key: str, entry: Uniform | LogUniform) -> None:
    # Its bounds may be whole numbers, but a draw between them is not, and would fail trial after trial.
    if TrainingSpec.model_fields[key].annotation is int:
        low, high = extremes(entry)
        raise ValueError(f"space: {key} takes whole numbers: use {{int: [{low:g}, {high:g}]}} or {{choice: [...]}}")


def _check_training(key: str, value: Any) -> None:
    try:
        TrainingSpec(**{key: value})
    except ValidationError as error:
        raise ValueError(f"space: {key}={value!r}: {in_words(error.errors()[0])}") from None


def _check_own(key: str, value: Any, budget: BudgetSpec) -> None:
    if isinstance(value, (bool, str)):
        raise ValueError(f"space: {key} must be a number, but got {value!r}")
    low = 1.0 if key == "target" and budget.scope == "conv" else 0.0
    if value < low or (key == "target" and value == 0):
        meaning = " (b in scope 'conv': 1 keeps every channel)" if low else ""
        raise ValueError(f"space: {key} must be at least {low:g}{meaning}, but got {value:g}")
