"""Figures: what they show is compared as data; how they are drawn only in kind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plotly.colors import sample_colorscale

from nas.candidate import Split
from nas.definition.methods import METHODS
from nas.errors import InputError
from nas.findings.pareto import ParetoPoint
from nas.plots.history import Phase, history_figure, history_info
from nas.plots.pareto import ParetoMark, pareto_figure, pareto_info
from nas.plots.save import find_browser, save_figure
from nas.plots.splits import SplitBar, splits_figure, splits_info
from nas.plots.style import COLORS, EDGE, FRONT, LEGIBLE, learned_style, roomy_range
from nas.trial import EpochRecord, TrialKind


def points() -> list[ParetoPoint]:
    rows = [
        (0, TrialKind.BASELINE, "uniform 1/4", 0.75, 200.0),
        (1, TrialKind.SEARCH, "search", 0.875, 250.0),
        (2, TrialKind.SEARCH, "search", 0.625, 150.0),
        (3, TrialKind.SEARCH, "search", 0.5, 160.0),
    ]
    return [
        ParetoPoint(number, label, kind, f"id{number}", {"top1": top1, "macs": macs}, False)
        for number, kind, label, top1, macs in rows
    ]


def test_the_info_of_a_front():
    info = pareto_info([*points(), ParetoPoint(4, "search", TrialKind.SEARCH, "id4", {"top1": 1.0}, False)], title="t")
    assert (info.title, info.x_label, info.y_label) == ("t", "FLOPs (multiply-adds)", "top-1 (%)")
    assert info.marks[0] == ParetoMark(0, "uniform 1/4", TrialKind.BASELINE, "id0", 200.0, 75.0, True)
    assert [mark.number for mark in info.marks if mark.on_front] == [0, 1, 2]
    assert [mark.number for mark in info.marks] == [0, 1, 2, 3]
    assert info.front == ((150, 62.5), (200, 62.5), (200, 75), (250, 75), (250, 87.5))


def test_the_staircase_follows_the_directions():
    corners = pareto_info(points(), x="top1", y="macs").front
    assert corners == ((62.5, 150), (62.5, 200), (75, 200), (75, 250), (87.5, 250))


def test_axes_are_checked():
    with pytest.raises(InputError, match="flops"):
        pareto_info(points(), x="flops")
    with pytest.raises(InputError, match="different"):
        pareto_info(points(), x="macs", y="macs")


def test_the_figure_of_a_front():
    figure = pareto_figure(pareto_info(points()))
    assert {trace.type for trace in figure.data} == {"scatter"}
    assert figure.data[0].mode == "lines"
    by_name = {trace.name: trace for trace in figure.data}
    baseline, learned = by_name["uniform ratio (baseline)"], by_name["learned networks"]
    assert baseline.marker.symbol != learned.marker.symbol
    assert [entry[0] for entry in learned.customdata] == [1, 2, 3]


def test_the_figure_of_an_empty_study_says_so():
    figure = pareto_figure(pareto_info([]))
    assert figure.layout.annotations[0].text == "no scored trials yet"


def split(index: int, stage: int | None, block: int | None, n: int = 4) -> Split:
    return Split(f"m{index}", index, 16, n, 9 * n * n, stage, block)


def test_the_info_of_splits():
    info = splits_info([split(2, 1, 1), split(0, 0, 0, 8), split(1, 1, 0)])
    assert info.bars[0] == SplitBar("m0", "1.1", 16, 8, 0.5, 576)
    assert [bar.name for bar in info.bars] == ["1.1", "2.1", "2.2"]
    assert info.stage_starts == (0, 1)
    assert [bar.name for bar in splits_info([split(7, None, None)]).bars] == ["7"]
    assert splits_info([]).stage_starts == ()


@pytest.mark.parametrize("count", [0, 3, 30])
def test_the_figure_of_splits(count):
    figure = splits_figure(splits_info([split(k, 0, k) for k in range(count)]))
    assert [trace.type for trace in figure.data] == ["bar"]
    assert len(figure.layout.xaxis.ticktext or ()) == count


def record(epoch: int, phase: str, **metrics: float) -> EpochRecord:
    return EpochRecord(epoch, phase, metrics, {})


def test_the_info_of_a_history():
    info = history_info(
        [
            record(3, "gates", loss=1.0, order_loss=0.5, top1=0.5, cost=4.0, target=3.0),
            record(1, "warmup", loss=3.0),
            record(2, "warmup", loss=2.0, top1=0.25),
        ]
    )
    assert info.epochs == (1, 2, 3)
    assert info.losses == {"loss": (3.0, 2.0, 1.0), "order_loss": (None, None, 0.5)}
    assert info.top1 == (None, 25.0, 50.0)
    assert info.cost == (None, None, 4.0)
    assert info.phases == (Phase("warmup", 1, 2), Phase("gates", 3, 3))
    figure = history_figure(info)
    assert [trace.name for trace in figure.data] == ["loss", "order loss", "validation top-1", "cost", "target"]
    assert {trace.type for trace in figure.data} == {"scatter"}


def test_a_page_needs_no_network(tmp_path):
    path = tmp_path / "front.html"
    save_figure(pareto_figure(pareto_info(points())), path)
    text = path.read_text()
    assert 'src="https://cdn' not in text
    assert len(text) > 1_000_000


@pytest.mark.browser
@pytest.mark.skipif(find_browser() is None, reason="no Chromium")
@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<svg")])
def test_images_are_drawn(tmp_path, suffix, start):
    path = tmp_path / f"front{suffix}"
    save_figure(pareto_figure(pareto_info(points())), path)
    assert path.read_bytes().startswith(start)


def test_without_a_browser_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="BROWSER_PATH"):
        save_figure(pareto_figure(pareto_info(points())), tmp_path / "front.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["front.jpg", "front", "missing/front.html"])
def test_bad_paths_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=name):
        save_figure(pareto_figure(pareto_info(points())), tmp_path / name)


def test_import_is_light():
    code = (
        "import sys, nas.plots.report_page, nas.plots.pareto, nas.plots.splits, nas.plots.history, nas.plots.save\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'ray', 'kaleido')))"
    )
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, env=dict(os.environ)).returncode == 0


def test_a_panel_without_values_is_left_out_and_the_last_one_names_the_epochs():
    history = [EpochRecord(k, "train", {"loss": 1.0, "top1": 0.5}, {}) for k in (1, 2)]
    figure = history_figure(history_info(history))
    assert [trace.name for trace in figure.data] == ["loss", "validation top-1"]
    assert figure.layout.xaxis2.title.text == "epoch"
    assert "xaxis3" not in figure.layout
    assert "No epoch" in history_figure(history_info([])).layout.annotations[0].text


def test_baselines_lie_on_top_of_a_crowd():
    crowd = [
        ParetoPoint(k, "search", TrialKind.SEARCH, f"id{k}", {"top1": k / 300, "macs": 100.0 + k}, False)
        for k in range(300)
    ]
    baseline = ParetoPoint(300, "uniform 1/4", TrialKind.BASELINE, "id300", {"top1": 0.5, "macs": 200.0}, False)
    figure = pareto_figure(pareto_info([baseline, *crowd]))
    assert figure.data[-1].name == "uniform ratio (baseline)"
    assert figure.data[-1].marker.size > figure.data[-2].marker.size


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=5))
def test_an_axis_never_shows_less_than_one_percent_of_its_values(values):
    found = roomy_range(values)
    low, high = found or (min(values), max(values))
    assert high - low >= 0.01 * max(abs(low), abs(high)) / 1.05 - 1e-12
    assert low <= min(values)
    assert high >= max(values)


def luminance(color: str) -> float:
    """The relative luminance of WCAG 2."""
    parts = (
        [int(color[k : k + 2], 16) for k in (1, 3, 5)]
        if color.startswith("#")
        else list(map(float, re.findall(r"[\d.]+", color)))
    )
    linear = [p / 255 / 12.92 if p / 255 <= 0.03928 else ((p / 255 + 0.055) / 1.055) ** 2.4 for p in parts[:3]]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize(
    "color",
    [
        *COLORS.values(),
        EDGE,
        FRONT,
        *(learned_style(method)[0] for method in METHODS),
        *(c for name, end in LEGIBLE.items() for c in sample_colorscale(name, [k * end / 20 for k in range(21)])),
    ],
)
def test_marks_lines_and_edges_stand_out_from_white(color):
    assert 1.05 / (luminance(color) + 0.05) >= 3
