"""A study on a GPU, for machines that have one: shares, memory, latency, going on, the final comparison."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

from nas.store import Store
from nas.study import StudyState
from nas.sweep.cluster import quiet_ray, ray_session
from nas.sweep.progress import TrialPlaced
from nas.trial import TrialKind, TrialState
from tests.nas.sweep.test_search import SCRIPT, Bench, most_at_once, tiny, wait_for

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"),
]


@pytest.fixture(scope="module")
def ray_with_gpus():
    """One Ray for this module, with the GPUs that the machine has."""
    with quiet_ray(), ray_session():
        yield


@pytest.fixture
def bench(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        yield Bench(tmp_path, store)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_trials_share_a_gpu_to_the_end(bench, ray_with_gpus, share: float) -> None:
    definition = tiny(
        sweep={"trials": 3, "gpus_per_trial": share, "concurrent": int(1 / share)},
        latency={"device": "cuda", "n": 10, "warmup": 2},
        final={"candidates": 1, "seeds": 1, "random": 0},
    )
    study = bench.search(bench.create(definition))
    trials = bench.store.trials(study.id)
    assert study.state is StudyState.FINISHED
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert {trial.kind for trial in trials} == {TrialKind.BASELINE, TrialKind.SEARCH, TrialKind.RETRAIN}
    assert most_at_once(bench.events) > 1
    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    for trial in trials:
        compute = trial.placement.compute
        assert compute.device == torch.cuda.get_device_name()
        assert compute.memory_gib == pytest.approx(share * total, abs=0.1)
        assert {"torch", "cuda", "cudnn"} <= set(compute.versions)
    probed = [trial for trial in trials if trial.candidates[0].score("latency_ms") is not None]
    assert probed
    [measured] = [m for m in probed[0].candidates[0].measurements if m.metric == "latency_ms"]
    assert measured.figures["device_name"] == torch.cuda.get_device_name()


def test_out_of_memory_costs_one_trial(bench, ray_with_gpus) -> None:
    definition = tiny(
        data={"name": "digits", "image_size": 512},
        sweep={"trials": 2, "gpus_per_trial": 0.25},
        training={"epochs": 1, "finetune_epochs": 1},
        space={"target": 4.0, "penalty": 0.9, "batch_size": {"choice": [16, 1500]}},
        baselines=[],
        latency=None,
    )
    study = bench.search(bench.create(definition))
    trials = bench.store.trials(study.id)
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    for trial in failed:
        assert trial.parameters["batch_size"] == 1500
        assert trial.reason.startswith("out of memory: ")
        assert "raise sweep.gpus_per_trial (now 0.25)" in trial.reason
    assert {trial.state for trial in trials if trial.parameters["batch_size"] == 16} <= {TrialState.COMPLETE}


def test_a_stopped_search_goes_on(bench, ray_with_gpus) -> None:
    training = {"epochs": 8, "finetune_epochs": 1, "batch_size": 64}
    study = bench.create(tiny(training=training, sweep={"trials": 2, "gpus_per_trial": 0.5}, latency=None))
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), bench.store_url, study.id, bench.settings.storage]
    child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True)
    assert wait_for(lambda: any(trial.history for trial in bench.store.trials(study.id, history=True)), 300)
    os.killpg(child.pid, signal.SIGINT)
    child.communicate(timeout=120)
    assert bench.search(study).state is StudyState.FINISHED
    assert {trial.state for trial in bench.store.trials(study.id)} == {TrialState.COMPLETE}
    assert len(bench.of(TrialPlaced)) >= 1
