"""Which networks are compared at the end: learned ones of the front, others of equal cost."""

from __future__ import annotations

import math
from functools import cache
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.candidate import Candidate
from nas.definition.study import StudyDefinition, parse_study
from nas.finalist import Finalist, Role
from nas.metrics import Evaluation, EvaluationKind
from nas.probes.flops import count_operations, count_parameters
from nas.sweep.final_plan import choose_learned, plan_final, spread_over_costs
from nas.training.build import build_network, build_split, split_layers
from nas.training.scoring import candidate_of
from nas.trial import Trial, TrialKind, TrialState
from partialnet.fuse import fuse
from partialnet.layers.partial_conv import legal_active_channels
from partialnet.search.cost import layer_costs
from tests.nas import tiny
from tests.nas.strategies import make_trial

DEEP = {"name": "micro", "embed_dim": 16, "depths": [1, 1, 2, 1], "patch_size": 2, "merge_strides": [1, 2, 1]}


def definition(unit: str = "macs", **changes: Any) -> StudyDefinition:
    final = {"candidates": 2, "random": 3, "against": ["uniform", "random"]}
    return tiny.tiny(budget={"unit": unit}, **{"model": DEEP, "final": final, **changes})


def scored(study: StudyDefinition, split: tuple[int, ...], top1: float, kind=EvaluationKind.FINETUNED) -> Candidate:
    network = build_split(study, 10, split).eval()
    return candidate_of(network, study.data.input_shape, (Evaluation(kind, "top1", top1),))


def found(number: int, *candidates: Candidate) -> Trial:
    return Trial(number, TrialKind.SEARCH, TrialState.COMPLETE, {"target": 4.0}, number, None, candidates)


def networks(study: StudyDefinition, trials: list[Trial]) -> list[Finalist]:
    return list(plan_final(study, trials).networks)


SPLIT = (8, 16, 32, 8, 32)


@cache
def planned(unit: str) -> list[Finalist]:
    """Return the plan around a network of many layers: setting up a plan takes seconds."""
    study = definition(unit)
    return networks(study, [found(3, scored(study, SPLIT, 0.5))])


def cost_of(study: StudyDefinition, finalist: Finalist) -> float:
    network = fuse(build_split(study, 10, finalist.active_channels).eval())
    if study.budget.unit == "params":
        return count_parameters(network)
    return sum(count_operations(network, study.data.input_shape).counted.values())


@pytest.mark.parametrize("unit", ["macs", "params"])
def test_beside_a_learned_network_stand_others_of_equal_cost(unit: str) -> None:
    study, split = definition(unit), SPLIT
    learned, uniform, *random = planned(unit)
    assert (learned.role, learned.of, learned.position, learned.active_channels) == (Role.LEARNED, 3, None, split)
    assert learned.target == cost_of(study, learned)
    assert {finalist.target for finalist in (uniform, *random)} == {learned.target}

    assert uniform.role is Role.UNIFORM
    layers = list(split_layers(study, 10).values())
    for n, layer in zip(uniform.active_channels, layers, strict=True):
        legal = legal_active_channels(layer.channels, layer.rest_kind, layer.num_heads)
        assert n in legal
        assert abs(n / layer.channels - uniform.ratio) <= 0.5 * legal.step / layer.channels
    assert cost_of(study, uniform) == pytest.approx(learned.target, rel=0.02)

    assert [finalist.role for finalist in random] == [Role.RANDOM] * 3
    assert [finalist.draw for finalist in random] == [0, 1, 2]
    assert len({finalist.active_channels for finalist in (learned, uniform, *random)}) == 5
    levels = layer_costs(build_network(study, 10), study.data.input_shape, unit, "network").levels
    for finalist in random:
        assert all(n in row for n, row in zip(finalist.active_channels, levels, strict=True))
        assert cost_of(study, finalist) == pytest.approx(learned.target, rel=0.02)


def test_no_uniform_network_comes_nearer() -> None:
    study = tiny.tiny(final={"candidates": 1, "random": 0, "against": ["uniform"]})
    layers = split_layers(study, 10)
    legal = {k: legal_active_channels(v.channels, v.rest_kind, v.num_heads) for k, v in layers.items()}
    ratios = sorted({n / layer.channels for name, layer in layers.items() for n in legal[name]})
    learned, uniform = networks(study, [found(0, scored(study, (8, 1, 32, 4), 0.5))])
    place = ratios.index(uniform.ratio)
    near = {
        tuple(min(legal[name], key=lambda n, r=ratio * v.channels: abs(n - r)) for name, v in layers.items())
        for ratio in ratios[max(0, place - 3) : place + 4]
    }
    assert len(near) > 4
    off = [abs(cost_of(study, Finalist(Role.UNIFORM, 0, None, 1.0, split)) - learned.target) for split in near]
    assert abs(cost_of(study, uniform) - learned.target) == min(off)


