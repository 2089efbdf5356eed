"""Figures that explain a study: colours by a value, parallel coordinates, importances, several fronts, side by side."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import InputError
from nas.findings.growth import Growth
from nas.findings.importance import Importances, Share
from nas.findings.pareto import ParetoPoint
from nas.findings.side_by_side import Side
from nas.metrics import EvaluationKind
from nas.plots.fronts import Found, FrontsBy, fronts_figure, fronts_info
from nas.plots.growth import growth_figure, growth_info
from nas.plots.importance import importance_figure, importance_info
from nas.plots.parallel import ParallelInfo, parallel_figure, parallel_info
from nas.plots.pareto import Look, pareto_figure, pareto_info
from nas.plots.ratios import ratios_info, ratios_map_figure
from nas.plots.shades import Shades, on_dark, on_light, palette, series_style
from nas.plots.side_by_side import curves_figure, curves_info, depth_figure, depth_info
from nas.plots.style import EDGE
from nas.trial import TrialKind, TrialState
from tests.nas.plots.fixture_trials import candidate, epochs, study, trial
from tests.nas.plots.test_plots import luminance

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SCORED = {(EvaluationKind.FINETUNED, "top1", "validation"): 0.9}
DARK_PAGE = "#14181f"
SPACE = {
    "target": {"log_uniform": [2, 8]},
    "penalty": {"uniform": [0, 1]},
    "complexity_exponent": {"choice": [0.01, 1.0]},
}


def point(number: int, top1: float, macs: float, kind: TrialKind = TrialKind.SEARCH, **more: object) -> ParetoPoint:
    return ParetoPoint(number, kind.value, kind, f"id{number}", {"top1": top1, "macs": macs}, False, **more)


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("place", [k / 20 for k in range(21)])
def test_colours_of_values_stand_out_from_both_pages(place: float) -> None:
    assert contrast(on_light(place), "#ffffff") >= 3
    assert contrast(on_dark(place), DARK_PAGE) >= 3


def test_colours_of_series_stand_out_from_white_and_differ() -> None:
    styles = [series_style(place) for place in range(8)]
    assert len(set(styles)) == 8
    assert all(contrast(color, "#ffffff") >= 3 for color, _ in styles)


@given(st.dictionaries(st.integers(0, 30), st.floats(1e-3, 1e6), max_size=12), st.booleans())
def test_a_palette_has_a_colour_for_each_mark_in_the_order_of_the_values(values: dict[int, float], log: bool) -> None:
    keys = [*values, 99]
    found = palette(Shades("v", values, log), keys)
    assert len(found.light) == len(found.dark) == len(keys)
    assert (found.light[-1], found.legend[-1][0]) == (EDGE, "no value")
    if values:
        low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
        assert found.light[keys.index(low)] == on_light(0.0)
        assert values[low] == values[high] or found.light[keys.index(high)] == on_light(1.0)


def test_truth_values_and_texts_are_categories() -> None:
    found = palette(Shades("v", {0: True, 1: False, 2: True}), [0, 1, 2])
    assert [text for text, *_ in found.legend] == ["False", "True"]
    assert found.light[0] == found.light[2] != found.light[1]


def test_a_front_in_colours_keeps_symbols_and_says_what_they_mean() -> None:
    points = [point(0, 0.5, 100.0), point(1, 0.7, 200.0, position=1), point(2, 0.6, 300.0, TrialKind.BASELINE)]
    look = Look({0: {"target": 2.0}, 1: {"target": 4.0}}, {1}, Shades("target", {(0, 0): 2.0, (1, 1): 4.0}))
    figure = pareto_figure(pareto_info(points, look=look))
    marks = [trace for trace in figure.data if trace.customdata is not None]
    assert [(entry[0], entry[2], entry[3]) for trace in marks for entry in trace.customdata] == [
        (0, "0", "2"), (1, "1.1", "4"), (2, "2", "\u2013"),
    ]  # fmt: skip
    assert marks[0].marker.color == (on_light(0.0), on_light(1.0))
    assert list(marks[0].meta["dark"]) == [on_dark(0.0), on_dark(1.0)]
    assert {"2", "4", "no value", "learned networks"} <= {trace.name for trace in figure.data}
    assert all(trace.showlegend is False for trace in marks)


def test_kinds_of_all_networks_are_drawn() -> None:
    points = [point(number, 0.5, 100.0 + number, kind) for number, kind in enumerate(TrialKind)]
    drawn = [entry[0] for trace in pareto_figure(pareto_info(points)).data for entry in trace.customdata or ()]
    assert sorted(drawn) == list(range(len(TrialKind)))


def test_a_logarithmic_axis_says_what_it_cannot_show() -> None:
    figure = pareto_figure(pareto_info([point(0, 0.0, 100.0), point(1, 0.5, 100.0)], look=Look(log_x=True, log_y=True)))
    assert (figure.layout.xaxis.type, figure.layout.yaxis.type) == ("log", "log")
    assert figure.layout.xaxis.range == pytest.approx([math.log10(95), math.log10(105)])
    assert figure.layout.yaxis.title.text.endswith("1 at 0 or below are not shown")


def parallel(count: int = 3) -> ParallelInfo:
    points = [replace(point(k, 0.5 + k / 100, 100.0 + k), on_front=k == 0) for k in range(count)]
    sampled = {
        k: {"target": 2.0 * 2 ** (2 * k / max(1, count - 1)), "penalty": 0.5, "complexity_exponent": "x"}
        for k in range(count)
    }
    return parallel_info(study(space=SPACE).definition, points, sampled)


def test_parallel_lines_run_through_parameters_and_objectives() -> None:
    info = parallel()
    assert [axis.name for axis in info.axes] == ["target", "penalty", "complexity_exponent", "top1", "macs"]
    assert info.lines[1].places == pytest.approx((0.5, 0.5, 0.5, 0.5, 0.5))  # the target on a logarithmic axis
    assert [line.places[0] for line in info.lines] == pytest.approx([0, 0.5, 1])
    assert info.lines[0].texts[-2:] == ("50.00", "100")
    figure = parallel_figure(info)
    drawn = [trace for trace in figure.data if trace.customdata is not None]
    assert {trace.type for trace in figure.data} == {"scatter"}
    assert sum(len(trace.x) for trace in drawn) == 3 * 6
    assert drawn[-1].customdata[0][2] == "0"  # the front on top
    ticks = [note.text for note in figure.layout.annotations]
    assert {"2", "8", "x", "50.00", "52.00"} <= set(ticks)


def test_many_lines_are_few_traces() -> None:
    assert len(parallel_figure(parallel(800)).data) < 60


def test_parallel_coordinates_without_lines_and_with_an_unknown_colour() -> None:
    assert "No search trial" in parallel_figure(parallel(0)).layout.annotations[0].text
    with pytest.raises(InputError, match="latency_ms"):
        parallel_info(study(space=SPACE).definition, [], {}, "latency_ms")


def test_importances_show_what_chance_reaches() -> None:
    shares = {
        "top1": {"target": Share(0.75, 0.25), "<b>": Share(0.25, 0.5)},
        "macs": {"target": Share(1, 0), "<b>": Share(0, 0)},
    }
    info = importance_info(Importances(40, 40, 0.125, shares))
    assert info.bars[0] == ("top-1", (75.0, 25.0), (25.0, 50.0))
    bars, chance, *_ = importance_figure(info).data
    assert (bars.type, list(bars.x), list(chance.x)[:2]) == ("bar", [75.0, 25.0], [25.0, 25.0])
    assert importance_figure(info).layout.yaxis.ticktext == ("target", "&lt;b&gt;")
    nothing = importance_figure(importance_info(Importances(3, 0, 0.25, {}, "too few")))
    assert nothing.layout.annotations[0].text == "too few"


def test_a_hypervolume_grows_in_steps_up_to_the_last_trial() -> None:
    growths = [Growth(3, 1, 2e5, NOW), Growth(7, 4, 5e5, NOW)]
    line, marks = growth_figure(growth_info(growths, ("top1", "macs"), 9)).data
    assert (list(line.x), list(line.y), line.line.shape) == ([1, 4, 9], [2e5, 5e5, 5e5], "hv")
    assert (list(marks.x), [list(entry) for entry in marks.customdata]) == ([1, 4], [[3], [7]])
    title = growth_figure(growth_info(growths, ("top1", "macs"), 4)).layout.yaxis.title.text
    assert "top-1 \N{MULTIPLICATION SIGN} FLOPs" in title
    assert "better than the" in growth_figure(growth_info([], ("top1", "macs"), 4)).layout.annotations[0].text


def test_fronts_are_drawn_for_each_study_or_for_each_method() -> None:
    one, other = study("one"), study("other")
    found = [
        Found(one, [point(0, 0.5, 100.0), point(1, 0.4, 200.0), point(2, 0.3, 50.0, TrialKind.BASELINE)]),
        Found(other, [point(0, 0.6, 90.0, position=2), point(1, 0.9, 900.0, broken=("macs <= 500",))], {0}),
    ]
    info = fronts_info(found)
    assert [(series.name, series.front) for series in info.series] == [("one", ((100, 50),)), ("other", ((90, 60),))]
    assert [len(marks) for _, marks in info.baselines] == [1]
    [merged] = fronts_info(found, by=FrontsBy.METHOD).series
    assert (merged.name, merged.front) == (one.definition.method, ((90, 60),))
    marks = [entry for trace in fronts_figure(info).data for entry in trace.customdata or ()]
    assert [(entry[3], entry[2]) for entry in marks] == [
        ("id-of-one", "0"), ("id-of-one", "1"), ("id-of-other", "0.2"), ("id-of-one", "2"),
    ]  # fmt: skip
    assert "no scored trials" in fronts_figure(fronts_info([Found(one, [])])).layout.annotations[0].text


@pytest.mark.parametrize("count", [1, 60, 200])
def test_a_map_of_the_front_has_a_row_for_each_network_on_it(count: int) -> None:
    trials = [trial(k, [candidate([8, 16, 32], SCORED)], target=2.0 + k) for k in range(count + 1)]
    only = {(k, 0) for k in range(count)}
    info = ratios_info(study().definition, trials, only=only)
    assert {line.number for line in info.lines} == set(range(count))
    chart = ratios_map_figure(info)
    assert len(set(chart.data[0].y)) == min(count, 60)
    assert chart.layout.height <= 900
    assert "on the front" in ratios_info(study().definition, trials, only=set()).empty


def sides() -> list[Side]:
    history = epochs([("gates", [64, 64]), ("gates", [8, 16])])
    first = trial(0, [candidate([8, 16], SCORED)], history=history, target=4.0)
    second = trial(1, [candidate([8, 16, 32], SCORED)], target=4.0)
    running = trial(2, state=TrialState.RUNNING, target=4.0)
    return [
        Side(study(f"s{k}"), made, None, made.candidates[0] if made.candidates else None)
        for k, made in enumerate((first, second, running))
    ]


def test_ratios_side_by_side_have_gaps_where_a_layer_is_missing() -> None:
    info = depth_info(sides())
    assert len(info.layers) == len({layer.layer for layer in info.layers})
    assert all(len(line.active_channels) == len(info.layers) for line in info.lines)
    assert set(info.lines[2].active_channels) == {None}
    figure = depth_figure(info)
    assert [trace.name for trace in figure.data] == ["1: s0:0", "2: s1:1", "3: s2:2"]
    assert len({(trace.line.color, trace.line.dash, trace.marker.symbol) for trace in figure.data}) == 3
    assert "settled on a network" in depth_figure(depth_info(sides()[2:])).layout.annotations[0].text


def test_trainings_side_by_side_leave_out_panels_without_values() -> None:
    figure = curves_figure(curves_info(sides()))
    titles = [re.sub("<.*", "", axis.title.text or "") for axis in figure.select_yaxes()]
    assert titles
    assert len(figure.data) == 3 * len(titles)
    assert "reported an epoch" in curves_figure(curves_info(sides()[1:])).layout.annotations[0].text
