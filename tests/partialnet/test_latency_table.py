"""Latency tables: round trips, what wrong files are told, lookups by shape, the additive model, budgets in ms."""

from __future__ import annotations

import itertools
import json
import math
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from partialnet.architecture import Architecture
from partialnet.errors import BudgetError
from partialnet.export import to_fixed
from partialnet.layers.dpconv import DPConv2d
from partialnet.models.partialnet import create
from partialnet.search.budget import Budget, budget_costs
from partialnet.search.cost import layer_costs
from partialnet.search.latency_parts import Circumstances, Constant, LayerKey, Timing
from partialnet.search.latency_rows import latency_keys
from partialnet.search.latency_table import LatencyTable
from partialnet.search.levels import set_active_channels
from partialnet.search.projection import project
from tests.partialnet.cost_tables import CIRCUMSTANCES, TOLERANCE, latency_table
from tests.partialnet.searchable import SmallNet

SHAPE = (3, 8, 8)
times = st.floats(0, 1e6)
counts = st.integers(1, 10**6)
words = st.text(min_size=1).filter(lambda text: bool(text.strip()))
keys = st.builds(
    lambda height, width, n, more, kernel_size, rest, heads: LayerKey(
        height, width, n + more, n, kernel_size, rest, heads
    ),
    counts, counts, counts, st.integers(0, 10**6), counts, words, st.integers(0, 16),
)  # fmt: skip
tables = st.builds(
    LatencyTable,
    st.builds(Circumstances, words, counts, words, st.sampled_from(["contiguous", "channels_last"]), counts, words),
    st.dictionaries(keys, st.builds(Timing, times, counts, times), max_size=4),
    st.none() | st.builds(Constant, words, st.floats(-1e6, 1e6), counts, times),
)


def time_of(key: LayerKey) -> float:
    """Almost flat at the low end, more expensive again at the lowest level, as measured tables are."""
    share = key.active_channels / key.channels
    return key.height * key.width / 50 * (0.05 + share**1.2) + 0.01 * (share < 0.1)


@given(table=tables)
def test_the_json_form_and_pickles_give_the_table_back(table: LatencyTable) -> None:
    assert LatencyTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table
    copied = pickle.loads(pickle.dumps(table))
    assert (copied, hash(copied)) == (table, hash(table))


def test_files_give_the_table_back(tmp_path: Path) -> None:
    table = latency_table(SmallNet(), SHAPE, time_of, constant=2.5)
    table.save(tmp_path / "table.json")
    assert LatencyTable.load(tmp_path / "table.json") == table
    with pytest.raises(TypeError):
        table.rows[next(iter(table.rows))] = Timing(0.0, 1, 0.0)  # type: ignore[index]


