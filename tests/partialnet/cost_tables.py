"""Cost tables for tests: small random ones, and closed forms of the variants."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import strategies as st
from torch import nn

from partialnet.layers.gates import split_levels
from partialnet.search.cost import CostTable
from partialnet.search.latency_parts import Circumstances, Constant, LayerKey, Timing
from partialnet.search.latency_rows import latency_keys
from partialnet.search.latency_table import LatencyTable
from partialnet.variants import VARIANTS

TOLERANCE = 0.02


def table_of(costs: list[list[float]], constant: float = 0.0) -> CostTable:
    return CostTable(
        tuple(f"layer{i}" for i in range(len(costs))),
        tuple(tuple(range(1, len(row) + 1)) for row in costs),
        tuple(map(tuple, costs)),
        constant,
    )


def variant_table(variant: str, unit: str, scope: str) -> CostTable:
    """Closed-form costs at 224x224, with attention's in scope network."""
    v = VARIANTS[variant]
    names, levels, costs = [], [], []
    draw = random.Random(0)
    for stage, depth in enumerate(v.depths):
        channels, positions = v.embed_dim * 2**stage, (56 >> stage) ** 2
        last = stage == len(v.depths) - 1
        row = split_levels(channels, rest="self_attention" if last else "channel_attention")
        for block in range(depth):
            names.append(f"stages.{stage}.blocks.{block}.mixer")
            levels.append(row)
            costs.append(tuple(_cost(channels, n, positions, unit, scope, last, draw) for n in row))
    return CostTable(tuple(names), tuple(levels), tuple(costs), sum(map(max, costs)) / 2 if scope == "network" else 0)


def _cost(channels: int, n: int, positions: int, unit: str, scope: str, last: bool, draw: random.Random) -> float:
    left = channels - n
    if unit == "latency":
        return draw.uniform(20, 40) + 500 * (n / channels) ** 1.2
    conv = 9 * n * n * (positions if unit == "macs" else 1)
    if scope == "conv":
        return conv
    if not last:
        return conv + 2 * left**2
    return conv + (4 * positions * left**2 + 2 * positions**2 * left if unit == "macs" else 4 * left**2)


@st.composite
def problems(draw: st.DrawFn) -> tuple[CostTable, float, list[list[float]]]:
    layers = draw(st.integers(1, 6))
    sizes = [draw(st.integers(2, 5 if layers < 5 else 3)) for _ in range(layers)]
    number = st.integers(1, 400) if draw(st.booleans()) else st.floats(0.1, 100)
    costs = [draw(st.lists(number, min_size=size, max_size=size)) for size in sizes]
    efforts = [draw(st.lists(st.floats(0, 2), min_size=size, max_size=size)) for size in sizes]
    table = table_of(costs, draw(st.integers(0, 500)))
    return table, draw(st.floats(0.05, 1.1 * table.maximum)), efforts


CIRCUMSTANCES = Circumstances("one core", 1, "float32", "contiguous", 1, "synthetic")


def latency_table(
    model: nn.Module, shape: tuple[int, int, int], time: Callable[[LayerKey], float], constant: float | None = None
) -> LatencyTable:
    """Return a table with every row that ``model`` needs, its times computed from the key."""
    keys = {key for rows in latency_keys(model, shape).values() for calls in rows for key in calls}
    fitted = None if constant is None else Constant("synthetic", constant, 1, 0.0)
    return LatencyTable(CIRCUMSTANCES, {key: Timing(time(key), 30, 0.0) for key in keys}, fitted)