def test_a_plan_is_the_same_again() -> None:
    study = definition()
    trials, plan = [found(3, scored(study, SPLIT, 0.5))], planned("macs")
    assert networks(study, trials) == plan
    other = networks(definition(sweep={"trials": 2, "seed": 4}), trials)
    assert other[:2] == plan[:2]
    assert other[2:] != plan[2:]


def test_a_uniform_split_has_no_uniform_rival() -> None:
    study = tiny.tiny(final={"candidates": 1, "random": 1, "against": ["uniform", "random"]})
    roles = [finalist.role for finalist in networks(study, [found(0, scored(study, (2, 4, 8, 16), 0.5))])]
    assert Role.UNIFORM not in roles
    assert roles[0] is Role.LEARNED


def test_there_are_no_more_random_networks_than_splits_of_that_cost() -> None:
    study = tiny.tiny(final={"candidates": 1, "random": 100, "against": ["uniform", "random"]})
    table = layer_costs(build_network(study, 10), study.data.input_shape, "macs", "network")
    split = (8, 16, 32, 64)  # n = C: few others cost as much
    others = {tuple(table.active_channels(levels).values()) for levels in product(*map(range, map(len, table.levels)))
              if abs(table.total(levels) / table.maximum - 1) <= 0.02} - {split}  # fmt: skip
    learned, *random = networks(study, [found(0, scored(study, split, 0.5))])
    assert learned.target == table.maximum
    assert {finalist.active_channels for finalist in random} == others
    assert 0 < len(random) == len(others) < 100


def test_nothing_is_compared_without_a_learned_network() -> None:
    baseline = make_trial(0, (0.9, 100.0), kind=TrialKind.BASELINE, parameters={"ratio": 0.25})
    assert networks(definition(), [baseline, make_trial(1)]) == []
    off = definition(final={"candidates": 0})
    assert networks(off, [found(0, scored(off, SPLIT, 0.5))]) == []


def points(*scores: tuple[float, float]) -> list[Trial]:
    return [make_trial(number, score) for number, score in enumerate(scores)]


def chosen(trials: list[Trial], count: int, **changes: Any) -> list[tuple[int, int]]:
    study = parse_study({"name": "x", "data": {"name": "digits"}, "final": {"candidates": count}, **changes})
    return [(choice.of, choice.position) for choice in choose_learned(study, trials)]


def test_learned_networks_are_taken_from_the_front() -> None:
    trials = points((0.5, 100.0), (0.4, 200.0), (0.6, 300.0), (0.7, 900.0))
    assert chosen(trials, 5) == [(0, 0), (2, 0), (3, 0)]
    assert chosen(trials, 2) == [(2, 0), (3, 0)]
    assert chosen(trials, 1) == [(3, 0)]


def test_baselines_do_not_hide_learned_networks() -> None:
    baseline = make_trial(0, (0.9, 50.0), kind=TrialKind.BASELINE, parameters={"ratio": 0.25})
    assert chosen([baseline, make_trial(1, (0.8, 100.0))], 2) == [(1, 0)]


def test_one_network_of_two_trials_is_compared_once() -> None:
    assert chosen(points((0.5, 100.0), (0.5, 100.0)), 2) == [(0, 0)]


def test_a_supernet_is_judged_by_the_best_kind_that_it_has() -> None:
    def candidate(cost: float, **kinds: float) -> Candidate:
        scores = [Evaluation(EvaluationKind(kind), "top1", value) for kind, value in kinds.items()]
        return make_trial(0, (0.0, cost), evaluations=tuple(scores)).candidates[0]

    measured = ((100.0, 0.5), (200.0, 0.4), (300.0, 0.6))
    inherited = found(0, *(candidate(cost, inherited=top1) for cost, top1 in measured))
    assert chosen([inherited], 3) == [(0, 0), (0, 2)]
    predicted = Evaluation(EvaluationKind.PREDICTED, "loss", 1.0)
    beliefs = found(0, *(make_trial(0, (0.0, c), evaluations=(predicted,)).candidates[0] for c in (100.0, 200.0)))
    assert chosen([beliefs], 3) == [(0, 0)]
    both = found(1, candidate(400.0, finetuned=0.3))
    assert chosen([inherited, both], 3) == [(1, 0)]


@given(st.lists(st.floats(1, 1e12), min_size=1, max_size=30, unique=True).map(sorted), st.integers(1, 35))
def test_chosen_costs_are_spread_and_hold_the_highest(costs: list[float], count: int) -> None:
    indices = spread_over_costs(costs, count)
    assert indices == sorted(set(indices))
    assert len(indices) == min(count, len(costs))
    assert len(costs) - 1 in indices


@given(st.integers(1, 12), st.integers(1, 12))
def test_of_equal_factors_every_kth_is_chosen(count: int, every: int) -> None:
    costs = [2.0**step for step in range(count * every + 1)]
    expected = [every * step for step in range(1, count + 1)] if count < len(costs) else list(range(len(costs)))
    assert spread_over_costs(costs, count) == expected
    assert math.log2(costs[-1]) == count * every
