"""Trials of several widths and resolutions: their networks, feasibility, reference point, and final comparison."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nas.errors import DefinitionError
from nas.finalist import Role, with_finalist, without_finalist
from nas.metrics import Evaluation, EvaluationKind
from nas.sweep.final_plan import plan_final
from nas.training.build import build_finalist, build_network
from nas.training.feasibility import check_feasible, reference_point
from nas.training.run_trial import run_trial
from nas.training.scoring import candidate_of
from nas.trial import Trial, TrialKind, TrialState
from partialnet.export import to_fixed
from partialnet.fuse import fuse
from partialnet.networks import create
from partialnet.onnx_export import to_onnx
from partialnet.search.operations import macs_by_module
from tests.nas import tiny

SHAPE = (1, 8, 8)
STUDY = tiny.tiny(
    budget={"scope": "network"},
    space={"target": 1.3e5, "width": [1, 1.5], "resolution": [6, 8]},
    training={"epochs": 1, "finetune_epochs": 0, "batch_size": 90},
    final={"candidates": 1, "random": 1},
    baselines=["1/4"],
)


def test_a_trial_has_the_shape_that_it_drew() -> None:
    outcome = run_trial(STUDY, tiny.search(target=1.3e5, width=1.5, resolution=6), [], report=lambda _: None)
    [scored] = outcome.networks
    options = scored.candidate.architecture.options
    assert (options["embed_dim"], options["resolution"]) == (12, 6)
    network = create(scored.candidate.architecture).eval()
    network.load_state_dict(scored.state_dict)
    assert macs_by_module(fuse(network), SHAPE)[""] == scored.candidate.score("macs")
    assert network(torch.zeros(1, *SHAPE)).shape == (1, 10)


def test_each_shape_is_checked_before_anything_starts() -> None:
    given = {**STUDY.to_dict(), "baselines": []}
    study = tiny.tiny(**given | {"space": {"target": 1.3e5, "width": [1, 1.5], "resolution": 6}})
    maps, *shapes = check_feasible(study)
    assert maps.startswith("the maps of the last stage are 1x1 at images of 6 pixels")
    assert [note.partition(" in scope")[0] for note in shapes] == [
        "width 1, resolution 6: target 130000", "width 1.5, resolution 6: reachable targets",
    ]  # fmt: skip
    largest = tiny.tiny(**given | {"space": {"target": 1.3e5, "width": 1.5, "resolution": 6}})
    assert reference_point(study) == reference_point(largest)
    with pytest.raises(DefinitionError, match=r"target 10 in scope 'network' cannot be reached"):
        check_feasible(tiny.tiny(**given | {"space": {"target": 10, "width": [1, 1.5]}}))


def test_others_of_equal_cost_have_the_same_shape() -> None:
    study = STUDY.shaped({"width": 1.5, "resolution": 6})
    learned = to_fixed(build_network(study, 10).eval(), input_shape=SHAPE)
    scored = candidate_of(learned, SHAPE, (Evaluation(EvaluationKind.FINETUNED, "top1", 0.5),))
    trial = Trial(
        3, TrialKind.SEARCH, TrialState.COMPLETE, {"target": 1.3e5, "width": 1.5, "resolution": 6}, 3, None, (scored,)
    )
    found = plan_final(STUDY, [trial]).networks
    assert {finalist.role for finalist in found} == {Role.LEARNED, Role.UNIFORM, Role.RANDOM, Role.SCALED} - (
        {Role.UNIFORM} if len(found) == 3 else set()
    )
    for finalist in found:
        assert without_finalist(with_finalist({}, finalist))[1] == finalist
        network = build_finalist(STUDY, 10, finalist).eval()
        assert network.architecture().options["resolution"] == 6
        if finalist.role is not Role.SCALED:
            assert network.architecture().options["embed_dim"] == 12
        if finalist.role is Role.RANDOM:
            assert macs_by_module(fuse(network), SHAPE)[""] == pytest.approx(scored.score("macs"), rel=0.021)
    assert build_finalist(STUDY, 10, found[0]).architecture() == scored.architecture


def test_the_inference_form_resizes_images() -> None:
    network = create(STUDY.shaped({"resolution": 6}).model.architecture({}, in_chans=1, num_classes=10)).eval()
    x = torch.rand(2, *SHAPE)
    resized = torch.nn.functional.interpolate(x, (6, 6), mode="bilinear", align_corners=False)
    plain = create(STUDY.model.architecture({}, in_chans=1, num_classes=10)).eval()
    plain.load_state_dict(network.state_dict(), strict=True)
    assert torch.allclose(network(x), plain(resized), atol=1e-6)
    assert torch.allclose(fuse(network)(x), network(x), atol=1e-5)


@pytest.mark.long
def test_an_onnx_file_resizes_images(tmp_path: Path) -> None:
    network = create(STUDY.shaped({"resolution": 6}).model.architecture({}, in_chans=1, num_classes=10)).eval()
    to_onnx(network, tmp_path / "n.onnx", input_shape=SHAPE)  # compares its outputs with ONNX Runtime's
