"""A final comparison in milliseconds: networks are equal by measurement, where the table errs."""

from __future__ import annotations

import pytest
from torch import nn

from nas.candidate import Candidate
from nas.definition.study import StudyDefinition
from nas.finalist import Finalist, Role, with_finalist, without_finalist
from nas.findings.milliseconds import MEASURED_TOLERANCE
from nas.metrics import Evaluation, EvaluationKind
from nas.sweep import scaled_networks
from nas.sweep.final_plan import plan_final
from nas.training.build import build_finalist, build_network, build_split
from nas.training.scoring import candidate_of
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.search.latency_parts import LayerKey
from partialnet.search.latency_rows import predicted_latency
from partialnet.search.latency_table import LatencyTable
from tests.nas import tiny
from tests.nas.sweep.test_final_plan import found
from tests.partialnet.cost_tables import latency_table

MODEL = {"name": "micro", "depths": [2, 2, 1, 1], "patch_size": 2, "merge_strides": [1, 2, 1], "feature_dim": 32}
SPLIT = (8, 8, 8, 2, 16, 8)


def ms_of(key: LayerKey) -> float:
    return 0.2 + key.active_channels**1.3 / 20


def study(*against: str, candidates: int = 1, random: int = 2) -> StudyDefinition:
    return tiny.tiny(
        budget={"unit": "latency"},
        space={"target": 5.0},
        model=MODEL,
        latency={"table": "auto"},
        final={"candidates": candidates, "random": random, "against": list(against)},
    )


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return latency_table(build_network(study("uniform"), 10), (1, 8, 8), ms_of, 1.0)


def scored(table: LatencyTable, split: tuple[int, ...], top1: float = 0.5) -> Candidate:
    network = build_split(study("uniform"), 10, split).eval()
    evaluation = Evaluation(EvaluationKind.FINETUNED, "top1", top1)
    return candidate_of(network, (1, 8, 8), (evaluation,), table=table)


class Clock:
    """A device on which convolved channels of the first stage cost more than the table says."""

    def __init__(self, table: LatencyTable) -> None:
        self.table, self.passes = table, 0

    def __call__(self, network: nn.Module) -> float:
        self.passes += 1
        layer = next(module for module in network.modules() if isinstance(module, PartialConv2d))
        return predicted_latency(network, (1, 8, 8), self.table) * (1 + layer.active_channels / layer.channels / 2)


def ratio(finalist: Finalist, learned: Finalist, clock: Clock) -> float:
    one, other = (clock(build_finalist(study("uniform"), 10, entry)) for entry in (finalist, learned))
    return one / other


def test_uniform_and_random_networks_have_the_measured_latency_of_the_learned_one(table: LatencyTable) -> None:
    clock, trials = Clock(table), [found(3, scored(table, SPLIT))]
    definition = study("uniform", "random")
    by_table = plan_final(study("uniform"), trials, table).networks
    learned, *others = plan_final(definition, trials, table, measure=clock).networks
    assert [finalist.role for finalist in others] == [Role.UNIFORM, *[Role.RANDOM] * 2]
    assert clock.passes <= 1 + 3 + 12
    for finalist in others:
        off = ratio(finalist, learned, clock)
        assert abs(off - 1) <= MEASURED_TOLERANCE
        assert finalist.cost == pytest.approx(off * learned.target)
        assert without_finalist(with_finalist({}, finalist))[1].cost == finalist.cost
    assert [finalist.draw for finalist in others[1:]] == [0, 1]
    assert len({finalist.active_channels for finalist in (learned, *others)}) == 4
    assert abs(ratio(by_table[1], learned, clock) - 1) > MEASURED_TOLERANCE  # so the table alone does not suffice
    assert learned.cost is None


def test_a_network_that_no_other_equals_gets_the_closest_and_no_random_ones(table: LatencyTable) -> None:
    class Slow(Clock):
        def __call__(self, network: nn.Module) -> float:
            self.passes += 1
            return 1.0 if self.passes == 1 else 3.0

    definition, slow = study("uniform", "random", random=1), Slow(table)
    learned, uniform = plan_final(definition, [found(3, scored(table, SPLIT))], table, measure=slow).networks
    assert uniform.role is Role.UNIFORM
    assert uniform.cost == pytest.approx(3 * learned.target)


@pytest.mark.long
def test_scaled_shapes_are_set_up_once_for_all_learned_networks(
    monkeypatch: pytest.MonkeyPatch, table: LatencyTable
) -> None:
    made: list[object] = []
    known = scaled_networks.scaling_of
    monkeypatch.setattr(scaled_networks, "scaling_of", lambda architecture: made.append(1) or known(architecture))
    candidates = (scored(table, SPLIT), scored(table, (2, 2, 4, 4, 8, 4), 0.4))
    trials = [found(number, candidate) for number, candidate in enumerate(candidates)]

    def measure(network: nn.Module) -> float:
        return float(sum(parameter.numel() for parameter in network.parameters()))

    definition = study("scaled", candidates=2)
    networks = plan_final(definition, trials, table, measure=measure).networks
    assert [finalist.role for finalist in networks] == [Role.LEARNED, Role.SCALED] * 2
    assert len(made) == 1
    for learned, scaled in (networks[:2], networks[2:]):
        one, other = (measure(build_finalist(definition, 10, entry)) for entry in (scaled, learned))
        assert scaled.cost == pytest.approx(learned.target * one / other)
