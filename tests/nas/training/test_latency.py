"""Studies that aim at milliseconds: their tables, what is feasible, and trials that meet the target."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from nas.definition.study import StudyDefinition, cost_metric, parse_study
from nas.errors import DefinitionError
from nas.probes.table import DeviceTable, build_table, local_job
from nas.sweep.final_plan import plan_final
from nas.training.build import budget_for, build_network
from nas.training.feasibility import check_feasible, reference_point
from nas.training.latency import study_table, table_notes
from nas.training.run_trial import ScoredNetwork, run_trial
from nas.trial import TrialKind, TrialSpec
from partialnet.search.cost import layer_costs
from tests.nas.probes.test_table import Device
from tests.nas.strategies import make_trial
from tests.nas.tiny import search, tiny


def definition(target: object = 8.0, **changes: object) -> StudyDefinition:
    """Return a tiny study that aims at milliseconds of the table in ``device.json``."""
    return tiny(
        **{
            "budget": {"unit": "latency"},
            "space": {"target": target, "penalty": 0.9},
            "latency": {"table": "device.json", "n": 10},
            "training": {"epochs": 4, "finetune_epochs": 1, "batch_size": 40, "learning_rate": 0.01},
            **changes,
        }
    )


SHORT = {"epochs": 4, "finetune_epochs": 0, "batch_size": 120}


@pytest.fixture(scope="module")
def made() -> DeviceTable:
    """The table of a device whose times are known, for the tiny network."""
    study = definition()
    assert study.latency is not None
    job = local_job(build_network(study, 10), study.data.input_shape, "tiny", study.latency)
    return build_table(job, Device())


@pytest.fixture
def root(tmp_path: Path, made: DeviceTable) -> Path:
    made.save(tmp_path / "device.json")
    return tmp_path


def test_a_budget_in_milliseconds_counts_the_whole_network():
    study = definition()
    assert (study.budget.unit, study.budget.scope) == ("latency", "network")
    assert cost_metric(study) == "predicted_ms"
    assert parse_study(study.to_dict()) == study


def test_without_a_named_table_one_is_measured():
    study = tiny(budget={"unit": "latency"}, space={"target": 5.0}, latency={"runtime": "onnx"})
    assert study.latency is not None
    assert (study.latency.table, study.latency.runtime) == ("auto", "onnx")
    assert tiny(latency={}).latency.table is None


def test_a_limit_in_milliseconds_reaches_the_searcher():
    study = definition(constraints=["predicted_ms <= 5 ms"])
    assert [(limit.metric, limit.bound) for limit in study.told_constraints] == [("predicted_ms", 5.0)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"latency": None}, "budget: unit 'latency' needs a latency table"),
        ({"budget": {"unit": "latency", "scope": "conv"}}, "unit 'latency' counts the whole network"),
        ({"latency": {"table": "device.txt"}}, "'auto', or the name of a file *.json under a data root"),
        ({"latency": {"table": "../device.json"}}, "latency.table"),
        ({"latency": {"table": "/etc/device.json"}}, "latency.table"),
        ({"latency": {"runtime": "tflite"}}, "latency.runtime"),
        ({"latency": {"interval": 0}}, "latency.interval"),
        ({"budget": {}, "latency": {}, "objectives": ["top1", "predicted_ms"]}, "'predicted_ms' needs a latency table"),
        ({"budget": {}, "latency": {}, "constraints": ["predicted <= 5 ms"]}, "'predicted_ms' needs a latency table"),
    ],
)
def test_what_is_refused(changes, expected):
    with pytest.raises(DefinitionError) as caught:
        definition(**changes)
    assert expected in str(caught.value)


def test_the_table_of_a_file(made, root):
    found = study_table(definition(), 10, [root / "elsewhere", root])
    assert found == made
    notes = table_notes(made, definition(), 10)
    assert notes[0].startswith("latency table: tiny on torch (torch ")
    assert "rank correlation" in notes[1]
    assert len(notes) == 2
    assert "belongs to another network" in table_notes(made, definition(), 11)[-1]


def test_a_study_without_a_table(root):
    assert study_table(tiny(), 10, [root]) is None
    assert study_table(tiny(latency={}), 10, [root]) is None


@pytest.mark.parametrize("roots", [[], ["elsewhere"]])
def test_a_missing_file_is_told(root, roots):
    with pytest.raises(DefinitionError, match=r"tiny: latency\.table: there is no file device\.json under the data"):
        study_table(definition(), 10, [root / name for name in roots])


def test_a_table_of_other_layers_is_told(root):
    wider = definition(model={"name": "micro", "embed_dim": 16, "patch_size": 2, "merge_strides": [1, 2, 1]})
    with pytest.raises(DefinitionError, match=r"latency\.table: .*the latency table has no row for"):
        study_table(wider, 10, [root])


def test_a_table_without_a_constant_is_told(root, made):
    replace(made, check=None, table=replace(made.table, constant=None)).save(root / "device.json")
    with pytest.raises(DefinitionError, match="has no constant"):
        study_table(definition(), 10, [root])


def test_reachable_milliseconds_are_told(made):
    costs = layer_costs(build_network(definition(), 10), (1, 8, 8), "latency", "network", made.table)
    low, high = costs.minimum, costs.maximum
    middle = definition((low + high) / 2)
    [reach] = [note for note in check_feasible(middle, 10, made.table) if note.startswith("reachable")]
    span = f"the fastest network takes {low:.3f} ms and the slowest {high:.3f} ms, by the latency table"
    assert reach == f"reachable: {span}"
    for budget, target, told in (
        ({}, low / 2, f"target {low / 2:g} ms cannot be reached by this network: {span}"),
        ({}, high * 2, f"target {high * 2:g} ms limits nothing: {span}"),
        ({"at_most": low / 2}, low / 2, f"at_most {low / 2:g} ms cannot be reached by this network: {span}"),
        ({"at_most": high * 2}, high * 2, f"at_most {high * 2:g} ms limits nothing: {span}"),
    ):
        with pytest.raises(DefinitionError, match=re.escape(told)):
            check_feasible(definition(target, budget={"unit": "latency", **budget}), 10, made.table)
    assert reference_point(middle, 10, made.table)["predicted_ms"] == pytest.approx(costs.full)


def test_a_hard_limit_leaves_room_below_it(made):
    limit = middle_target(made)
    study = definition(limit, budget={"unit": "latency", "at_most": limit}, training=SHORT)
    aimed = budget_for(study.budget, limit, (1, 8, 8), made.table).target
    assert 0.9 * limit < aimed * 1.02 <= limit
    assert any(f"the search aims at {aimed:.3f} ms" in note for note in check_feasible(study, 10, made.table))
    outcome = run_trial(
        study, search(target=limit), (), report=lambda _: None, device="cpu", table=made.table
    )
    assert outcome.networks[0].candidate.score("predicted_ms") <= limit


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"threads": 2}, "it was measured with threads 1, but the study says threads 2"),
        ({"batch": 4}, "it was measured with batch 1, but the study says batch 4"),
        ({"runtime": "onnx"}, "it was measured with runtime torch, but the study says runtime onnx"),
    ],
)
def test_a_table_of_other_circumstances_is_told(root, spec, told):
    with pytest.raises(DefinitionError, match=told):
        study_table(definition(latency={"table": "device.json", **spec}), 10, [root])


def test_a_table_of_another_device_is_told(root, made):
    far = replace(made.table, circumstances=replace(made.table.circumstances, device="a board"))
    replace(made, table=far).save(root / "device.json")
    found = study_table(definition(), 10, [root])
    [note] = [note for note in table_notes(found, definition(), 10) if "another device" in note]
    assert "it was measured on a board, but this machine is" in note
    with pytest.raises(DefinitionError, match=r"device\.json: it was measured on a board, .* a hard limit"):
        study_table(definition(budget={"unit": "latency", "at_most": 8.0}), 10, [root])


def middle_target(made: DeviceTable) -> float:
    costs = layer_costs(build_network(definition(), 10), (1, 8, 8), "latency", "network", made.table)
    return 0.6 * costs.minimum + 0.4 * costs.maximum


@pytest.fixture(scope="module")
def searched(made: DeviceTable) -> ScoredNetwork:
    """The network of a search that aims at the middle."""
    target = middle_target(made)
    [network] = run_trial(
        definition(target), search(target=target), (), report=lambda _: None, device="cpu", table=made.table
    ).networks
    return network


def test_a_search_meets_its_milliseconds(made, searched):
    target, network = middle_target(made), searched
    [predicted] = [m for m in network.candidate.measurements if m.metric == "predicted_ms"]
    assert network.candidate.target == pytest.approx(target)
    assert network.candidate.within_budget
    assert predicted.value == pytest.approx(target, rel=0.02)
    assert predicted.fingerprint.startswith("table/torch (torch ")


def test_baselines_between_the_levels_of_a_table_have_a_latency(made):
    spec = TrialSpec(0, TrialKind.BASELINE, {"ratio": 0.375}, 3)
    study = definition(middle_target(made), training=SHORT)
    [network] = run_trial(study, spec, (), report=lambda _: None, device="cpu", table=made.table).networks
    assert network.candidate.score("predicted_ms") is not None


def test_the_final_comparison_is_at_equal_latency(made, searched):
    study = definition(middle_target(made), final={"candidates": 1, "seeds": 1, "random": 1})
    candidate = searched.candidate
    trial = replace(make_trial(0), candidates=(candidate,))
    planned = plan_final(study, [trial], made.table).networks
    assert planned[0].target == candidate.score("predicted_ms")
    spec = TrialSpec(1, TrialKind.RETRAIN, {}, 3, planned[-1])
    [network] = run_trial(study, spec, (), report=lambda _: None, device="cpu", table=made.table).networks
    assert network.candidate.score("predicted_ms") == pytest.approx(planned[0].target, rel=0.02)
