"""Trials of several widths and resolutions: their networks, feasibility, reference point, and final comparison."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from nas.definition.study import StudyDefinition
from nas.errors import DefinitionError
from nas.finalist import Role, with_finalist, without_finalist
from nas.findings.milliseconds import TableCheck
from nas.metrics import Evaluation, EvaluationKind
from nas.probes.joined_table import joined
from nas.probes.table import DeviceTable, build_table, network_hash
from nas.sweep.final_plan import plan_final
from nas.training import latency
from nas.training.build import build_finalist, build_network
from nas.training.feasibility import check_feasible, reference_point
from nas.training.run_trial import run_trial
from nas.training.scoring import candidate_of
from nas.trial import Trial, TrialKind, TrialState
from partialnet.errors import BudgetError
from partialnet.export import to_fixed
from partialnet.fuse import fuse
from partialnet.networks import create
from partialnet.onnx_export import to_onnx
from partialnet.search.cost import layer_costs
from partialnet.search.latency_rows import latency_rows, predicted_latency, shape_of
from partialnet.search.operations import macs_by_module
from tests.nas import tiny
from tests.nas.probes.test_table import Device
from tests.partialnet.cost_tables import latency_table

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


@pytest.fixture(scope="module")
def timed() -> tuple[StudyDefinition, DeviceTable]:
    """A study of three shapes in milliseconds, with the table of a device whose times are known."""
    given = {**STUDY.to_dict(), "budget": {"unit": "latency"}, "objectives": ["top1", "latency"], "latency": {}}
    study, tables = tiny.tiny(**given), {}
    for shape in ({}, {"width": 1.5}, {"resolution": 6}):
        network = build_network(study.shaped(shape), 10)
        table = latency_table(network, SHAPE, lambda key: 0.1 + key.active_channels / 40, 2.0 + 5 * len(tables))
        check = TableCheck(16, 0.01 * (1 + len(tables)), 0.05, 0.9)
        found = DeviceTable("f", network_hash(network, SHAPE), "tiny", 1.0 + len(tables), check, (), table)
        tables[shape_of(network)] = found
    return study, joined(tables)


def test_the_tables_of_shapes_are_one_with_a_constant_for_each(timed: tuple[StudyDefinition, DeviceTable]) -> None:
    study, device = timed
    table = device.table
    assert DeviceTable.from_dict(device.to_dict()) == device
    assert pickle.loads(pickle.dumps(table)) == table
    assert device.check is not None
    assert (device.check.networks, device.check.median_error) == (48, 0.03)
    for scale, shape, constant in ((1.0, {}, 2.0), (1 / 2, {"width": 1.5}, 7.0), (1 / 3, {"resolution": 6}, 12.0)):
        network = build_network(study.shaped(shape), 10)
        costs = layer_costs(network, SHAPE, "latency", "network", table)
        assert costs.constant == pytest.approx(scale * constant)
        fixed = to_fixed(network.eval(), input_shape=SHAPE)
        calls = [key for rows in latency_rows(fixed, SHAPE).values() for key in rows.at({})]
        assert predicted_latency(fixed, SHAPE, table) == pytest.approx(scale * constant + sum(map(table.time, calls)))
    with pytest.raises(BudgetError, match="no constant for a network of width 16, only for width 8; width 12"):
        table.constant_of("width 16")


def test_a_trial_of_another_shape_meets_its_milliseconds(timed: tuple[StudyDefinition, DeviceTable]) -> None:
    study, device = timed
    costs = layer_costs(build_network(study.shaped({"width": 1.5}), 10), SHAPE, "latency", "network", device.table)
    target = 0.5 * (costs.minimum + costs.maximum)
    trial = tiny.search(target=target, width=1.5)
    [scored] = run_trial(study, trial, [], report=lambda _: None, table=device.table).networks
    assert scored.candidate.architecture.options["embed_dim"] == 12
    assert scored.candidate.score("predicted_ms") == pytest.approx(target, rel=0.02)
    assert scored.candidate.within_budget


@pytest.mark.long
def test_the_table_of_each_shape_is_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(latency, "build_local_table", lambda job, tell: build_table(job, Device(), tell))
    monkeypatch.setenv("PARTIALNET_CACHE", str(tmp_path))
    given = {**STUDY.to_dict(), "budget": {"unit": "latency"}, "objectives": ["top1", "latency"], "latency": {}}
    study = tiny.tiny(**given | {"space": {"target": 5, "width": [1, 1.5]}})
    told: list[str] = []
    table = latency.study_table(study, 10, [], lambda step: told.append(step.what))
    assert table is not None
    assert list(table.table.shapes) == ["width 8", "width 12"]
    assert {text.partition(":")[0] for text in told} == {"width 8 (1 of 2 shapes)", "width 12 (2 of 2 shapes)"}
    count = len(told)
    assert latency.study_table(study, 10, [], lambda step: told.append(step.what)) == table
    assert len(told) == count
    assert not any("another network" in note for note in latency.table_notes(table, study, 10))
    notes = check_feasible(study, table=table.table)
    assert [note.partition(":")[0] for note in notes[-2:]] == ["width 1", "width 1.5"]
