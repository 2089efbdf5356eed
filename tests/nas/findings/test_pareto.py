"""Fronts and hypervolumes against brute force."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.candidate import Candidate
from nas.errors import InputError
from nas.finalist import Finalist, Role
from nas.findings.pareto import ParetoPoint, front_mask, hypervolume, pareto_points
from nas.findings.scores import default_kind
from nas.metrics import METRICS, Direction, Evaluation, EvaluationKind, Measurement
from nas.trial import Trial, TrialKind, TrialState
from partialnet.architecture import Architecture

METRIC_SETS = [
    ("top1", "macs"),
    ("macs", "top1"),
    ("params", "macs"),
    ("top1", "top5"),
    ("top1", "macs", "params"),
    ("loss", "latency_ms", "params", "top1"),
    ("macs",),
    ("top1",),
]


def at_least(a: float, b: float, metric: str) -> bool:
    return a >= b if METRICS[metric].direction is Direction.MAXIMIZE else a <= b


def dominates(a, b, objectives) -> bool:
    return a != b and all(at_least(x, y, name) for x, y, name in zip(a, b, objectives, strict=True))


def brute_front(rows, objectives) -> list[bool]:
    return [not any(dominates(other, row, objectives) for other in rows) for row in rows]


def brute_volume(rows, objectives, reference) -> float:
    """Sum the cells of the grid that the points' coordinates cut."""
    signs = [-1 if METRICS[name].direction is Direction.MAXIMIZE else 1 for name in objectives]
    points = [[s * v for s, v in zip(signs, row, strict=True)] for row in rows]
    bound = [s * v for s, v in zip(signs, reference, strict=True)]
    axes = [
        sorted({min(p[k], bound[k]) for p in points} | {bound[k]}) for k in range(len(objectives))
    ]
    volume = 0.0
    for cell in itertools.product(*(itertools.pairwise(axis) for axis in axes)):
        if any(all(p[k] <= low for k, (low, _) in enumerate(cell)) for p in points):
            size = 1.0
            for low, high in cell:
                size *= high - low
            volume += size
    return volume


@st.composite
def clouds(draw):
    objectives = draw(st.sampled_from(METRIC_SETS))
    # Small integers make ties and duplicates common.
    value = st.integers(0, 6).map(float)
    rows = draw(st.lists(st.tuples(*[value] * len(objectives)), min_size=1, max_size=12))
    return objectives, rows


@given(clouds())
def test_the_front_is_what_brute_force_finds(cloud):
    objectives, rows = cloud
    assert front_mask(rows, objectives) == brute_front(rows, objectives)


@given(clouds(), st.integers(1, 6))
@settings(deadline=None)
def test_the_hypervolume_is_what_brute_force_finds(cloud, bound):
    objectives, rows = cloud
    reference = [float(bound)] * len(objectives)
    points = [
        ParetoPoint(0, "", TrialKind.SEARCH, "", dict(zip(objectives, row, strict=True)), False) for row in rows
    ]
    found = hypervolume(points, objectives, dict(zip(objectives, reference, strict=True)))
    assert found == pytest.approx(brute_volume(rows, objectives, reference), abs=1e-9)


def candidate(
    top1: float | None, macs: float, *, kind=EvaluationKind.FINETUNED, latency=None, name="partialnet_micro"
) -> Candidate:
    measured = [Measurement("macs", macs), *(Measurement("latency_ms", ms, {}, where) for ms, where in latency or [])]
    scores = () if top1 is None else (Evaluation(kind, "top1", top1),)
    return Candidate(Architecture(name, {"num_classes": int(macs) + 1}), (), scores, tuple(measured))


def trial(number: int, *candidates: Candidate, kind=TrialKind.SEARCH, parameters=None) -> Trial:
    return Trial(number, kind, TrialState.COMPLETE, parameters or {"target": 4.0}, 0, candidates=candidates)


def test_points_carry_labels_and_all_known_values():
    points = pareto_points(
        [
            trial(0, candidate(0.9, 100), kind=TrialKind.BASELINE, parameters={"ratio": 0.25}),
            trial(1, candidate(0.95, 90)),
            trial(2, candidate(0.95, 90)),
            trial(3, candidate(0.5, 10), candidate(0.6, 9)),
        ],
        ("top1", "macs"),
    )
    assert [(p.number, p.label, p.on_front) for p in points] == [
        (0, "uniform 1/4", False),
        (1, "search", True),
        (2, "search", True),
        (3, "search", False),
        (3, "search", True),
    ]
    assert dict(points[0].values) == {"top1": 0.9, "macs": 100.0}
    assert points[1].architecture_id == points[2].architecture_id != points[0].architecture_id


