"""What rings are worth: running estimates from both sides, and the additive model of a supernet's scores."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from partialnet.errors import BudgetError
from partialnet.layers.dpconv import DPConv2d
from partialnet.search.cost import layer_costs
from partialnet.search.gates import GatesMethod
from partialnet.search.ring_values import RingValues
from partialnet.search.space import SearchSpace
from partialnet.search.step_batch import StepBatch
from partialnet.search.value_model import RIDGE, fit_values
from tests.samples import examples

number = st.floats(-10, 10)


@settings(max_examples=examples(50))
@given(
    seen=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.booleans(), number), max_size=30),
    horizon=st.floats(1, 50),
)
def test_values_are_faded_means_of_both_sides(seen: list[tuple[int, int, bool, float]], horizon: float) -> None:
    rings = [3, 2]
    seen = [(layer, min(ring, rings[layer] - 1), present, value) for layer, ring, present, value in seen]
    values = RingValues(rings, horizon)
    for layer, ring, present, value in seen:
        values.fade()
        values.observe(layer, ring, present=present, value=value)
    assert values.observed == bool(seen)
    for layer, count in enumerate(rings):
        expected = []
        for ring in range(count):
            sides = []
            for side in (False, True):
                marks = [
                    (math.exp(-(len(seen) - 1 - step) / horizon), value)
                    for step, (*where, value) in enumerate(seen)
                    if where == [layer, ring, side]
                ]
                if marks:
                    sides.append(sum(w * v for w, v in marks) / sum(w for w, _ in marks))
            expected.append(sum(sides) / len(sides) if sides else 0.0)
        assert values.of(layer) == pytest.approx(expected, rel=1e-6, abs=1e-9)
        assert values.efforts(layer) == pytest.approx([0.0, *itertools.accumulate(expected)], rel=1e-6, abs=1e-9)
    copy = RingValues(rings, horizon)
    copy.load_state_dict(values.state_dict())
    assert [copy.of(0), copy.of(1)] == [values.of(0), values.of(1)]


@pytest.mark.parametrize("ring", range(3))
def test_a_value_seen_from_both_sides_is_exact_for_a_quadratic_loss(ring: int) -> None:
    """The layer is linear in the ring's switch, so a squared error is quadratic in it."""
    torch.manual_seed(ring)
    layer = DPConv2d(8).double()
    table = layer_costs(layer, (8, 5, 5))
    method = GatesMethod(
        [layer], table, 1.0, complexity_exponent=0.0, penalty=0.0, learning_rate=0.1, seed=0, horizon=1e9
    )
    inputs, targets = torch.randn(4, 8, 5, 5).double(), torch.randn(4, 8, 5, 5).double()
    batch = StepBatch(inputs, targets, layer, F.mse_loss)
    losses = [float(method.probed(batch, [level])[0]) for level in (ring, ring + 1)]
    assert method.values.of(0)[ring] == pytest.approx(losses[1] - losses[0], rel=1e-5)
    one_sided = RingValues([3], 1e9)
    _, found = method.probed(batch, [ring])
    one_sided.observe(0, ring, present=False, value=found[0][1])
    assert abs(one_sided.of(0)[ring] - (losses[1] - losses[0])) > 1e-3, "one side alone is not exact"


def truth(draw: st.DrawFn, distinct: bool = False) -> tuple[list[tuple[int, ...]], list[list[float]], float]:
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4).filter(lambda found: max(found) > 1))
    levels = [tuple(2**level for level in range(size)) for size in sizes]
    count = sum(size - 1 for size in sizes)
    entries = draw(st.permutations([0.3 * i - 1 for i in range(count)])) if distinct else None
    steps = iter(entries or draw(st.lists(number, min_size=count, max_size=count)))
    rings = [[0.0, *itertools.accumulate(next(steps) for _ in range(size - 1))] for size in sizes]
    return levels, rings, draw(number)


@st.composite
def additive(draw: st.DrawFn) -> tuple[list[tuple[int, ...]], list[list[float]], float]:
    return truth(draw)


