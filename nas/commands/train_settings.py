"""The settings of ``nas train``: flags, ``--set``, a named recipe and defaults, checked in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from nas.definition.recipe import TrainSettings, train_settings
from nas.definition.sections import DataSpec
from nas.definition.text import explain_yaml, parse_yaml
from nas.definition.words import in_words, place_of
from nas.errors import InputError
from partialnet.train.recipe import unused_keys


def settings_of(
    recipe: str | None, flags: Mapping[str, Any], changes: Sequence[str], *, from_weights: bool
) -> TrainSettings:
    """Return the settings of a training.

    Args:
        recipe: Name of a recipe; None for the defaults.
        flags: Values of the flags that were given, by key.
        changes: Texts ``key=value`` of ``--set``.
        from_weights: Whether it starts from trained weights, whose default rate is smaller.

    Raises:
        InputError: If a key is unknown, given twice or without effect, or a value is out of its range.
    """
    given = given_settings(flags, changes)
    unknown = sorted(set(given) - set(TrainSettings.model_fields))
    if unknown:
        raise InputError(f"--set {unknown[0]}: unknown key; known: {', '.join(TrainSettings.model_fields)}")
    try:
        found = train_settings(given, recipe, from_weights=from_weights)
    except ValidationError as error:
        item = error.errors()[0]
        where = place_of(item)
        raise InputError(f"--set {where}={item.get('input')}: {in_words(item)}" if where else in_words(item)) from None
    except ValueError as error:
        raise InputError(f"--recipe: {error}") from None
    idle = unused_keys(found.recipe(), sorted(given))
    if idle:
        raise InputError(f"--set: {'; '.join(idle)}")
    return found


def given_settings(flags: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Return the settings that flags and texts of ``--set`` give, by key.

    Raises:
        InputError: If one is given twice or cannot be read.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    for text in changes:
        key, value = _change(text)
        if key in given:
            raise InputError(f"--set {key}: given twice (now {value!r}, before {given[key]!r}); give it once")
        given[key] = value
    return given


def _change(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {text}: must be key=value, such as mixup=0.2 or sizes=[128,160]")
    try:
        return key.strip(), parse_yaml(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {text}: the value cannot be read ({explain_yaml(error)})") from None


def data_spec(
    name: str, folder: str | None, image_size: int | None, train_limit: int | None, *, skip_broken: bool
) -> DataSpec:
    """Return the data section that flags give.

    Raises:
        InputError: If a value is wrong; the message names the flag.
    """
    values: dict[str, Any] = {
        "name": name, "folder": folder, "image_size": image_size, "train_limit": train_limit, "skip_broken": skip_broken
    }  # fmt: skip
    try:
        return DataSpec(**values)
    except ValidationError as error:
        item = error.errors()[0]
        flags = {"name": "--data", "folder": "--folder", "image_size": "--image-size", "train_limit": "--train-limit"}
        where = flags.get(str(item["loc"][0]), "") if item["loc"] else "--data"
        value = name if where == "--data" else item.get("input")
        raise InputError(f"{where} {value}: {in_words(item)}") from None