def test_one_kind_of_evaluation_only():
    trials = [trial(0, candidate(0.9, 5, kind=EvaluationKind.INHERITED)), trial(1, candidate(0.2, 9))]
    assert [p.number for p in pareto_points(trials, ("top1", "macs"))] == [1]
    assert [p.number for p in pareto_points(trials, ("top1", "macs"), EvaluationKind.INHERITED)] == [0]


def test_candidates_without_an_objective_are_left_out():
    trials = [trial(0), trial(1, candidate(None, 5)), trial(2, candidate(0.1, 50))]
    assert [(p.number, p.on_front) for p in pareto_points(trials, ("top1", "macs"))] == [(2, True)]
    assert [p.number for p in pareto_points(trials, ("macs",))] == [1, 2]


def test_latencies_compare_only_under_equal_circumstances():
    trials = [
        trial(0, candidate(0.9, 5, latency=[(2.0, "here"), (0.1, "elsewhere")])),
        trial(1, candidate(0.8, 4, latency=[(1.0, "here"), (1.1, "here")])),
        trial(2, candidate(0.7, 3, latency=[(0.01, "elsewhere")])),
        trial(3, candidate(0.6, 2, latency=[(3.0, "here")])),
    ]
    points = pareto_points(trials, ("top1", "latency_ms"))
    assert [(p.number, p.values["latency_ms"]) for p in points] == [(0, 2.0), (1, 1.1), (3, 3.0)]


@pytest.mark.parametrize(
    ("objectives", "message"), [(("top1", "flops"), "flops"), ((), "got none"), (("top1", "top1"), "different .* top1")]
)
def test_bad_objectives_are_refused(objectives, message):
    with pytest.raises(InputError, match=message):
        pareto_points([], objectives)


def test_a_reference_point_needs_every_objective():
    with pytest.raises(InputError, match="lacks macs"):
        hypervolume([], ("top1", "macs"), {"top1": 0.0})
    assert hypervolume([], ("top1", "macs"), {"top1": 0.0, "macs": 10.0}) == 0.0


def test_import_is_light():
    code = "import sys, nas.findings.pareto; sys.exit(any(name in sys.modules for name in ('torch', 'ray')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def retraining(number: int, role: str, top1: float, macs: float, seed: int, **facts) -> Trial:
    finalist = Finalist(Role(role), 1, None, 90.0, (round(macs),), seed_index=seed, **facts)
    found = candidate(top1, macs, kind=EvaluationKind.RETRAINED)
    return replace(trial(number, found, kind=TrialKind.RETRAIN, parameters={}), finalist=finalist)


def test_retrained_networks_are_compared_by_their_means_beside_the_learned_one():
    scores = (Evaluation(EvaluationKind.FINETUNED, "top1", 0.9), Evaluation(EvaluationKind.RETRAINED, "top1", 0.75))
    learned = replace(candidate(None, 90), evaluations=scores)
    trials = [
        trial(0, candidate(0.8, 100), kind=TrialKind.BASELINE, parameters={"ratio": 0.25}),
        trial(1, learned),
        *(retraining(2 + 3 * seed, "learned", 0.7 + 0.1 * seed, 90, seed) for seed in range(2)),
        *(retraining(3 + 3 * seed, "uniform", 0.5 + 0.1 * seed, 91, seed, ratio=0.2421875) for seed in range(2)),
        *(retraining(4 + 3 * seed, "random", 0.8, 89, seed, draw=0) for seed in range(2)),
        replace(retraining(8, "random", 0.0, 88, 1, draw=1), candidates=(), state=TrialState.FAILED),
    ]
    points = pareto_points(trials, ("top1", "macs"), EvaluationKind.RETRAINED)
    assert [(p.number, p.label, p.kind, p.on_front) for p in points] == [
        (1, "search", TrialKind.SEARCH, False),
        (3, "uniform 0.242", TrialKind.BASELINE, False),
        (4, "random split 1", TrialKind.RANDOM, True),
    ]
    assert [p.values["top1"] for p in points] == pytest.approx([0.75, 0.55, 0.8])
    assert [(p.number, p.kind) for p in pareto_points(trials, ("top1", "macs"), EvaluationKind.FINETUNED)] == [
        (0, TrialKind.BASELINE),
        (1, TrialKind.SEARCH),
    ]


def test_a_few_retrained_networks_do_not_hide_the_front_of_the_search():
    both = (Evaluation(EvaluationKind.FINETUNED, "top1", 0.9), Evaluation(EvaluationKind.RETRAINED, "top1", 0.75))
    compared, other = replace(candidate(None, 90), evaluations=both), candidate(0.8, 80)
    assert default_kind([trial(0, compared), trial(1, other)]) is EvaluationKind.FINETUNED
    assert default_kind([trial(0, compared)]) is EvaluationKind.RETRAINED
    assert default_kind([retraining(0, "uniform", 0.5, 91, 0, ratio=0.25)]) is EvaluationKind.FINETUNED
