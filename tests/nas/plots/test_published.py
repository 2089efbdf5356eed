"""Accuracy against speed: what the figure shows as data."""

from __future__ import annotations

from nas.bench.published import choose
from nas.bench.table import Passes, Row
from nas.plots.published import ComparisonInfo, Mark, comparison_figure, comparison_info


def rows() -> list[Row]:
    chosen = choose(["PartialNet-T0", "FasterNet-T0", "ShuffleNetV2 x2"])
    latency, throughput = Passes(5, 1, 20.0, 22.0, 19.0, 21.0, 19.0), Passes(5, 8, 100.0, 110.0, 90.0, 120.0, 99.0)
    measured = {"PartialNet-T0", "FasterNet-T0"}
    return [
        Row(row, "", 224, {}, latency, throughput) if row.network in measured else Row(row, "", None, {}, None, None)
        for row in chosen
    ]


def test_the_info():
    info = comparison_info(rows(), title="t")
    assert info == ComparisonInfo(
        "t",
        (
            Mark("FasterNet-T0", "FasterNet", 71.9, 80.0, 20.0),
            Mark("PartialNet-T0", "PartialNet", 73.9, 80.0, 20.0),
        ),
        "throughput, batch 8 (images/s)",
        "latency, batch 1 (ms)",
    )


def test_the_figure():
    figure = comparison_figure(comparison_info(rows()))
    assert [(trace.name, trace.showlegend) for trace in figure.data] == [
        ("FasterNet", True), ("FasterNet", False), ("PartialNet", True), ("PartialNet", False)
    ]  # fmt: skip
    assert figure.layout.xaxis.type == figure.layout.xaxis2.type == "log"


def test_without_measures_it_says_so():
    figure = comparison_figure(comparison_info([]))
    assert figure.layout.annotations[0].text == "no network has been measured yet"
