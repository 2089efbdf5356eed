"""Commands on a trial with several networks, as a supernet yields them."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from nas.store import Store
from nas.trial import Fidelity, TrialKind, TrialState
from tests.nas.store.makers import complete, networks, study, supernet


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        supernet(store)
    return tmp_path


def test_a_trial_lists_its_networks_and_shows_one(nas, place) -> None:
    code, out, _ = nas("trial", "supernet", "0", cwd=place)
    assert code == 0
    for position, candidate in enumerate(networks()):
        [line] = [line for line in out.splitlines() if candidate.architecture.id[:12] in line]
        assert line.split()[:3] == [str(position), f"{50 + 10 * position}.00", f"{1 + position}.000"]
        assert "inherited" in line
    assert "stages.0.blocks.0.mixer" not in out
    code, one, _ = nas("trial", "supernet", "0", "--candidate", "2", cwd=place)
    assert (code, "candidate 2 of 3" in one, "stages.0.blocks.0.mixer" in one) == (0, True, True)
    assert "predicted (predicted, not trained), validation data" in one


def test_files_are_of_the_network_that_is_named(nas, place) -> None:
    code, _, err = nas("trial", "supernet", "0", "--architecture", "a.json", cwd=place)
    assert (code, (place / "a.json").exists()) == (2, False)
    assert "trial 0 of supernet has 3 networks: choose one" in err
    wanted = networks()[1].architecture
    code, _, _ = nas("trial", "supernet", "0", "--candidate", wanted.id[:8], "--architecture", "a.json", cwd=place)
    assert (code, json.loads((place / "a.json").read_text())) == (0, wanted.to_dict())


def test_a_mirror_is_a_study_of_optuna(nas, place) -> None:
    command = ("optuna-mirror", "supernet", "--storage", "sqlite:///optuna.db")
    code, out, _ = nas(*command, cwd=place)
    assert (code, "study supernet in sqlite:///optuna.db: 1 trial, 1 of them new" in out) == (0, True)
    code, out, _ = nas(*command, "--json", cwd=place)
    assert json.loads(out) == {"name": "supernet", "trials": 1, "added": 0, "rewritten": False}
    [trial] = optuna.load_study(study_name="supernet", storage=f"sqlite:///{place}/optuna.db").trials
    assert [len(network["ratios"]) for network in trial.user_attrs["networks"]] == [2, 2, 2]
    code, _, err = nas("optuna-mirror", "supernet", "--storage", "sqlite:///nas.db", cwd=place)
    assert (code, "belongs to another program" in err) == (2, True)


def test_a_front_says_which_networks_break_a_constraint(nas, place) -> None:
    with Store.open(f"sqlite:///{place}/nas.db") as store:
        made = study(store, "limited", constraints=["macs <= 1 K"])
        complete(store, made.id)
    code, out, _ = nas("pareto", "limited", "--all", cwd=place)
    assert (code, "x 1 of 1 break macs <= 1000.0; they are not on the front" in out) == (0, True)
    code, out, _ = nas("pareto", "limited", "--json", cwd=place)
    [point] = json.loads(out)["points"]
    assert (point["broken"], point["on_front"]) == (["macs <= 1000.0"], False)
    code, out, _ = nas("pareto", "limited", "--infeasible", cwd=place)
    assert (code, "break" in out, "* on the front" in out) == (0, False, True)


def test_an_early_stopped_trial_says_how_far_it_came(nas, place) -> None:
    with Store.open(f"sqlite:///{place}/nas.db") as store:
        made = study(store, "stopped")
        store.add_trials(made.id, [(TrialKind.SEARCH, {"target": 4.0})])
        store.start_trial(made.id, 0)
        store.end_trial(made.id, 0, TrialState.PRUNED, reason="stopped early at epoch 4", fidelity=Fidelity(4, 14))
    code, out, _ = nas("trial", "stopped", "0", cwd=place)
    assert (code, "stopped early at epoch 4" in out, "trained: 4 of 14 epochs" in out) == (0, True, True)
    code, out, _ = nas("trial", "stopped", "0", "--json", cwd=place)
    assert json.loads(out)["fidelity"] == {"epochs": 4, "budget": 14}


def test_an_export_wants_to_know_which(nas, place) -> None:
    code, _, err = nas("export", "supernet", "0", "--out", "out", cwd=place)
    assert (code, (place / "out").exists()) == (2, False)
    assert all(candidate.architecture.id[:12] in err for candidate in networks())
    code, _, err = nas("export", "supernet", "0", "--candidate", "5", "--out", "out", cwd=place)
    assert (code, "has no network '5'" in err) == (2, True)


def test_a_front_holds_networks_of_one_kind(nas, place) -> None:
    code, out, _ = nas("pareto", "supernet", cwd=place)
    assert code == 0
    assert "front of 3 scored networks, inherited weights" in out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("*  ")] == ["0.0", "0.1", "0.2"]
    code, out, _ = nas("pareto", "supernet", "--evaluation", "finetuned", cwd=place)
    assert "has no trial with top1 and macs (finetuned) yet" in out
    code, out, _ = nas("pareto", "supernet", "--json", cwd=place)
    points = json.loads(out)["points"]
    assert [(point["number"], point["position"], point["on_front"]) for point in points] == [
        (0, position, True) for position in range(3)
    ]
