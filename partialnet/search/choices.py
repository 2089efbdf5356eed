"""The search space of a network: its choices, grouped into units in the order in which the forward calls them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from torch import nn

from partialnet.layers.choice import Choice, at_levels, choices_of
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


def all_present(model: nn.Module) -> AbstractContextManager[None]:
    """Let each block of ``model`` be there inside a block of code."""
    return at_levels({module: 1 for module in model.modules() if isinstance(module, Droppable)})


class Assignment:
    """The choices of a network, which take the options of a search space.

    Args:
        choices: Choices in the order of the space.
        space: Space, whose values are the lowest levels of each choice.
    """

    def __init__(self, choices: Sequence[Choice], space: SearchSpace) -> None:
        self.choices = choices
        self.space = space
        self._first = [space.flat.index((unit, 0)) for unit in range(len(space.names))]

    def levels(self, chosen: Sequence[int]) -> list[int | None]:
        """Return the level of each choice with option ``chosen[u]`` of unit u; None for choices in an absent block."""
        found: list[int | None] = [None] * len(self.choices)
        for first, row, place in zip(self._first, self.space.options, chosen, strict=True):
            for index, value in enumerate(row[place], first):
                found[index] = self.space.values[index].index(value)
        return found

    def options(self, levels: Sequence[int]) -> list[int]:
        """Return the option of each unit at these levels of its choices."""
        values = [row[level] for row, level in zip(self.space.values, levels, strict=True)]
        return [
            self.space.place(unit, values[first : first + len(names)])
            for unit, (first, names) in enumerate(zip(self._first, self.space.choices, strict=True))
        ]

    def set_levels(self, chosen: Sequence[int]) -> None:
        """Run the choices at their levels from now on; those in absent blocks stay as they are."""
        for choice, level in zip(self.choices, self.levels(chosen), strict=True):
            if level is not None:
                choice.set_level(level)

    def settle(self, chosen: Sequence[int]) -> None:
        """Move the gates to the legal vectors of the levels; those in absent blocks stay as they are."""
        for choice, level in zip(self.choices, self.levels(chosen), strict=True):
            if level is not None:
                choice.choose(choice.levels[level])