def content() -> dict[str, Any]:
    return LatencyTable(
        CIRCUMSTANCES,
        {LayerKey(8, 8, 16, n, 3, "identity"): Timing(n / 10, 30, 0.01) for n in (4, 8)},
        Constant("a small network", 2.5, 12, 0.1),
    ).to_dict()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["schema"], 2, "t.json lacks mlps"),
        (["schema"], 3, "t.json lacks mlps, three_parts"),
        (["schema"], 4, "t.json lacks mlps, shapes, three_parts"),
        (["schema"], 5, "t.json: schema is 5, but this version reads 1 to 4"),
        (["schema"], True, "t.json: schema is True"),
        (["mlps"], [], "t.json has the unknown mlps"),
        (["schema"], None, "t.json: schema is None"),
        (["rows"], {}, "t.json: rows is dict, but must be a list"),
        (["rows", 1], 7, r"t.json: rows\[1\] is 7, but must be an object with the keys active_channels, "),
        (["rows", 1, "ms"], -1, r"t.json: rows\[1\]: ms is -1, but must be a finite number of at least 0"),
        (["rows", 0, "ms"], math.nan, r"rows\[0\]: ms is nan, but must be a finite number"),
        (["rows", 0, "ms"], 10**400, r"rows\[0\]: ms is 1000"),
        (["rows", 0, "ms"], True, r"rows\[0\]: ms is True, but must be a finite number"),
        (["rows", 0, "ms"], "fast", r"rows\[0\]: ms is 'fast', but must be a finite number"),
        (["rows", 0, "spread_ms"], math.inf, r"rows\[0\]: spread_ms is inf"),
        (["rows", 0, "repetitions"], 0, r"rows\[0\]: repetitions is 0, but must be an integer of at least 1"),
        (["rows", 0, "height"], 8.5, r"rows\[0\]: height is 8.5, but must be an integer of at least 1"),
        (["rows", 0, "heads"], -4, r"rows\[0\]: heads is -4, but must be an integer of at least 0"),
        (["rows", 0, "rest"], "", r"rows\[0\]: rest is '', but must be a text that is not empty"),
        (["rows", 0, "active_channels"], 32, r"rows\[0\]: active_channels is 32, but must be at most 16"),
        (["rows", 0, "active_channels"], 8, r"rows\[1\]: 16 channels on a 8x8 map, .*, at n = 8, was given before"),
        (["rows", 0, "speed"], 1, r"rows\[0\] has the unknown speed"),
        (["circumstances", "threads"], 0, "t.json: circumstances: threads is 0, but must be an integer of at least 1"),
        (["circumstances", "device"], " ", "circumstances: device is ' ', but must be a text that is not empty"),
        (["circumstances", "layout"], "NCHW", "layout is 'NCHW', but must be one of contiguous, channels_last"),
        (["circumstances"], None, "t.json: circumstances is None, but must be an object with the keys batch, "),
        (["constant", "ms"], math.inf, "t.json: constant: ms is inf, but must be a finite number$"),
        (["constant", "network"], None, "t.json: constant: network is None"),
        (["more"], 1, "t.json has the unknown more"),
    ],
)
def test_wrong_files_are_told_where_and_what(
    tmp_path: Path, path: list[str | int], value: object, message: str
) -> None:
    data: Any = content()
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    file = tmp_path / "t.json"
    file.write_text(json.dumps(data))
    with pytest.raises(BudgetError, match=message):
        LatencyTable.load(file)


@pytest.mark.parametrize("part", ["rows", "circumstances", "constant"])
def test_every_missing_key_is_named(part: str) -> None:
    for name in list(content()["rows"][0] if part == "rows" else content()[part]):
        data = content()
        where = data["rows"][1] if part == "rows" else data[part]
        del where[name]
        with pytest.raises(BudgetError, match=rf"^latency table: {part}(\[1\])? lacks {name}$"):
            LatencyTable.from_dict(data)


def test_what_is_no_table_at_all(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"nowhere.json: cannot be read \(No such file"):
        LatencyTable.load(tmp_path / "nowhere.json")
    for text, message in ((b"{", "is not JSON"), (b"\xff", "is not JSON"), (b"[]", "must be an object, but got list")):
        (tmp_path / "t.json").write_bytes(text)
        with pytest.raises(BudgetError, match=f"t.json: .*{message}"):
            LatencyTable.load(tmp_path / "t.json")


def test_layers_are_looked_up_by_their_shape() -> None:
    model = SmallNet(16)
    table = latency_table(model, SHAPE, time_of, constant=3.0)
    costs = layer_costs(model, SHAPE, "latency", "network", table)
    assert costs.constant == 3.0
    assert costs.costs == (tuple(time_of(LayerKey(8, 8, 16, n, 3, "identity")) for n in (1, 2, 4, 8, 16)),) * 2
    assert layer_costs(model, SHAPE, "latency", "conv", table).constant == 0
    # Not by name: any network whose layers have these shapes is served.
    stacked = nn.Sequential(*[DPConv2d(16, rest="channel_attention") for _ in range(3)])
    assert layer_costs(stacked, (16, 8, 8), "latency", "conv", table).costs == costs.costs[:1] * 3


def test_every_call_counts_on_its_own_map() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = DPConv2d(16, rest="self_attention", num_heads=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x)[:, :, ::2])

    first, second = latency_keys(Twice(), (16, 6, 4))["layer"][0]
    assert first == LayerKey(6, 4, 16, 2, 3, "self_attention", 2)
    assert second == LayerKey(3, 4, 16, 2, 3, "self_attention", 2)
    table = latency_table(Twice(), (16, 6, 4), time_of)
    costs = layer_costs(Twice(), (16, 6, 4), "latency", "conv", table).costs[0]
    assert costs[0] == time_of(first) + time_of(second)


