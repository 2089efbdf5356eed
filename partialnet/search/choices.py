"""The search space of a network: its choices, grouped into units in the order in which the forward calls them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import nn

from partialnet.layers.choice import Choice, choices_of
from partialnet.layers.droppable import Droppable
from partialnet.search.space import SearchSpace, options_of


def units_of(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return the units of a network by module name, with the names of their choices; a block's own comes first."""
    units: dict[str, tuple[str, ...]] = {}
    for name in choices_of(model):
        around = next((unit for unit in units if name.startswith(f"{unit}.") or not unit), None)
        if around is None:
            units[name] = (name,)
        else:
            units[around] += (name,)
    return units


def space_of(model: nn.Module, called: Sequence[str]) -> SearchSpace:
    """Return the search space of a network.

    Args:
        model: Network with choices.
        called: Names of the choices in the order of their first call.
    """
    choices, units = choices_of(model), units_of(model)
    names = tuple(name for name in called if name in units)
    inside = [units[name] for name in names]
    return SearchSpace(
        names,
        tuple(inside),
        tuple(tuple(choices[name].quantity for name in row) for row in inside),
        tuple(
            options_of([choices[name].levels for name in row], droppable=isinstance(choices[row[0]], Droppable))
            for row in inside
        ),
    )


def in_order(choices: Mapping[str, Choice], space: SearchSpace) -> list[Choice]:
    """Return the choices of a space in the order of its units."""
    return [choices[name] for row in space.choices for name in row]


@contextmanager
def all_present(model: nn.Module) -> Iterator[None]:
    """Let each block of ``model`` be there inside the block of code."""
    blocks = [module for module in model.modules() if isinstance(module, Droppable)]
    kept = [block._level for block in blocks]
    for block in blocks:
        block.set_level(1)
    try:
        yield
    finally:
        for block, level in zip(blocks, kept, strict=True):
            block.set_level(level)
