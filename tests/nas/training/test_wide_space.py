"""A trial in a wider space: it ends in a plain network, whose blocks and cost are those that the search chose."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import torch

from nas.finalist import with_finalist, without_finalist
from nas.metrics import Evaluation, EvaluationKind
from nas.probes.flops import probe_flops
from nas.store import Store
from nas.sweep.final_plan import plan_final
from nas.training.build import build_finalist, build_network
from nas.training.data import open_data
from nas.training.expected_cost import ExpectedCosts
from nas.training.gates import train_gates
from nas.training.scoring import candidate_of
from nas.training.trainer import TrialRun
from nas.trial import EpochRecord, Trial, TrialKind, TrialState
from partialnet.blocks import block_rows
from partialnet.export import to_fixed
from partialnet.layers.choice import choices_of
from partialnet.networks import architecture_of
from partialnet.search.cost import layer_costs
from partialnet.search.selection import best_within
from tests.nas import tiny

WIDE = {
    "budget": {"unit": "macs", "scope": "network"},
    "space": {"search": ["split", "mlp_ratio", "depth"], "target": 3e5},
    "training": {"epochs": 2, "finetune_epochs": 1, "batch_size": 90, "learning_rate": 0.01},
    "final": {"candidates": 1, "random": 2, "against": ["uniform", "random"]},
}


def test_a_trial_reports_and_keeps_what_it_chose() -> None:
    study = tiny.tiny(**WIDE)
    table = layer_costs(build_network(study, 10), study.data.input_shape, "macs", "network")
    target = (table.minimum + table.maximum) / 2
    told: list[EpochRecord] = []
    run = TrialRun(study, tiny.search(target=target), open_data(study, []), told.append, torch.device("cpu"))
    [done] = train_gates(run)
    found = architecture_of(done.network)
    assert found.absent_blocks == tuple(name for name, value in sorted(done.split.settings.items()) if value == 0)
    counted = {m.metric: m.value for m in probe_flops(done.network, study.data.input_shape)}
    assert counted["macs"] == pytest.approx(done.split.cost, rel=1e-3)
    assert told[-2].active_channels == done.split.settings
    costs = ExpectedCosts(study, 10, ("macs",))
    assert costs(told[-2])["macs"] == done.split.cost
    early = EpochRecord(1, "warmup", {"target": target}, {})
    assert table.minimum <= costs(early)["macs"] <= table.maximum


def test_networks_of_the_space_are_compared_at_equal_cost(tmp_path: Path) -> None:
    """Learned, uniform and random ones are built from what a trial's parameters say; SQL has their blocks."""
    study = tiny.tiny(**WIDE)
    table = layer_costs(build_network(study, 10), study.data.input_shape, "macs", "network")
    middle = (table.minimum + table.maximum) / 2
    # Absence is worth most here, so that the learned network lacks blocks.
    presence = [[float(bool(place)) for place in range(len(row))] for row in table.costs]
    settings = table.space.settings(best_within(table, middle, presence, 1)[0])
    searched = build_network(study, 10)
    for name, choice in choices_of(searched).items():
        if name in settings:
            choice.choose(settings[name])
    learned = to_fixed(searched, input_shape=study.data.input_shape)
    assert architecture_of(learned).absent_blocks
    scored = candidate_of(learned, study.data.input_shape, (Evaluation(EvaluationKind.FINETUNED, "top1", 0.5),))
    trial = Trial(3, TrialKind.SEARCH, TrialState.COMPLETE, {"target": 4.0}, 3, None, (scored,))
    finalists = plan_final(study, [trial]).networks
    assert [one.role.value for one in finalists] == ["learned", "uniform", "random", "random"]
    assert [one.label for one in finalists if one.draw is not None] == ["random network 1", "random network 2"]
    for one in finalists:
        assert without_finalist(with_finalist({}, one)) == ({}, one)
        network = build_finalist(study, 10, one)
        counted = {m.metric: m.value for m in probe_flops(network, study.data.input_shape)}
        if one.role.value != "uniform":
            assert counted["macs"] == pytest.approx(scored.score("macs"), rel=0.021)
    assert architecture_of(build_finalist(study, 10, finalists[0])) == scored.architecture
    rows = block_rows(scored.architecture)
    assert [row.name for row in rows if not row.present] == list(scored.architecture.absent_blocks)
    store = Store.open(f"sqlite:///{tmp_path / 'nas.db'}")
    made = store.create_study(study, reference_point={"top1": 0.0, "macs": 1e9})
    number = store.add_trials(made.id, [(TrialKind.SEARCH, {"target": 4.0})])[0].number
    store.start_trial(made.id, number)
    store.end_trial(made.id, number, TrialState.COMPLETE, candidates=[scored])
    assert store.trial(made.id, number).candidates[0].architecture == scored.architecture
    store.close()
    query = 'SELECT name, present, active_channels, hidden_channels FROM blocks ORDER BY "index"'
    with sqlite3.connect(tmp_path / "nas.db") as database:
        assert database.execute(query).fetchall() == [
            (row.name, row.present, row.active_channels, row.hidden_channels) for row in rows
        ]
