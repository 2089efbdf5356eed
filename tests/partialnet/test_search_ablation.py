"""One kind of choice alone, at equal cost: closed forms on a made-up space, whatever its kinds are called."""

from __future__ import annotations

from itertools import product

import pytest

from partialnet.search.ablation import only_kind
from partialnet.search.cost import CostTable
from partialnet.search.space import SearchSpace

# Two layers with choices "colour" 1, 2, 4 and "size" 2, 4, 8: the cost is the sum of colour * 10 + size.
OPTIONS = tuple((colour, size) for colour in (1, 2, 4) for size in (2, 4, 8))
SPACE = SearchSpace(("a", "b"), (("a.c", "a.s"), ("b.c", "b.s")), (("colour", "size"),) * 2, (OPTIONS,) * 2)
TABLE = CostTable.of(SPACE, [[10 * colour + size for colour, size in OPTIONS]] * 2)


def place(colour: int, size: int) -> int:
    return OPTIONS.index((colour, size))


def options(levels: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [OPTIONS[level] for level in levels]


PUBLISHED = (place(2, 4), place(2, 4))


def test_the_learned_kind_stays_and_the_other_is_uniform() -> None:
    learned = (place(1, 2), place(4, 4))  # 12 + 44
    found = only_kind(TABLE, learned, PUBLISHED, "colour", 58, tolerance=0.001)
    # With all sizes 4, colours 1 and 4 cost 14 + 44.
    assert (options(found.levels), found.cost, found.within_budget) == ([(1, 4), (4, 4)], 58, True)


def test_another_uniform_value_is_taken_if_the_published_one_cannot_reach_the_cost() -> None:
    learned = (place(4, 8), place(4, 8))
    found = only_kind(TABLE, learned, PUBLISHED, "size", 96, tolerance=0.001)
    # Sizes alone reach 56 at most with colour 2; with colour 4 the learned sizes fit.
    assert (options(found.levels), found.within_budget) == ([(4, 8), (4, 8)], True)


def test_the_closest_choices_of_the_cost_are_taken() -> None:
    learned = (place(4, 4), place(4, 4))
    found = only_kind(TABLE, learned, PUBLISHED, "colour", 58, tolerance=0.001)
    # 1 and 4, or 4 and 1, are one colour off by two octaves; nothing else costs 58 with uniform sizes of 4.
    assert sorted(option[0] for option in options(found.levels)) == [1, 4]
    every = [sum(10 * c + 4 for c in colours) for colours in product((1, 2, 4), repeat=2)]
    assert every.count(58) == 2


def test_a_cost_out_of_reach_is_flagged() -> None:
    found = only_kind(TABLE, PUBLISHED, PUBLISHED, "size", 500)
    assert not found.within_budget
    assert found.cost <= 96


def test_an_absent_block_has_learned_nothing_inside() -> None:
    # A block of width 1, 2 or 4 that may be absent, and a plain layer.
    blocks = ((0,), (1, 1), (1, 2), (1, 4))
    space = SearchSpace(("b", "l"), (("b", "b.w"), ("l",)), (("presence", "width"), ("width",)), (blocks, ((1,), (2,))))
    table = CostTable.of(space, [[0, 10, 20, 40], [1, 2]])
    learned, published = (0, 1), (2, 0)
    alone = only_kind(table, learned, published, "presence", 1, tolerance=0.001)
    assert (alone.levels, alone.within_budget) == ((0, 0), True)
    widths = only_kind(table, learned, published, "width", 12, tolerance=0.001)
    assert (widths.levels, widths.within_budget) == ((1, 1), True)  # the block is there, of any width


@pytest.mark.parametrize("quantity", ["colour", "size"])
def test_a_published_network_is_its_own_ablation(quantity: str) -> None:
    found = only_kind(TABLE, PUBLISHED, PUBLISHED, quantity, TABLE.total(PUBLISHED), tolerance=0.001)
    assert found.levels == PUBLISHED