def test_the_prediction_is_the_cost_of_the_fixed_network() -> None:
    model = create(Architecture("partialnet_micro"), searchable=True)
    shape = (3, 32, 32)
    table = latency_table(model, shape, time_of, constant=3.0)
    costs = layer_costs(model, shape, "latency", "network", table)
    chosen = [len(row) // 2 for row in costs.levels]
    set_active_channels(model, costs.active_channels(chosen))
    fixed = latency_keys(to_fixed(model, input_shape=shape), shape)
    assert table.total(key for calls in fixed.values() for key in calls[0]) == pytest.approx(costs.total(chosen))
    # A layer whose split is settled joins the constant.
    name = costs.names[0]
    model.set_submodule(name, model.get_submodule(name).fixed())  # type: ignore[operator]
    rest = layer_costs(model, shape, "latency", "network", table)
    assert rest.names == costs.names[1:]
    assert rest.total(chosen[1:]) == pytest.approx(costs.total(chosen))


def test_missing_rows_and_constants_are_named() -> None:
    model = SmallNet(16)
    table = latency_table(model, SHAPE, time_of)
    rows = {key: timing for key, timing in table.rows.items() if key.active_channels != 4}
    gap = LatencyTable(CIRCUMSTANCES, rows)
    shape = "16 channels on a 8x8 map, kernel 3, channel_attention"
    message = f"first: the latency table has no row for {shape}, at n = 4; of this shape it has n = 1, 2, 8, 16"
    with pytest.raises(BudgetError, match=message):
        layer_costs(model, SHAPE, "latency", "conv", gap)
    with pytest.raises(BudgetError, match=f"at n = 1; it has {shape}; 16 channels on a 8x8 map, kernel 3, identity "):
        layer_costs(model, (3, 4, 4), "latency", "conv", table)
    with pytest.raises(BudgetError, match="at n = 1; it has no rows"):
        layer_costs(model, SHAPE, "latency", "conv", LatencyTable(CIRCUMSTANCES, {}))
    with pytest.raises(BudgetError, match=r"has no constant .* take scope 'conv'"):
        layer_costs(model, SHAPE, "latency", "network", table)


def test_the_constant_is_what_the_layers_leave_unexplained() -> None:
    rows = {LayerKey(8, 8, 16, n, 3, "identity"): Timing(n / 10, 30, 0.01) for n in (4, 8)}
    low, high = rows
    table = LatencyTable(CIRCUMSTANCES, rows)
    measured = [([low, high], 1.2 + 2.0), ([low, low], 0.8 + 2.5), ([high], 0.8 + 2.1)]
    fitted = table.fitted("a small network", measured)
    assert fitted.constant is not None
    assert fitted.constant.network == "a small network"
    assert (fitted.constant.ms, fitted.constant.repetitions) == (pytest.approx(2.1), 3)
    assert fitted.constant.spread_ms == pytest.approx(0.25)
    assert fitted.total([low, high, high]) == pytest.approx(2.1 + 0.4 + 0.8 + 0.8)
    assert (fitted.rows, table.constant) == (table.rows, None)
    # Layers overlap on some devices: alone they take longer than within the network.
    overlapping = table.fitted("overlapping", [([low, high], 1.0)]).constant
    assert overlapping == Constant("overlapping", 1.0 - (0.4 + 0.8), 1, 0.0)
    with pytest.raises(BudgetError, match="no network of 'x' was measured"):
        table.fitted("x", [])
    with pytest.raises(BudgetError, match="the time of a network of 'x' is nan"):
        table.fitted("x", [([low], math.nan)])


@pytest.mark.parametrize("scope", ["conv", "network"])
def test_a_projection_under_a_table_meets_the_budget(scope: str) -> None:
    model = create(Architecture("partialnet_micro"), searchable=True)
    shape = (3, 32, 32)
    table = latency_table(model, shape, time_of, constant=3.0)
    costs = layer_costs(model, shape, "latency", scope, table)  # type: ignore[arg-type]
    every = sorted({costs.total(chosen) for chosen in itertools.product(*(range(len(row)) for row in costs.costs))})
    draw = random.Random(0)
    met = 0
    for _ in range(20):
        target = draw.uniform(0.9 * costs.minimum, 1.1 * costs.maximum)
        budget = Budget(unit="latency", scope=scope, target=target, input_shape=shape, table=table)  # type: ignore[arg-type]
        assert budget_costs(model, budget) == costs
        result = project(costs, target, [[draw.random() for _ in row] for row in costs.costs])
        reachable = any(abs(cost - target) <= TOLERANCE * target for cost in every)
        assert result.within_budget == reachable
        assert not reachable or abs(result.cost - target) <= TOLERANCE * target
        met += reachable
    assert met >= 10
