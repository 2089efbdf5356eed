"""The units of a search and their options: what may be chosen together in one place of a network. Loads no torch.

A unit is a choice that no other contains: a layer with a learned split, an MLP, or a block that may be absent, together
with the choices inside. An option of a unit gives a value to each of its choices. Only the presence of a block and what
is inside depend on each other, in cost and value: an absent block costs nothing, whatever its layers would be. So all
other choices are units of their own, and a cost is a sum over units in any case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from partialnet.errors import BudgetError

Option = tuple[int, ...]
"""Values of the choices of a unit; of an absent block only the first, which is 0."""


@dataclass(frozen=True)
class SearchSpace:
    """Units, their choices and their options.

    Args:
        names: Module names of the units, in forward order.
        choices: Module names of the choices of each unit; the presence of a block precedes its layers.
        quantities: Quantities of these choices: ``"active_channels"``, ``"hidden_channels"`` or ``"presence"``.
        options: Options of each unit, ascending; the first one with all choices is the smallest, the last the largest.
    """

    names: tuple[str, ...]
    choices: tuple[tuple[str, ...], ...]
    quantities: tuple[tuple[str, ...], ...]
    options: tuple[tuple[Option, ...], ...]

    @classmethod
    def of_layers(cls, names: Sequence[str], levels: Sequence[Sequence[int]]) -> SearchSpace:
        """Return the space of layers with a learned split, each of which is a unit.

        Args:
            names: Module names of the layers.
            levels: Numbers of active channels of each layer, ascending.
        """
        options = tuple(tuple((n,) for n in row) for row in levels)
        return cls(tuple(names), tuple((name,) for name in names), (("active_channels",),) * len(options), options)

    @cached_property
    def kinds(self) -> frozenset[str]:
        """Quantities that are chosen anywhere."""
        return frozenset(quantity for row in self.quantities for quantity in row)

    @cached_property
    def flat(self) -> tuple[tuple[int, int], ...]:
        """Unit and place in the unit of each choice, in the order of the units."""
        return tuple((unit, place) for unit, row in enumerate(self.choices) for place in range(len(row)))

    @cached_property
    def values(self) -> tuple[tuple[int, ...], ...]:
        """Values of each choice that options have, ascending, in the order of :attr:`flat`."""
        return tuple(
            tuple(sorted({option[place] for option in self.options[unit] if len(option) > place}))
            for unit, place in self.flat
        )

    @cached_property
    def _places(self) -> tuple[Mapping[Option, int], ...]:
        return tuple({option: place for place, option in enumerate(row)} for row in self.options)

    def droppable(self, unit: int) -> bool:
        """Return whether the unit is a block that may be absent."""
        return self.quantities[unit][0] == "presence"

    def smallest(self, unit: int) -> int:
        """Return the first option of a unit with all its choices."""
        return next(place for place, option in enumerate(self.options[unit]) if self.is_whole(unit, option))

    def is_whole(self, unit: int, option: Option) -> bool:
        """Return whether an option is not that of an absent block."""
        return not (self.droppable(unit) and option[0] == 0)

    def place(self, unit: int, values: Sequence[int]) -> int:
        """Return the option in which the choices of a unit have these values; those in an absent block do not matter.

        Raises:
            KeyError: If there is no such option.
        """
        option = (0,) if self.droppable(unit) and not values[0] else tuple(values)
        return self._places[unit][option]

    def settings(self, chosen: Sequence[int]) -> dict[str, int]:
        """Return the values of all choices by module name, without those in absent blocks.

        Args:
            chosen: Option (an index) of each unit.
        """
        found: dict[str, int] = {}
        for names, row, place in zip(self.choices, self.options, chosen, strict=True):
            found |= dict(zip(names, row[place], strict=False))
        return found

    def active_channels(self, chosen: Sequence[int]) -> dict[str, int]:
        """Return the active channels by module name, without layers of absent blocks."""
        splits = {
            name
            for names, quantities in zip(self.choices, self.quantities, strict=True)
            for name, quantity in zip(names, quantities, strict=True)
            if quantity == "active_channels"
        }
        return {name: value for name, value in self.settings(chosen).items() if name in splits}

    def chosen(self, settings: Mapping[str, int]) -> tuple[int, ...]:
        """Return the option of each unit that :meth:`settings` describes.

        Raises:
            BudgetError: If a choice is missing, or has a value that the space does not have.
        """
        found = []
        for unit, names in enumerate(self.choices):
            values = [settings.get(name) for name in names]
            needed = 1 if self.droppable(unit) and values[0] == 0 else len(names)
            for place in range(needed):
                known = sorted({option[place] for option in self.options[unit] if len(option) > place})
                if values[place] not in known:
                    raise BudgetError(
                        f"{names[place]}: {self.quantities[unit][place]} is {values[place]}, but the space has "
                        f"{', '.join(map(str, known))}"
                    )
            found.append(self.place(unit, [value or 0 for value in values]))
        return tuple(found)

    def up_to(self, limits: Mapping[str, float]) -> list[list[int]]:
        """Return the options of each unit in which no choice is above its limit.

        Args:
            limits: Largest value by name of the choice; others have no limit.
        """
        return [
            [
                place
                for place, option in enumerate(row)
                if all(value <= limits.get(name, value) for name, value in zip(names, option, strict=False))
            ]
            for names, row in zip(self.choices, self.options, strict=True)
        ]

    def kept(self, keep: Sequence[Sequence[int]]) -> SearchSpace:
        """Return the space of some options of each unit (indices, ascending)."""
        options = tuple(
            tuple(row[place] for place in places) for row, places in zip(self.options, keep, strict=True)
        )
        return SearchSpace(self.names, self.choices, self.quantities, options)


def options_of(levels: Sequence[Sequence[int]], *, droppable: bool) -> tuple[Option, ...]:
    """Return the options of a unit, ascending: all combinations of levels, and absence if it is a block.

    Args:
        levels: Levels of each choice; of a block its presence first.
        droppable: Whether the first choice is the presence of a block.
    """
    if droppable:
        return ((0,), *((1, *others) for others in product(*levels[1:])))
    return tuple(product(*levels))
