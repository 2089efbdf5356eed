"""Searches on a real Ray with real trainings: digits, the micro network, as few steps as possible."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from nas.artifacts import Artifacts
from nas.definition.study import StudyDefinition, parse_study
from nas.errors import ConflictError
from nas.probes.device import device_name
from nas.settings import Settings
from nas.store import Store
from nas.study import Study, StudyState
from nas.sweep.only_search import only_search
from nas.sweep.progress import Probing, SearchStarted, SweepEvent, TrialEnded, TrialPlaced, TrialStarted
from nas.sweep.search import run_search
from nas.training.feasibility import reference_point
from nas.training.run_trial import run_trial
from nas.trial import EpochRecord, Trial, TrialKind, TrialSpec, TrialState
from tests.nas.strategies import make_candidate
from tests.processes import session_members
from tests.waiting import wait_for

E = TypeVar("E", bound=SweepEvent)
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

MODEL = {"name": "micro", "patch_size": 2, "merge_strides": [2, 1, 1], "depths": [1, 1, 1, 1]}


def tiny(**changes) -> StudyDefinition:
    """Return a study of one epoch of search and one of fine-tuning on 200 images."""
    base = {
        "name": "tiny",
        "data": {"name": "digits", "train_limit": 200, "augment": "none"},
        "model": MODEL,
        "training": {"epochs": 1, "finetune_epochs": 1, "batch_size": 64},
        "sweep": {"trials": 3},
        "baselines": ["1/4"],
        "latency": {"n": 10, "warmup": 1, "interval": 1.0},
        "final": {"candidates": 0},
    }
    return parse_study({**base, **changes})


@dataclass
class Bench:
    """A store, a storage, and what a search told."""

    folder: Path
    store: Store
    events: list[SweepEvent] = field(default_factory=list)

    @property
    def store_url(self) -> str:
        return f"sqlite:///{self.folder}/nas.db"

    @property
    def settings(self) -> Settings:
        return Settings(storage=str(self.folder / "storage"))

    def create(self, definition: StudyDefinition) -> Study:
        return self.store.create_study(definition, reference_point=reference_point(definition))

    def search(self, study: Study, **kwargs) -> Study:
        return run_search(self.store, study.id, self.settings, progress=self.events.append, **kwargs)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def bench(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        yield Bench(tmp_path, store)


def most_at_once(events: list[SweepEvent]) -> int:
    running, most = 0, 0
    for event in events:
        running += (isinstance(event, TrialStarted)) - (isinstance(event, TrialEnded))
        most = max(most, running)
    return most


def test_a_search_from_end_to_end_on_shares_of_gpus(bench, ray_here) -> None:
    definition = tiny(sweep={"trials": 3, "cpus_per_trial": 1, "gpus_per_trial": 0.5, "concurrent": 3})
    study = bench.search(bench.create(definition))
    trials = bench.store.trials(study.id, history=True)

    assert (study.state, study.reason) == (StudyState.FINISHED, None)
    assert Counter(trial.kind for trial in trials) == {TrialKind.BASELINE: 1, TrialKind.SEARCH: 3}
    assert trials[0].kind is TrialKind.BASELINE
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert [[record.epoch for record in trial.history] for trial in trials] == [[1, 2]] * 4
    assert [trial.history[-1].phase for trial in trials] == ["train", "finetune", "finetune", "finetune"]
    for trial in trials:
        [candidate] = trial.candidates
        assert {"macs", "params", "params_inference", "activations"} <= {m.metric for m in candidate.measurements}
        assert candidate.score("top1") is not None
        check_weights(bench, study, trial.number, candidate)
    check_report(study, trials)
    check_placement(bench)
    told = {event.number: event.placement for event in bench.of(TrialPlaced)}
    assert {trial.number: trial.placement for trial in trials} == told
    # The GPUs are declared here, not there: what computed is told as it is.
    assert {(found.compute.device, found.compute.precision) for found in told.values()} == {
        (device_name("cpu"), "float32")
    }  # fmt: skip


def check_weights(bench: Bench, study: Study, number: int, candidate) -> None:
    """The weights are where they belong, whole, and fit the architecture."""
    from partialnet.models.partialnet import create

    folder = f"studies/{study.id}/trials/{number}"
    assert candidate.weights.uri == f"{folder}/weights-{candidate.weights.sha256[:16]}.safetensors"
    path = Artifacts(bench.settings.storage).fetch(candidate.weights, bench.folder / f"{number}.safetensors")
    with safe_open(path, "pt") as file:
        assert file.metadata()["class_names"] == str([str(digit) for digit in range(10)]).replace("'", '"')
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    expected = create(candidate.architecture).state_dict()
    assert shapes == {name: tuple(tensor.shape) for name, tensor in expected.items()}


def check_report(study: Study, trials) -> None:
    probed = {trial.number for trial in trials if trial.candidates[0].score("latency_ms") is not None}
    assert 0 in probed
    assert "uniform ratios at equal cost" in study.report[0]
    assert "4 trials (3 searches, 1 baseline): 4 complete." in study.report


def check_placement(bench: Bench) -> None:
    """No GPU holds more than two halves, and trials see the GPU that they were given."""
    placed = bench.of(TrialPlaced)
    assert len(placed) == 4
    assert 2 <= most_at_once(bench.events) <= 3
    holds: dict[int, str] = {}
    for event in bench.events:
        if isinstance(event, TrialPlaced):
            [gpu] = event.placement.gpu_ids
            holds[event.number] = gpu
            assert event.placement.cuda_visible_devices == gpu
            assert event.placement.gpus == 0.5
        elif isinstance(event, TrialEnded):
            holds.pop(event.number)
        assert all(count <= 2 for count in Counter(holds.values()).values())
    assert {event.placement.gpu_ids[0] for event in placed} <= {"0", "1"}
    pids = {event.placement.pid for event in placed}
    assert os.getpid() not in pids
    assert len(pids) <= 3  # processes are used again


def diverging(baselines: list[str]) -> StudyDefinition:
    """Return a study whose two search trials diverge."""
    # Above its target a network's loss is multiplied beyond all numbers; b = 4.5 lies between uniform 1/4 and 1/8.
    space = {"target": 4.5, "penalty": {"choice": [0.5, 0.9]}, "complexity_exponent": 1e6}
    training = {"epochs": 3, "finetune_epochs": 1, "batch_size": 20}
    sweep = {"trials": 2, "concurrent": 1}
    return tiny(space=space, training=training, sweep=sweep, baselines=baselines, latency=None)


def test_failed_trials_say_why_and_the_others_go_on(bench, ray_here) -> None:
    study = bench.create(diverging(["1/4", "1/2"]))

    study = bench.search(study)
    good, middle, *diverged = bench.store.trials(study.id)
    assert study.state is StudyState.FINISHED
    assert (good.state, middle.state) == (TrialState.COMPLETE, TrialState.COMPLETE)
    assert [trial.state for trial in diverged] == [TrialState.FAILED] * 2
    assert all("the training diverged: loss is" in trial.reason for trial in diverged)
    assert all(trial.candidates == () for trial in diverged)
    assert any("2 complete, 2 failed" in sentence for sentence in study.report)
    with pytest.raises(ConflictError, match="all its 4 trials have ended"):
        bench.search(study)


def test_a_study_fails_if_all_its_trials_do(bench, ray_here) -> None:
    study = bench.search(bench.create(diverging([])))
    assert study.state is StudyState.FAILED
    assert study.reason.startswith("every trial that was run failed (2): ")
    assert "the training diverged" in study.reason
    assert {trial.state for trial in bench.store.trials(study.id)} == {TrialState.FAILED}


def test_no_trial_starts_after_the_time_budget(bench, ray_here) -> None:
    sweep = {"trials": 50, "seconds": 0.5, "concurrent": 1}
    study = bench.search(bench.create(tiny(sweep=sweep, baselines=["1/4", "1/2"], latency=None)))
    states = Counter(trial.state for trial in bench.store.trials(study.id))
    assert study.state is StudyState.FINISHED
    assert states == {TrialState.COMPLETE: 1, TrialState.CANCELLED: 1}
    assert "time budget of 0.5 s" in bench.store.trial(study.id, 1).reason
    assert study.report[-1] == "The time budget of 0.5 s ended the search after 0 of 50 search trials."


def test_a_trial_that_cannot_fit_is_an_error_of_the_study(bench, ray_here) -> None:
    study = bench.create(tiny(sweep={"trials": 1, "cpus_per_trial": 64}))
    with pytest.raises(ValueError, match="asks for 64 CPUs"):
        bench.search(study)
    study = bench.store.study(study.id)
    assert (study.state, "asks for 64 CPUs" in study.reason) == (StudyState.FAILED, True)


def already_searched(bench: Bench) -> Study:
    """Return a study all of whose trials have ended, but that has not: as if it had been stopped right after them."""
    from nas.training.build import build_network

    study = bench.create(tiny(sweep={"trials": 1}, baselines=[]))
    candidate = make_candidate(0.9, 100.0, architecture=build_network(study.definition, 10).architecture())
    bench.store.add_trials(study.id, [(TrialKind.SEARCH, {"target": 4.0, "complexity_exponent": 1.0, "penalty": 1.0})])
    bench.store.start_trial(study.id, 0)
    bench.store.end_trial(study.id, 0, TrialState.COMPLETE, candidates=[candidate])
    return study


def test_a_stop_between_probes_is_heard_and_the_rest_is_done_later(bench) -> None:
    study = already_searched(bench)

    def stop_at_the_probe(event: SweepEvent) -> None:
        if isinstance(event, Probing):
            signal.raise_signal(signal.SIGTERM)

    stopped = run_search(bench.store, study.id, bench.settings, progress=stop_at_the_probe)
    assert (stopped.state, stopped.reason) == (StudyState.PAUSED, "paused on request")
    assert stopped.report == ()
    finished = bench.search(study)
    assert finished.state is StudyState.FINISHED
    assert finished.report
    assert bench.store.trial(study.id, 0).candidates[0].score("latency_ms") > 0
    with pytest.raises(ConflictError, match="all its 1 trials have ended"):
        bench.search(study)


def test_a_study_is_run_once_at_a_time(bench) -> None:
    study = already_searched(bench)

    def run_it_again(event: SweepEvent) -> None:
        if isinstance(event, SearchStarted):
            with pytest.raises(ConflictError, match="is being run by another process"):
                bench.search(study)
            bench.events.append(event)

    run_search(bench.store, study.id, bench.settings, progress=run_it_again)
    assert bench.events  # the refusal was seen: a failing display would have been turned off


def test_who_holds_the_lease_does_not_wait_for_the_lock_of_an_earlier_holder(bench) -> None:
    study = already_searched(bench)
    with only_search(study):  # as of a process that sleeps
        job = bench.store.hold_search(study.id, "the next one", seconds=60)
        ended = run_search(bench.store.fenced(job.id, job.epoch), study.id, bench.settings)
    assert ended.state is StudyState.FINISHED


@pytest.mark.parametrize(("token", "enters"), [(None, True), ("0" * 64, False)])
def test_ray_refuses_clients_without_its_token(ray_here, token, enters) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    impatient = {"RAY_NUM_REDIS_GET_RETRIES": "1", "RAY_py_gcs_connect_timeout_s": "1"}
    environment = {**os.environ, **impatient, **({"RAY_AUTH_TOKEN": token} if token else {})}
    code = f"import ray; ray.init(address={address!r}, log_to_driver=False); print('entered')"
    client = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert ("entered" in client.stdout) is enters
    assert ("InvalidAuthToken" in client.stderr) is not enters


SCRIPT = """
import sys
from pathlib import Path
from nas.settings import Settings
from nas.store import Store
from nas.sweep.search import run_search