@st.composite
def additive_and_distinct(draw: st.DrawFn) -> tuple[list[tuple[int, ...]], list[list[float]], float]:
    return truth(draw, distinct=True)


Truth = tuple[list[tuple[int, ...]], list[list[float]], float]


def samples(found: Truth, count: int | None = None) -> tuple[list[str], list[tuple[int, ...]], list[float]]:
    levels, rings, base = found
    chosen = list(itertools.product(*(range(len(row)) for row in levels)))[:count]
    losses = [base + sum(row[level] for row, level in zip(rings, one, strict=True)) for one in chosen]
    return [f"layer{i}" for i in range(len(levels))], chosen, losses


@settings(max_examples=examples(60))
@given(found=additive())
def test_an_additive_truth_is_recovered_without_a_pull(found: Truth) -> None:
    names, chosen, losses = samples(found)
    model = fit_values(SearchSpace.of_layers(names, found[0]), chosen, losses, ridge=1e-10)
    assert model.base == pytest.approx(found[2], abs=1e-5)
    for row, expected in zip(model.rings, found[1], strict=True):
        assert row == pytest.approx(expected, abs=1e-5)
    for one, loss in zip(chosen, losses, strict=True):
        active = {name: found[0][i][level] for i, (name, level) in enumerate(zip(names, one, strict=True))}
        assert model.predict(active) == pytest.approx(loss, abs=1e-5)
    assert model.residual < 1e-5


@settings(max_examples=examples(60))
@given(found=additive_and_distinct())
def test_the_pull_keeps_the_order_of_the_levels(found: Truth) -> None:
    names, chosen, losses = samples(found)
    model = fit_values(SearchSpace.of_layers(names, found[0]), chosen, losses)
    for row, expected in zip(model.rings, found[1], strict=True):
        assert row[0] == 0
        for (a, b), (x, y) in zip(itertools.combinations(row, 2), itertools.combinations(expected, 2), strict=True):
            if abs(x - y) > 0.5:
                assert (a < b) == (x < y)
    assert RIDGE > 0


def test_the_prediction_is_the_base_and_the_rings() -> None:
    space = SearchSpace.of_layers(["a", "b"], [(1, 2, 4), (3, 6)])
    model = fit_values(space, [(0, 0), (1, 0), (2, 1), (0, 1)], [4.0, 3.0, 1.5, 3.5])
    for i, n in enumerate((1, 2, 4)):
        for j, m in enumerate((3, 6)):
            assert model.predict({"a": n, "b": m}) == model.base + model.rings[0][i] + model.rings[1][j]
    assert model.samples[2] == ({"a": 4, "b": 6}, 1.5)
    errors = [model.predict(active) - loss for active, loss in model.samples]
    assert model.residual == pytest.approx(math.sqrt(sum(e * e for e in errors) / 4))
    assert sum(errors) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("chosen", "losses", "base"), [([(1, 0)], [2.5], 2.5), ([(1, 0), (1, 0)], [2.0, 3.0], 2.5)]
)
def test_rings_that_no_sample_tells_apart_are_worth_nothing(
    chosen: list[tuple[int, ...]], losses: list[float], base: float
) -> None:
    model = fit_values(SearchSpace.of_layers(["a", "b"], [(1, 2), (1, 2)]), chosen, losses)
    assert model.rings == ((0.0, 0.0), (0.0, 0.0))
    assert model.base == base


@pytest.mark.parametrize(
    ("active", "words"),
    [
        ({"a": 3, "b": 1}, "a: active_channels is 3, but the space has 1, 2"),
        ({"a": 1}, "b: active_channels is None, but the space has 1, 2"),
    ],
)
def test_an_unknown_network_is_refused(active: dict[str, Any], words: str) -> None:
    model = fit_values(SearchSpace.of_layers(["a", "b"], [(1, 2), (1, 2)]), [(0, 0)], [1.0])
    with pytest.raises(BudgetError, match=words):
        model.predict(active)


def test_a_value_model_needs_a_sample() -> None:
    with pytest.raises(BudgetError, match="at least one network"):
        fit_values(SearchSpace.of_layers(["a"], [(1, 2)]), [], [])
