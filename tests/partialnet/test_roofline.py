"""The roofline's counts, against closed forms and against fvcore."""

from __future__ import annotations

from functools import cache

import pytest

from nas.probes.flops import count_operations
from tests.benchmarks.bench_inference import network
from tests.benchmarks.roofline import Row, bounds, main, roofline, totals

BATCH = 16
NUMBER = 2  # bytes


@cache
def rows_of(name: str) -> list[Row]:
    return roofline([name], batch=BATCH)


def block(name: str, block: str) -> Row:
    return next(row for row in rows_of(name) if row.block == block)


@pytest.mark.parametrize(
    "name", ["partialnet_t0", "fasternet_t0", pytest.param("partialnet_t2", marks=pytest.mark.long)]
)
def test_multiply_adds_are_those_of_the_network(name: str) -> None:
    counted = sum(count_operations(network(name), (3, 224, 224)).counted.values())
    assert totals(rows_of(name))[name].macs == pytest.approx(BATCH * counted, rel=0.01)


@pytest.mark.parametrize(
    ("name", "channels", "plain", "eager", "least"),
    [
        # copied, convolved, put together, 2 pointwise convolutions, norm, activation, shortcut
        pytest.param("fasternet_t0", 40, 20, 20, 7.5, id="fasternet"),
        # copied and convolved 1, put in place 0.5, statistics 0.75, scaled 1.5, products 6, GELU 4, gate and shortcut 3
        pytest.param("partialnet_t0", 32, None, 16.75, 8.25, id="gelu"),
        pytest.param("partialnet_t2", 64, None, 12.75, 8.25, id="relu", marks=pytest.mark.long),
    ],
)
def test_bytes_of_a_block(name: str, channels: int, plain: float | None, eager: float, least: float) -> None:
    """In maps of all channels; weights and statistics are small beside them."""
    row = block(name, "stages.0.blocks.0")
    map_bytes = BATCH * channels * 56 * 56 * NUMBER
    assert row.eager / map_bytes == pytest.approx(eager, rel=0.01)
    assert row.least / map_bytes == pytest.approx(least, rel=0.01)
    assert row.plain >= row.eager
    if plain is not None:
        assert row.plain / map_bytes == pytest.approx(plain, rel=0.01)


def test_bounds_are_of_bytes_or_of_multiply_adds() -> None:
    few, many = Row("a", "x", 1, 0, 0, 3_000_000_000_000), Row("a", "y", 400_000_000_000_000, 0, 0, 1)
    assert few.bound == many.bound == 1.0
    assert bounds([few, many]) == {"a": 2.0}


def test_fewer_bytes_than_fasternet(capsys: pytest.CaptureFixture[str]) -> None:
    rows = totals([*rows_of("partialnet_t0"), *rows_of("fasternet_t0")])
    assert rows["partialnet_t0"].eager < 0.8 * rows["fasternet_t0"].eager
    assert rows["partialnet_t0"].least < rows["fasternet_t0"].least
    main(["--networks", "partialnet_t0", "fasternet_t0", "--batch", "2", "--size", "64", "--blocks"])
    printed = capsys.readouterr().out
    assert "stages.3.blocks.3" in printed
    assert "images/s at the bound" in printed