url, study_id, storage = sys.argv[1:]
with Store.open(url) as store:
    print(run_search(store, study_id, Settings(storage=storage), cpus=2).state.value)
"""


def test_a_killed_search_goes_on_in_the_middle_of_a_trial(bench, ray_here) -> None:
    training = {"epochs": 6, "finetune_epochs": 2, "batch_size": 64}
    killed = bench.create(tiny(training=training, sweep={"trials": 1}, baselines=[], latency=None))
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), bench.store_url, killed.id, bench.settings.storage]
    child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: child.poll() is not None or len(reported(bench, killed)) >= 2)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    wait_for(lambda: not session_members(child.pid))
    before = reported(bench, killed)
    assert 2 <= len(before) < 8
    checkpoint = bench.folder / "storage" / "studies" / killed.id / "checkpoints" / "0.tar"
    assert checkpoint.exists()

    assert bench.search(killed).state is StudyState.FINISHED
    assert not checkpoint.exists()
    after = reported(bench, killed)
    assert after[: len(before)] == before  # to the images per second: these epochs were not run again
    [trial] = bench.store.trials(killed.id, history=True)
    check_undisturbed(killed.definition, trial, bench.folder / "storage")


def check_undisturbed(definition: StudyDefinition, trial: Trial, storage: Path) -> None:
    """A trial has the epochs, scores and weights that it has in one piece, here in this process."""
    spec = TrialSpec(trial.number, trial.kind, trial.parameters, trial.seed)
    torch.set_num_threads(1)
    whole = run_trial(definition, spec, (), report=lambda _record: None, device="cpu")
    assert [timeless(record) for record in trial.history] == [timeless(record) for record in whole.history]
    [mine], [wanted] = trial.candidates, whole.networks
    assert replace(mine, weights=None) == wanted.candidate
    weights = load_file(storage / mine.weights.uri)
    assert weights.keys() == wanted.state_dict.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in wanted.state_dict.items())


def reported(bench: Bench, study: Study) -> tuple[EpochRecord, ...]:
    trials = bench.store.trials(study.id, history=True)
    return trials[0].history if trials else ()


def timeless(record: EpochRecord) -> EpochRecord:
    """Leave out what the clock says."""
    return replace(record, metrics={key: value for key, value in record.metrics.items() if key != "images_per_second"})
