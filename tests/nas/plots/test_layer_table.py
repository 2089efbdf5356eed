"""The figure of a network's layers: what it shows as data."""

from __future__ import annotations

from nas.plots.layer_table import NetworkInfo, network_figure, network_info, row_texts, total_texts
from nas.probes.layers import LayerRow, LayerTable, LayerTimes

ROWS = (
    LayerRow("stem", "Conv2d 3x3", 8, None, (8, 4, 4), 300, 10, 3.0),
    LayerRow("mixer", "PartialConv2d 3x3", 8, 2, (8, 4, 4), 100, 30, 5.0),
)
TIMES = LayerTimes(20, 10.0, 2.0, 9.0, (8.0, 11.0), "torch/cpu")


def test_the_info_of_a_network():
    info = network_info(LayerTable(ROWS, 400, 40, {}, (3, 8, 8), TIMES), title="t")
    assert info == NetworkInfo("t", ("stem", "mixer"), (75.0, 25.0), (25.0, 75.0), (30.0, 50.0))
    untimed = network_info(LayerTable(tuple(row._replace(time_ms=None) for row in ROWS), 400, 40, {}, (3, 8, 8), None))
    assert untimed.time == ()


def test_the_figure_of_a_network():
    figure = network_figure(NetworkInfo("t", ("a", "b"), (50.0, 50.0), (0.0, 100.0), ()))
    assert [trace.name for trace in figure.data] == ["multiply-adds", "parameters"]
    assert network_figure(NetworkInfo("t", (), (), (), ())).layout.annotations[0].text == "the network has no layers"


def test_texts():
    table = LayerTable(ROWS, 400, 40, {}, (3, 8, 8), TIMES)
    assert row_texts(ROWS[1], table.share(ROWS[1])) == (
        "mixer", "PartialConv2d 3x3", "8", "2", "8x4x4", "100", "30", "5.000", "50.0 %"
    )  # fmt: skip
    between, total = total_texts(table)
    assert (between[0], between[-2:]) == ("between the layers", ("2.000", "20.0 %"))
    assert total == ("total", "", "", "", "", "400", "40", "10.000", "100.0 %")
