"""A hard limit in milliseconds: the best network exceeds it when it is measured, and gets the next cheaper levels."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nas.definition.sections import FinalSpec
from nas.definition.study import StudyDefinition
from nas.errors import StoreLost
from nas.findings.pareto import pareto_points
from nas.metrics import Evaluation, EvaluationKind, Measurement
from nas.probes.latency import latency_fingerprint
from nas.probes.table import DeviceTable, build_table, local_job
from nas.store import Store
from nas.study import Study
from nas.sweep.finalists import FinalPlan, planned_finalists
from nas.sweep.limit import planned_cheaper
from nas.sweep.probing import judge_latencies
from nas.training.build import build_network, build_split
from nas.training.run_trial import run_trial
from nas.training.scoring import candidate_of
from nas.trial import TrialKind, TrialState
from partialnet.search.cost import layer_costs
from tests.nas.probes.test_table import Device
from tests.nas.tiny import tiny

LIMIT = 1000.0  # far above what the networks take, so that real probes of cheaper levels surely keep it
TOP = [8, 16, 32, 64]


def definition(**budget: Any) -> StudyDefinition:
    return tiny(
        budget={"unit": "latency", **(budget or {"at_most": LIMIT})},
        latency={"n": 10, "warmup": 1, "interval": 1.0, "seconds": 0.2},
        training={"epochs": 1, "finetune_epochs": 0, "batch_size": 200},
    )


@pytest.fixture(scope="module")
def table() -> DeviceTable:
    study = definition()
    assert study.latency is not None
    job = local_job(build_network(study, 10), study.data.input_shape, "tiny", study.latency)
    return build_table(job, Device())


class Bench(NamedTuple):
    store: Store
    study: Study
    table: DeviceTable

    def add(self, split: list[int], top1: float, ms: float | None, **changes: Any) -> int:
        """Add a complete search trial, whose network was measured with ``ms`` milliseconds."""
        found, shape = self.study.definition, self.study.definition.data.input_shape
        network = build_split(found, 10, split).eval()
        scores = (Evaluation(EvaluationKind.FINETUNED, "top1", top1),)
        candidate = replace(candidate_of(network, shape, scores, self.table.table), target=900.0, **changes)
        if ms is not None:
            assert found.latency is not None
            figures = {"usual_reference_ms": self.table.reference_ms}
            fingerprint = latency_fingerprint(found.latency, shape)
            measured = Measurement("latency_ms", ms, figures, fingerprint)
            candidate = replace(candidate, measurements=(*candidate.measurements, measured))
        [spec] = self.store.add_trials(self.study.id, [(TrialKind.SEARCH, {"target": LIMIT})])
        self.store.start_trial(self.study.id, spec.number)
        self.store.end_trial(self.study.id, spec.number, TrialState.COMPLETE, candidates=[candidate])
        return spec.number

    def plan(self) -> Any:
        return planned_cheaper(self.store, self.study, self.table.table, lambda _: True)


def bench_of(path: Path, found: StudyDefinition, table: DeviceTable) -> Iterator[Bench]:
    with Store.open(f"sqlite:///{path}/nas.db") as store:
        study = store.create_study(found, reference_point={})
        store.record_latency_table(study.id, table.to_dict())
        yield Bench(store, study, table)


@pytest.fixture
def bench(tmp_path: Path, table: DeviceTable) -> Iterator[Bench]:
    yield from bench_of(tmp_path, definition(), table)


def test_the_best_network_gets_cheaper_levels_and_a_training(bench: Bench) -> None:
    slow, fast = bench.add(TOP, 0.9, 1.1 * LIMIT), bench.add([1, 2, 4, 8], 0.5, 0.5 * LIMIT)
    [measured] = bench.store.trial(bench.study.id, slow).candidates
    elsewhere = Measurement("latency_ms", 50 * LIMIT, {}, "another machine")  # by another study, of the same network
    bench.store.add_measurements(measured.architecture.id, [elsewhere], input_shape=(1, 8, 8))
    [spec] = bench.plan()
    assert (spec.kind, spec.label) == (TrialKind.CHEAPER, f"trial {slow}, cheaper levels")
    assert spec.finalist is not None
    costs = layer_costs(build_network(bench.study.definition, 10), (1, 8, 8), "latency", "network", bench.table.table)
    assert spec.finalist.target < costs.full / 1.1
    assert all(n <= top for n, top in zip(spec.finalist.active_channels, TOP, strict=True))
    ended = [trial for trial in bench.store.trials(bench.study.id) if trial.candidates]
    kept = {trial.number: trial.candidates[0].measured_within_budget for trial in ended}
    assert kept == {slow: False, fast: True}
    assert bench.plan() == []  # it is planned once

    outcome = run_trial(
        bench.study.definition, spec, (), report=lambda _: None, device="cpu", table=bench.table.table
    )
    [network] = outcome.networks
    assert network.candidate.within_budget
    assert {e.kind for e in network.candidate.evaluations} == {EvaluationKind.FINETUNED}
    assert tuple(split.active_channels for split in network.candidate.splits) == spec.finalist.active_channels


def test_no_network_on_the_front_exceeds_the_limit(bench: Bench) -> None:
    slow, fast = bench.add(TOP, 0.9, 1.1 * LIMIT), bench.add([1, 2, 4, 8], 0.5, 0.5 * LIMIT)
    judge_latencies(bench.store, bench.study)
    front = bench.store.front(bench.study.id, dominated=tuple(TrialKind))
    assert {(p.number, p.on_front, p.measured_within_budget) for p in front.points} == {
        (slow, False, False),
        (fast, True, True),
    }
    assert front.broken == {f"latency_ms <= {LIMIT}": 1}
    trials = bench.store.trials(bench.study.id)
    points = pareto_points(trials, bench.study.definition.objectives, None, bench.study.definition.constraints)
    assert {(p.number, p.on_front, p.measured_within_budget) for p in points} == {
        (slow, False, False),
        (fast, True, True),
    }


def test_a_better_network_that_keeps_the_limit_is_enough(bench: Bench) -> None:
    bench.add(TOP, 0.5, 1.1 * LIMIT)
    bench.add([1, 2, 4, 8], 0.9, 0.5 * LIMIT)
    assert bench.plan() == []


def test_an_unmeasured_front_is_measured_first(bench: Bench) -> None:
    number = bench.add(TOP, 0.9, None)
    assert bench.plan() == []
    [candidate] = bench.store.trial(bench.study.id, number).candidates
    assert candidate.measured_within_budget is True
    assert candidate.score("latency_ms") is not None


def test_a_target_is_kept_within_five_percent(tmp_path: Path, table: DeviceTable) -> None:
    for bench in bench_of(tmp_path, definition(target=900.0), table):
        places = {ms: bench.add([8, n, 32, 64], 0.5, ms) for n, ms in ((2, 850.0), (4, 856.0), (8, 944.0), (16, 946.0))}
        judge_latencies(bench.store, bench.study)
        verdicts = {t.number: t.candidates[0].measured_within_budget for t in bench.store.trials(bench.study.id)}
        assert {ms: verdicts[number] for ms, number in places.items()} == {
            850.0: False, 856.0: True, 944.0: True, 946.0: False,
        }  # fmt: skip
        assert bench.plan() == []  # only a hard limit asks for other levels


def test_tables_files_and_the_api_show_what_is_off_its_target(tmp_path: Path, table: DeviceTable, nas: Any) -> None:
    for bench in bench_of(tmp_path, definition(target=900.0), table):
        bench.add([8, 4, 32, 64], 0.5, 900.0)
        bench.add(TOP, 0.9, 950.0)
        judge_latencies(bench.store, bench.study)
    code, out, _ = nas("pareto", "tiny", "--all")
    assert code == 0
    assert ["900.000" in line for line in out.splitlines() if "00.000" in line] == [True]
    assert "! 950.000" in out
    assert "! the measured latency does not keep the budget: within 5 % of the target" in out
    rows = list(csv.DictReader(io.StringIO(nas("pareto", "tiny", "--csv")[1])))
    assert [row["measured_within_budget"] for row in rows] == ["true", "false"]
    points = json.loads(nas("pareto", "tiny", "--json")[1])["points"]
    assert [point["measured_within_budget"] for point in points] == [True, False]
    [candidate] = json.loads(nas("trial", "tiny", "1", "--json")[1])["candidates"]
    assert candidate["measured_within_budget"] is False
    assert "the measured latency of the whole network does not keep the budget" in nas("trial", "tiny", "1")[1]


def test_a_stop_ends_the_measuring_for_a_final_comparison(bench: Bench) -> None:
    """No training is added, so that a resumed search plans the comparison anew."""
    bench.add([2, 4, 16, 8], 0.9, 1.0)
    final = FinalSpec(candidates=1, against=("uniform",))
    study = replace(bench.study, definition=bench.study.definition.model_copy(update={"final": final}))
    told: list[str] = []

    def stop(message: str) -> bool:
        told.append(message)
        return False

    assert planned_finalists(bench.store, study, bench.table.table, stop) == FinalPlan()
    assert told == ["measuring networks of equal latency, 1"]
    assert {trial.kind for trial in bench.store.trials(study.id)} == {TrialKind.SEARCH}


def test_a_store_that_is_lost_while_a_comparison_is_planned_does_not_cost_the_comparison(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller hears of it, so that a later run plans the comparison."""

    def lost(study_id: str) -> None:
        raise StoreLost(f"the database is away, asked for {study_id}")

    bench.add([2, 4, 16, 8], 0.9, 1.0)
    monkeypatch.setattr(bench.store, "latency_table", lost)
    with pytest.raises(StoreLost, match="is away"):
        planned_finalists(bench.store, bench.study, bench.table.table, lambda _message: True)
