"""Ratios by target, and levels over epochs: what is shown as data, how only in kind."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from nas.metrics import EvaluationKind
from nas.plots.history import Phase
from nas.plots.layers import Layer, fraction, layers_of, shown_places
from nas.plots.ratios import RatioLine, map_numbers, ratios_figure, ratios_info, ratios_map_figure, spread
from nas.plots.trajectories import trajectories_figure, trajectories_info
from nas.trial import Trial, TrialKind, TrialState
from tests.nas.plots.fixture_trials import CHANNELS, MACS, candidate, epochs, layer_names, study, trial

SCORED = {(EvaluationKind.FINETUNED, "top1", "validation"): 0.9}


def searched(targets: list[float], layers: int = 3) -> list[Trial]:
    return [
        trial(number, [candidate([max(2, round(CHANNELS / target))] * layers, SCORED)], target=target)
        for number, target in enumerate(targets)
    ]


def test_lines_go_from_the_cheapest_to_the_dearest():
    others = [
        trial(7, [candidate([32, 32, 32], SCORED)], TrialKind.BASELINE, ratio=0.5),
        trial(8, [], state=TrialState.FAILED, target=3.0),
        trial(9, [candidate([4, 4, 4], SCORED)], state=TrialState.RUNNING, target=3.0),
    ]
    info = ratios_info(study(baselines=["1/8", "1/2"]).definition, [*searched([2.0, 8.0]), *others], title="t")
    assert (info.title, info.empty, info.uniform) == ("t", "", (0.5, 0.125))
    assert info.layers[0] == Layer("stages.0.blocks.0.mixer", "1.1", 64, 0)
    assert info.lines == (
        RatioLine(1, "trial 1", 8.0, "b = 8", (8, 8, 8), (0.125, 0.125, 0.125)),
        RatioLine(0, "trial 0", 2.0, "b = 2", (32, 32, 32), (0.5, 0.5, 0.5)),
    )


def test_of_a_front_each_network_is_a_target_of_its_own():
    front = [candidate([16, 16], SCORED), candidate([32, 64], SCORED)]
    info = ratios_info(study().definition, [trial(0, front, target=4.0)])
    assert [line.target for line in info.lines] == [4.0, pytest.approx(math.sqrt(2 * 64**2 / (32**2 + 64**2)))]
    asked = replace(front[0], target=2 * MACS * CHANNELS**2 / 3**2)
    info = ratios_info(study().definition, [trial(0, [asked, front[1]], target=4.0)])
    assert (info.lines[0].label, info.lines[0].name) == ("b = 3", "trial 0.0")
    definition = study(budget={"unit": "params", "scope": "network"}, space={"target": 1e5}).definition
    dear, cheap = (candidate([n, n], SCORED) for n in (64, 16))
    info = ratios_info(definition, [trial(0, [dear, cheap], target=1e5)])
    costs = [entry.score("params_inference") for entry in (cheap, dear)]
    assert [line.target for line in info.lines] == costs
    assert info.lines[0].label == "100.7 k params"


def test_layers_of_absent_blocks_stay_empty():
    whole, less = candidate([16, 16, 16], SCORED), candidate([32, 32, 32], SCORED)
    less = replace(less, splits=(less.splits[0], less.splits[2]))
    info = ratios_info(study().definition, [trial(0, [less], target=2.0), trial(1, [whole], target=4.0)])
    assert len(info.layers) == 3
    assert info.lines[1].active_channels == (32, 0, 32)
    assert ratios_figure(info).data[0].y[1] is None
    assert len(ratios_map_figure(info).data[0].y) == 5


def test_a_few_targets_stand_for_many():
    info = ratios_info(study().definition, searched([1.0, 1.1, 1.2, 2.0, 3.9, 4.0, 8.0]))
    assert [line.target for line in spread(info, 4)] == [8.0, 4.0, 2.0, 1.0]
    assert spread(info, 7) == info.lines


@pytest.mark.parametrize("layers", [2, 60])
def test_the_figures_of_ratios(layers):
    info = ratios_info(study().definition, searched([2.0, 3.0, 4.0, 8.0, 16.0], layers))
    lines, chart = ratios_figure(info), ratios_map_figure(info)
    assert [trace.type for trace in lines.data] == ["scatter"] * (5 if layers == 2 else 3)
    assert lines.data[0].name == "b = 2 (trial 0)"
    assert len(lines.data[0].y) == layers
    assert {note.text for note in lines.layout.annotations} >= {"uniform 1/2", "uniform 1/4", "uniform 1/8"}
    cells, *key = chart.data
    assert (cells.type, [trace.name for trace in key]) == ("bar", ["1", "1/2", "1/4", "1/8", "1/16"])
    assert set(zip(cells.y, cells.base, strict=True)) == {
        (row, k - 0.48) for row in range(5) for k in range(layers)
    }
    assert set(cells.marker.color[-layers:]) == {key[1].marker.color}  # the dearest on top
    assert len(chart.layout.xaxis.tickvals) <= 20


def test_a_map_shows_some_of_very_many_networks():
    info = ratios_info(study().definition, searched([1 + k / 100 for k in range(200)]))
    chart, *_ = ratios_map_figure(info).data
    assert len(set(chart.y)) == 60
    assert {chart.customdata[0][5], chart.customdata[-1][5]} == {199, 0}


@pytest.mark.parametrize("scope", ["conv", "network"])
def test_the_trials_of_a_map_are_known_by_their_targets(scope):
    made = study()
    budget = made.definition.budget.model_copy(update={"scope": scope})
    found = made.definition.model_copy(update={"budget": budget})
    trials = searched([1 + (37 * k % 200) / 100 for k in range(200)])
    numbers = map_numbers(budget, {trial.number: trial.parameters["target"] for trial in trials})
    whole = ratios_map_figure(ratios_info(found, trials))
    part = ratios_map_figure(ratios_info(found, [trial for trial in trials if trial.number in numbers]))
    assert len(numbers) == 60
    assert whole.to_json() == part.to_json()


def test_without_a_network_the_figures_say_why():
    info = ratios_info(study().definition, [trial(0, [], state=TrialState.RUNNING, target=4.0)])
    assert info.lines == ()
    for figure in (ratios_figure(info), ratios_map_figure(info)):
        assert "No search trial has settled" in figure.layout.annotations[0].text
        assert len(figure.data) == 0


def test_ratios_are_written_as_fractions_where_they_are_some():
    assert [fraction(ratio) for ratio in (1.0, 0.5, 1 / 32, 0.375, 0.242)] == ["1", "1/2", "1/32", "0.375", "0.242"]


@pytest.mark.parametrize("count", [0, 1, 5, 18, 19, 60, 200])
def test_axes_name_the_first_layer_of_each_stage(count):
    layers = [Layer(name, f"{stage + 1}.{block + 1}", 64, stage) for name, stage, block in layer_names(count)]
    places = shown_places(layers)
    assert places == sorted(set(places))
    assert {k for k in range(count) if layers[k].name.endswith(".1")} <= set(places)
    assert len(places) <= 22
    assert places == list(range(count)) or count > 18


def test_the_levels_of_a_trial():
    history = epochs([("warmup", [64, 64]), ("gates", [32, 64]), ("gates", [32, 16]), ("frozen", [8, 16])])
    followed = trial(3, [candidate([8, 16], SCORED)], history=history[::-1], target=4.0)
    info = trajectories_info(followed, layers_of([followed]), title="t")
    assert info.epochs == (1, 2, 3, 4)
    assert info.active_channels == ((64, 32, 32, 8), (64, 64, 16, 16))
    assert info.phases == (Phase("warmup", 1, 1), Phase("gates", 2, 3), Phase("frozen", 4, 4))
    figure = trajectories_figure(info)
    assert [trace.name for trace in figure.data] == ["1.1 (64 channels)", "3.1 (64 channels)"]
    assert [row[1] for row in figure.data[0].customdata] == [64, 32, 32, 8]
    assert [note.text for note in figure.layout.annotations] == ["warmup", "gates", "frozen"]


def test_a_running_trial_borrows_the_layers_of_another():
    settled = trial(0, [candidate([8, 16], SCORED)], target=4.0)
    running = trial(1, state=TrialState.RUNNING, history=epochs([("warmup", [64, 32])]), target=4.0)
    info = trajectories_info(running, layers_of([running, settled]))
    assert info.active_channels == ((64,), (32,))
    assert len(trajectories_figure(info).data) == 2


def test_many_layers_are_drawn_as_a_map():
    history = epochs([("warmup", [64] * 60), ("gates", [16] * 60)])
    followed = trial(0, [candidate([16] * 60, SCORED)], history=history, target=4.0)
    chart, *key = trajectories_figure(trajectories_info(followed, layers_of([followed]))).data
    assert chart.type == "bar"
    assert (list(chart.y[:2]), list(chart.base[:2])) == ([0, 0], [0.5, 1.5])
    assert list(chart.marker.color) == [key[0].marker.color, key[2].marker.color] * 60


def test_a_map_joins_epochs_of_one_level_and_leaves_gaps():
    rows = [("gates", [64] * 13), ("gates", [64] * 13), ("gates", [16] * 13), ("gates", [16] * 13)]
    history = epochs(rows)
    del history[1]
    followed = trial(0, [candidate([16] * 13, SCORED)], history=history, target=4.0)
    chart, *_ = trajectories_figure(trajectories_info(followed, layers_of([followed]))).data
    runs = list(zip(chart.base, chart.x, [row[3] for row in chart.customdata], strict=True))[:2]
    assert runs == [(0.5, 1.0, "epoch 1"), (2.5, 2.0, "epochs 3 to 4")]


@pytest.mark.parametrize(
    ("followed", "reason"),
    [(None, "No search trial has settled"), (trial(4, [candidate([8], SCORED)], target=4.0), "Trial 4 (complete)")],
)
def test_without_levels_the_figure_says_why(followed, reason):
    info = trajectories_info(followed, layers_of([] if followed is None else [followed]))
    figure = trajectories_figure(info)
    assert info.empty.startswith(reason)
    assert len(figure.data) == 0
    assert reason in figure.layout.annotations[0].text
