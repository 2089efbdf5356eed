"""What early stopping saves and costs: the epochs of a search against the hypervolume of its front.

A study of the digits is searched as a whole and with early stopping. The searcher draws at random, so both train the
same networks with the same seeds, and differ only in the trials that are stopped. The hypervolume is that of the search
trials alone: baselines would hide what is lost. The second table replays the recorded epochs in other orders of
arrival, since the first trials at a rung have few rivals.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from nas.definition.study import StudyDefinition, parse_study
from nas.findings.pareto import hypervolume, pareto_points
from nas.settings import Settings
from nas.store import Store
from nas.study import Study
from nas.sweep.early_stopping import early_stopper
from nas.sweep.search import run_search
from nas.training.data import inspect_data
from nas.training.feasibility import reference_point
from nas.trial import Trial, TrialKind
from tests.benchmarks.timing import machine

TRIALS = 28
ORDERS = 30
STOPPINGS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "mo_asha 1/2": {"method": "mo_asha", "reduction_factor": 2},
    "mo_asha 1/3": {"method": "mo_asha", "reduction_factor": 3},
    "asha top1 1/2": {"method": "asha", "metric": "top1", "reduction_factor": 2},
}
SEARCHED = ("none", "mo_asha 1/2")
"""Rows of the table that are searched; the others only replay."""


def definition(early_stopping: dict[str, Any] | None) -> StudyDefinition:
    """Return the study: that of the quickstart with a learning rate that is swept as well."""
    return parse_study(
        {
            "name": "early-stopping",
            "data": {"name": "digits", "augment": "none"},
            "model": {"name": "micro", "patch_size": 1, "merge_strides": [2, 1, 1]},
            "space": {
                "target": {"log_uniform": [1.6, 8]},
                "complexity_exponent": {"log_uniform": [0.01, 2]},
                "penalty": {"log_uniform": [0.1, 2]},
                "learning_rate": {"log_uniform": [0.0005, 0.02]},
            },
            "training": {"epochs": 8, "finetune_epochs": 6, "batch_size": 64},
            "sweep": {"trials": TRIALS, "searcher": "random", "early_stopping": early_stopping},
            "baselines": [],
            "final": {"candidates": 0},
            "latency": None,
        }
    )


def volume(study: Study, trials: Sequence[Trial]) -> float:
    """Return the hypervolume of search trials."""
    objectives = study.definition.objectives
    searched = [trial for trial in trials if trial.kind is TrialKind.SEARCH]
    return hypervolume(pareto_points(searched, objectives), objectives, study.reference_point)


def epochs_of(trials: Sequence[Trial]) -> int:
    """Return the number of epochs that search trials trained."""
    return sum(len(trial.history) for trial in trials if trial.kind is TrialKind.SEARCH)


def searched(store: Store, folder: Path, early_stopping: dict[str, Any] | None) -> Study:
    """Search the study to its end."""
    found = definition(early_stopping)
    study = store.create_study(found, reference_point=reference_point(found))
    store.record_data(study.id, inspect_data(found, ())[1])
    return run_search(store, study.id, Settings(storage=str(folder)))


def replay(
    store: Store, study: Study, trials: Sequence[Trial], early_stopping: dict[str, Any] | None
) -> tuple[float, int]:
    """Return hypervolume and epochs if whole trials had arrived in this order, one after another."""
    changed = parse_study({**study.definition.to_dict(), "sweep": {"trials": TRIALS, "early_stopping": early_stopping}})
    stopper = early_stopper(store, Study(**{**vars(study), "definition": changed, "id": "replay"}))
    kept, epochs = [], 0
    for trial in trials:
        stopped = None
        for record in trial.history:
            epochs += 1
            rung = None if stopper is None else stopper.decide(trial.spec, record)
            if rung is not None and not rung.kept:
                stopped = rung
                break
        if stopped is None:
            kept.append(trial)
    return volume(study, kept), epochs


def print_replays(store: Store, study: Study) -> None:
    """Print the second table, from the recorded epochs of a study without early stopping."""
    whole = [t for t in store.trials(study.id, history=True) if t.kind is TrialKind.SEARCH and t.candidates]
    most, all_epochs = volume(study, whole), epochs_of(whole)
    print(f"\n{len(whole)} trials in {ORDERS} random orders of arrival, replayed")
    print(f"{'':16} {'epochs':>8} {'hypervolume':>12} {'worst':>8}")
    for name, early_stopping in STOPPINGS.items():
        orders = [random.Random(seed).sample(whole, len(whole)) for seed in range(ORDERS)]
        found = [replay(store, study, order, early_stopping) for order in orders]
        volumes = [found_volume / most for found_volume, _ in found]
        share = fmean(epochs / all_epochs for _, epochs in found)
        print(f"{name:16} {share:8.1%} {fmean(volumes):12.2%} {min(volumes):8.2%}", flush=True)


def main() -> None:
    """Print both tables."""
    print(machine())
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with Store.open(f"sqlite:///{folder}/nas.db") as store:
            print(f"{TRIALS} search trials of 14 epochs on the digits, searched")
            print(f"{'':16} {'epochs':>8} {'share':>8} {'hypervolume':>12} {'share':>8}")
            first: tuple[Study, float, int] | None = None
            for name in SEARCHED:
                study = searched(store, folder, STOPPINGS[name])
                trials = store.trials(study.id, history=True)
                found, epochs = volume(study, trials), epochs_of(trials)
                first = first or (study, found, epochs)
                print(
                    f"{name:16} {epochs:8} {epochs / first[2]:8.1%} {found:12,.0f} {found / first[1]:8.2%}", flush=True
                )
            assert first is not None
            print_replays(store, first[0])
