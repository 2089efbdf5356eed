"""P1, P2 and P10: the algebra of gates against the dense Kronecker form, for all vectors."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from partialnet.errors import ArchitectureError
from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.gates import (
    MARGIN,
    binary_gates,
    flip_efforts,
    gate_level,
    legal_gates,
    order_loss,
    split_levels,
)
from tests.partialnet.kronecker import mask, relation, selection

GRID = [(m, k) for m in (1, 3, 5, 7) for k in range(1, 6)]


def vectors(count: int) -> list[torch.Tensor]:
    return [torch.tensor(bits, dtype=torch.float64) for bits in itertools.product((0.0, 1.0), repeat=count)]


def check_masks(m: int, count: int) -> None:
    channels = m * 2**count
    for gates in vectors(count):
        n = m * 2 ** int(gates.sum())
        u, q, p = relation(gates, m), selection(gates, m), mask(gates, m)
        assert torch.equal(u.sum(0), torch.full((channels,), float(n), dtype=torch.float64))
        assert torch.equal(u.sum(1), u.sum(0))
        assert q.sum() == n
        assert torch.equal(p, u * torch.outer(q, q))
        assert torch.equal(p, torch.outer(q, q))
        assert p.count_nonzero() == n**2 == m**2 * math.prod(1 + 3 * int(g) for g in gates)
        assert u.count_nonzero() == channels * n


@pytest.mark.parametrize(("m", "count"), GRID)
def test_masks_have_the_closed_forms(m: int, count: int) -> None:
    check_masks(m, count)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("m", "count"), [(m, k) for m in (1, 3, 5, 7) for k in (6, 7, 8)])
def test_masks_of_up_to_eight_gates_have_the_closed_forms(m: int, count: int) -> None:
    check_masks(m, count)


@pytest.mark.slow
@pytest.mark.parametrize("m", [1, 3, 5, 7])
def test_the_selection_is_contiguous_in_legal_order_up_to_eight_gates(m: int) -> None:
    for count in (6, 7, 8):
        for gates in vectors(count):
            n = m * 2 ** int(gates.sum())
            q = selection(gates, m)
            assert q.sum() == n
            assert bool(q[:n].all()) == (float(order_loss(2 * gates - 1)) == 0)


@pytest.mark.parametrize(("m", "count"), GRID)
def test_the_selection_is_contiguous_exactly_in_legal_order(m: int, count: int) -> None:
    legal = 0
    for gates in vectors(count):
        n = m * 2 ** int(gates.sum())
        contiguous = bool(selection(gates, m)[:n].all())
        real = (2 * gates - 1) * 0.3
        assert contiguous == (float(order_loss(real)) == 0) == (gates.tolist() == sorted(gates.tolist()))
        legal += contiguous
    assert legal == count + 1


def test_the_order_loss_sums_from_the_first_zero_that_follows_a_one() -> None:
    gates = torch.tensor([-0.1, 0.2, 0.4, -0.3, 0.5], requires_grad=True)
    loss = order_loss(gates)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.8)
    assert gates.grad is not None
    assert gates.grad.tolist() == [0, 0, 0, -1, 1]


def test_every_permutation_of_a_gate_vector_has_the_same_forward() -> None:
    torch.manual_seed(0)
    layer = DPConv2d(24, rest="channel_attention").eval()
    x = torch.randn(2, 24, 3, 3)
    outputs = []
    for permutation in itertools.permutations((0.2, -0.1, -0.4)):
        layer.gates.data = torch.tensor(permutation)
        outputs.append(layer(x))
    assert all(torch.equal(out, outputs[0]) for out in outputs)


@pytest.mark.parametrize("count", range(1, 9))
def test_legal_gates_are_legal_and_flip_one_by_one(count: int) -> None:
    for level in range(count + 1):
        gates = legal_gates(level, count)
        assert gate_level(gates) == level
        assert float(order_loss(gates)) == 0
        assert float(gates.abs().min()) == pytest.approx(MARGIN)
        assert gates.unique().numel() == count
        for shift in (-1.01, 1.01):
            moved = gates + shift * MARGIN
            assert abs(gate_level(moved) - level) <= 1
            assert float(order_loss(moved)) == 0


def test_the_straight_through_factor_is_a_half_within_one() -> None:
    gates = torch.tensor([-1.5, -1.0, -0.2, 0.0, 0.7, 1.0, 1.2], requires_grad=True)
    binary = binary_gates(gates)
    binary.sum().backward()
    assert binary.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert gates.grad is not None
    assert gates.grad.tolist() == [0, 0.5, 0.5, 0.5, 0.5, 0.5, 0]


@pytest.mark.parametrize(("value", "on"), [(0.0, True), (-0.0, True), (1e-8, True), (-1e-8, False)])
def test_gates_at_the_threshold_are_whole(value: float, on: bool) -> None:
    layer = DPConv2d(8)
    with torch.no_grad():
        layer.gates.fill_(value)
    assert layer.active_channels == (8 if on else 1)
    assert torch.isfinite(layer(torch.randn(1, 8, 3, 3))).all()


def test_a_gate_that_is_no_number_is_refused() -> None:
    layer = DPConv2d(8)
    with torch.no_grad():
        layer.gates[1] = float("nan")
    with pytest.raises(ArchitectureError, match="must be numbers"):
        layer(torch.randn(1, 8, 3, 3))


@given(gates=st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=1, max_size=8))
def test_flip_efforts_are_the_least_movement(gates: list[float]) -> None:
    efforts = flip_efforts(torch.tensor(gates, dtype=torch.float64))
    level = gate_level(torch.tensor(gates, dtype=torch.float64))
    for wanted, effort in enumerate(efforts):
        candidates = (
            sum(abs(gates[i]) for i in flipped)
            for size in range(len(gates) + 1)
            for flipped in itertools.combinations(range(len(gates)), size)
            if sum((g >= 0) != (i in flipped) for i, g in enumerate(gates)) == wanted
        )
        assert effort == pytest.approx(min(candidates))
    assert efforts[level] == 0


@pytest.mark.parametrize(
    ("channels", "rest", "heads", "least", "levels"),
    [
        (48, "identity", 4, None, (3, 6, 12, 24, 48)),
        (48, "self_attention", 4, None, (12, 24, 48)),
        (1280, "self_attention", 4, None, (20, 40, 80, 160, 320, 640, 1280)),
        (256, "self_attention", 4, None, (4, 8, 16, 32, 64, 128, 256)),
        (64, "channel_attention", 4, 10, (16, 32, 64)),
        (96, "self_attention", 6, None, (6, 12, 24, 48, 96)),
    ],
)
def test_levels(channels: int, rest: str, heads: int, least: int | None, levels: tuple[int, ...]) -> None:
    assert split_levels(channels, rest=rest, num_heads=heads, min_channels=least) == levels
    if rest == "self_attention":
        assert all(n % heads == 0 and (channels - n) % heads == 0 for n in levels)


@pytest.mark.parametrize(
    ("channels", "rest", "least", "step", "levels"),
    [
        (64, "identity", None, 16, (16, 32, 48, 64)),
        (72, "channel_attention", 20, 16, (32, 48, 64, 72)),
        (16, "identity", None, 16, (1, 2, 4, 8, 16)),
        (24, "self_attention", None, 6, (12, 24)),
    ],
)
def test_levels_in_steps(channels: int, rest: str, least: int | None, step: int, levels: tuple[int, ...]) -> None:
    assert split_levels(channels, rest=rest, min_channels=least, level_step=step) == levels


def test_a_step_is_positive_and_many_gates_stay_within_one() -> None:
    with pytest.raises(ArchitectureError, match="level_step is 0, but must be at least 1"):
        split_levels(64, level_step=0)
    assert all(float(legal_gates(level, 40).abs().max()) <= 1 for level in range(41))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"channels": 7}, "7 channels cannot be split by halving; take a multiple of 2"),
        ({"channels": 512, "rest": "self_attention", "num_heads": 6}, "6 attention heads; take a multiple of 12"),
        ({"channels": 32, "min_channels": 20}, "min_channels=20"),
        ({"channels": 32, "min_channels": 40}, "min_channels is 40, but must be in 1 to 32"),
        ({"channels": 32, "rest": "pooling"}, "rest is 'pooling'"),
        ({"channels": 32, "active_channels": 12}, "must be one of 1, 2, 4, 8, 16, 32"),
    ],
)
def test_an_impossible_layer_says_what_would_be_right(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ArchitectureError, match=words):
        DPConv2d(**arguments)  # type: ignore[arg-type]
