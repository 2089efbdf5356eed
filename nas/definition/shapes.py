"""Swept shapes of a study's network: ``space: {width: [0.75, 1], resolution: [24, 32]}``. No torch, no ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from pydantic import ValidationError

from nas.definition.model import ModelSpec, NetworkSpec
from nas.definition.space import Distribution, Integer, LogUniform, Parameters, Uniform, extremes
from nas.definition.words import in_words

SHAPE_KEYS = ("width", "resolution")
"""Parameters that change the shape of the network: its width as a multiple of the study's, and its resolution."""

_STEP = 4  # of the width of the first stage, whose quarter is an integer then


def spread_out(key: str, entry: Any) -> Any:
    """Return an entry of ``space``, with a plain list of a shape as the choice that it means."""
    if key in SHAPE_KEYS and isinstance(entry, Sequence) and not isinstance(entry, str):
        return {"choice": list(entry)}
    return entry


def shape_options(model: NetworkSpec, parameters: Parameters) -> dict[str, Any]:
    """Return the constructor arguments in which a trial's network differs from the study's.

    Args:
        model: Network of the study.
        parameters: Parameters of the trial, with the constants of the space.
    """
    if not isinstance(model, ModelSpec):
        return {}
    options: dict[str, Any] = {}
    if "width" in parameters:
        options["embed_dim"] = _STEP * round(float(parameters["width"]) * model.value("embed_dim") / _STEP)
    if "resolution" in parameters:
        options["resolution"] = int(parameters["resolution"])
    return {key: value for key, value in options.items() if value != _own(model, key)}


def _own(model: ModelSpec, option: str) -> Any:
    return model.resolution if option == "resolution" else model.value(option)


def shapes_of(space: Mapping[str, Distribution | float | int | str]) -> list[dict[str, Any]]:
    """Return the extreme combinations of swept shapes: each choice, or both bounds; one without any if none is swept.
    """
    axes = [[(key, value) for value in extremes(space[key])] for key in SHAPE_KEYS if key in space]
    return [dict(combination) for combination in product(*axes)]


def check_shape(key: str, value: Any, model: NetworkSpec) -> None:
    """Refuse a value of a shape that the network cannot have.

    Raises:
        ValueError: If it cannot; the message says what would be right.
    """
    if not isinstance(model, ModelSpec):
        raise ValueError(
            f"space: {key} is for networks of this package's family; {model.model} takes its shape from model.options"
        )
    if isinstance(value, (bool, str)) or value <= 0:
        raise ValueError(f"space: {key} must be a positive number, but got {value!r}")
    if key == "resolution" and not isinstance(value, int):
        raise ValueError(f"space: resolution takes whole numbers of pixels, but got {value!r}")
    try:
        model.reshaped(shape_options(model, {key: value}))
    except ValidationError as error:
        item = error.errors()[0]
        raise ValueError(f"space: {key}={value:g}: {item['loc'][-1]} {in_words(item)}") from None


def check_shapes(space: Mapping[str, Distribution | float | int | str], table: str | None) -> None:
    """Refuse swept shapes with a latency table, unless it can be measured for each of them.

    Args:
        space: Space of the study.
        table: Latency table of the study: ``auto``, or a file; None for none.

    Raises:
        ValueError: If it cannot; the message says what would be right.
    """
    swept = [key for key in SHAPE_KEYS if key in space]
    if table is None or not swept:
        return
    if table != "auto":
        raise ValueError(
            f"space: {', '.join(swept)} changes the network, but the table of a file belongs to one shape; give "
            "latency: {table: auto}, which measures each shape"
        )
    for key in swept:
        if isinstance(space[key], (Uniform, LogUniform, Integer)):
            raise ValueError(
                f"space: {key} is a range, but a latency table is measured for each shape; give a list of values"
            )
