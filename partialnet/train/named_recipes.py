"""Recipes by name: one file each in ``recipes/``. Loads no torch."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any

from partialnet.errors import PartialNetError

_FOLDER = files("partialnet.train") / "recipes"


def recipe_names() -> list[str]:
    """Return the names of all recipes, sorted."""
    return sorted(entry.name.removesuffix(".toml") for entry in _FOLDER.iterdir() if entry.name.endswith(".toml"))


def read_recipe(name: str) -> dict[str, Any]:
    """Read the settings of a recipe.

    Returns:
        Fields of :class:`partialnet.train.recipe.Recipe`, and ``epochs``, ``batch_size``, ``image_size`` (if the recipe
        is for one size) and ``rate_batch``, the batch size that the learning rate is for.

    Raises:
        PartialNetError: If there is no such recipe; the message lists the known ones.
    """
    if name not in recipe_names():
        raise PartialNetError(f"unknown recipe {name!r}; known: {', '.join(recipe_names())}")
    return tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
