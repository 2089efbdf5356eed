"""Beside a learned network of a wider space stand uniform, random and ablated ones of equal cost."""

from __future__ import annotations

from collections import Counter

import pytest

from nas.candidate import Candidate
from nas.definition.study import StudyDefinition
from nas.errors import DefinitionError
from nas.finalist import Finalist, Role, with_finalist, without_finalist
from nas.metrics import Evaluation, EvaluationKind
from nas.sweep.final_plan import FinalNetworks, plan_final
from nas.training.build import build_finalist, build_network, split_layers
from nas.training.scoring import candidate_of
from partialnet.fuse import fuse
from partialnet.layers.choice import choices_of
from partialnet.networks import architecture_of, create
from partialnet.search.operations import macs_by_module
from tests.nas import tiny
from tests.nas.sweep.test_final_plan import found

MODEL = {"name": "micro", "depths": [1, 2, 2, 1], "patch_size": 4, "merge_strides": [1, 2, 1], "feature_dim": 32}
SEARCHED = {"target": {"uniform": [1e5, 1e6]}, "search": ["split", "mlp_ratio", "depth"]}


def study() -> StudyDefinition:
    asked = {"candidates": 1, "random": 2, "against": ["uniform", "random"], "ablate": True}
    return tiny.tiny(model=MODEL, budget={"scope": "network"}, space=SEARCHED, final=asked)


def learned(definition: StudyDefinition) -> Candidate:
    """A network of the space: one block is absent, hidden widths and splits differ from block to block."""
    network = build_network(definition, 10)
    choices = choices_of(network)
    for name, value in {"stages.2.blocks.1": 0, "stages.0.blocks.0.mixer": 8, "stages.3.blocks.0.mlp": 128}.items():
        choices[name].choose(value)
    fixed = create(architecture_of(network)).eval()
    return candidate_of(fixed, definition.data.input_shape, (Evaluation(EvaluationKind.FINETUNED, "top1", 0.5),))


def cost_of(definition: StudyDefinition, finalist: Finalist) -> float:
    network = build_finalist(definition, 10, finalist).eval()
    return macs_by_module(fuse(network), definition.data.input_shape)[""]


@pytest.fixture(scope="module")
def planned() -> tuple[Candidate, FinalNetworks]:
    """A learned network, and the plan around it."""
    candidate = learned(study())
    return candidate, plan_final(study(), [found(3, candidate)])


def test_all_of_them_cost_as_much_and_can_be_built(planned: tuple[Candidate, FinalNetworks]) -> None:
    definition = study()
    candidate, (networks, left_out) = planned
    assert left_out == ()
    assert Counter(finalist.role for finalist in networks) == {
        Role.LEARNED: 1, Role.UNIFORM: 1, Role.RANDOM: 2, Role.ABLATED: 3,
    }  # fmt: skip
    mine, uniform, *_ = networks
    assert architecture_of(build_finalist(definition, 10, mine)) == candidate.architecture
    for finalist in networks:
        assert without_finalist(with_finalist({}, finalist))[1] == finalist
        assert finalist.target == mine.target
        if finalist.role is not Role.ABLATED:  # whose choices are those of the table, so few that some miss the cost
            assert cost_of(definition, finalist) == pytest.approx(mine.target, rel=0.02)
    assert uniform.block_choices.absent_blocks == ()
    assert uniform.label.startswith("uniform 1/4, MLPs x")
    assert [f.label for f in networks if f.role is Role.ABLATED] == ["split alone", "mlp_ratio alone", "depth alone"]


def test_only_one_kind_differs_from_the_uniform_network(planned: tuple[Candidate, FinalNetworks]) -> None:
    definition = study()
    ablated = {finalist.kind: finalist for finalist in planned[1].networks if finalist.kind}
    assert not ablated["split"].block_choices.absent_blocks
    assert not ablated["mlp_ratio"].block_choices.absent_blocks
    layers = split_layers(definition, 10)
    for kind, uniform in (("split", False), ("mlp_ratio", True), ("depth", True)):
        split = architecture_of(build_finalist(definition, 10, ablated[kind])).active_channels
        assert uniform is (len({n / layers[name].channels for name, n in split.items()}) == 1)
    widths = ablated["split"].block_choices.hidden_channels
    shares = {width / (2 * layers[name.replace("mlp", "mixer")].channels) for name, width in widths.items()}
    assert len(shares) <= 1


def test_ablation_needs_two_kinds() -> None:

    with pytest.raises(DefinitionError, match=r"final: ablate needs a space with two kinds of choice"):
        tiny.tiny(final={"ablate": True})
    assert study().planned_final == 1 * (1 + 1 + 2 + 3) * 3


