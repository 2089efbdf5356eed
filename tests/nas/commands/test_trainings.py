"""``nas train --study`` and ``nas trainings``: a training of the database from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nas.candidate import Candidate
from nas.jobs import JobKind
from nas.store import Store
from nas.trainings import TrainingState
from nas.trial import TrialKind, TrialState
from partialnet.architecture import Architecture
from tests.commands import Said
from tests.nas.store.makers import candidate, study

Nas = Callable[..., Said]
TINY = ("--data", "digits", "--train-limit", "60", "--device", "cpu", "--set", "batch_size=30", "--epochs", "1")
OPTIONS = {"num_classes": 10, "in_chans": 1, "patch_size": 1, "depths": [1, 1, 1, 1], "embed_dim": 8}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """The database of the folder that the commands run in, with a study of one trial."""
    with Store.open(f"sqlite:///{tmp_path / 'nas.db'}") as opened:
        made = study(opened)
        opened.add_trials(made.id, [(TrialKind.SEARCH, {})])
        opened.start_trial(made.id, 0)
        architecture = Architecture("partialnet_micro", OPTIONS)
        network: Candidate = candidate(architecture=architecture, splits=(), weights=None, measurements=())
        opened.end_trial(made.id, 0, TrialState.COMPLETE, candidates=[network])
        yield opened


def test_a_trial_is_trained_here_and_its_network_written(nas: Nas, store: Store, tmp_path: Path) -> None:
    code, out, err = nas("train", "--study", "latest", "--trial", "0", *TINY, "--out", "trained")
    assert (code, "epoch 1/1" in out, "retrained, test data: top-1" in out) == (0, True, True), err
    assert (tmp_path / "trained" / "model.safetensors").is_file()
    [found] = store.trial(store.study("digits").id, 0).candidates
    [shown] = json.loads(nas("trainings", "list", "--json")[1])["trainings"]
    assert {entry.recipe for entry in found.trainings} == {shown["recipe"]}
    assert store.jobs()[0].state.value == "finished"
    assert f"training by recipe {shown['recipe']}, seed 0, test data" in nas("trial", "latest", "0")[1]
    listed = nas("trainings", "list")[1]
    assert "finished" in listed
    assert shown["id"][:8] in listed
    text = nas("trainings", "show", shown["id"][:8])[1]
    assert "1 of 1 epochs" in text
    assert "retrained, test data" in text
    assert nas("trainings", "package", shown["id"], "--out", "again")[0] == 0
    names = [{path.name for path in (tmp_path / place).iterdir()} for place in ("trained", "again")]
    assert names[0] == names[1]
    code, _, err = nas("trainings", "package", shown["id"], "--out", "last", "--last")
    assert (code, "its recipe averages no weights" in err) == (2, True)
    assert "its package is ready" in nas("trainings", "resume", shown["id"], "--here")[2]
    assert "--json does not work with --here" in nas("trainings", "resume", shown["id"], "--here", "--json")[2]
    assert nas("trainings", "delete", shown["id"])[0] == 0
    assert "there are no trainings yet" in nas("trainings", "list")[2]


def test_a_worker_gets_what_is_queued(nas: Nas, store: Store) -> None:
    code, out, err = nas("train", "--study", "digits", "--trial", "0", "--recipe", "finetune", "--queue")
    name = out.strip()
    assert (code, store.training(name).recipe) == (0, "finetune"), err
    assert f"nas trainings show {name[:8]}" in err
    job = store.lease_job("worker", kinds=[JobKind.TRAIN], seconds=60)
    assert job is not None
    assert "has not obeyed yet" in nas("trainings", "stop", name, "--wait", "0")[2]
    store.finish_job(job.id, job.epoch, type(job.state).CANCELLED)
    assert "there is nothing to stop" in nas("trainings", "stop", name)[2]
    assert "waits for a worker" in nas("trainings", "resume", name[:8])[2]
    assert store.training(name).state is TrainingState.QUEUED
    assert json.loads(nas("trainings", "stop", name, "--json")[1])["state"] == "stopped"


WRONG = {
    "a trial without its study": (("--trial", "0"), "--trial works only with --study"),
    "a queue without a study": (("--queue", "--architecture", "a.json"), "--queue works only with --study"),
    "two networks": (("--study", "digits", "--trial", "0", "--package", "p"), "--package does not work with --study"),
    "a study without a trial": (("--study", "digits"), "nas train: study needs trial"),
    "an unknown trial": (("--study", "digits", "--trial", "7"), "study digits has no trial 7"),
    "a limit without data": (("--study", "digits", "--trial", "0", "--train-limit", "9"), "need --data"),
    "a bad setting": (("--study", "digits", "--trial", "0", "--set", "mixup=-1"), "nas train: settings.mixup: must be"),
    "an unknown device": (("--study", "digits", "--trial", "0", "--device", "tpu"), "nas train: device: must be"),
    "a place for what runs elsewhere": (("--study", "digits", "--trial", "0", "--queue", "--out", "x"), "--out works"),
    "JSON of a training here": (("--study", "digits", "--trial", "0", "--json"), "--json works only with"),
}


@pytest.mark.usefixtures("store")
def test_what_does_not_go_together(nas: Nas) -> None:
    for name, (arguments, message) in WRONG.items():
        code, _, err = nas("train", *arguments)
        assert (code, message in err) == (2, True), (name, err)
    assert nas("trainings", "show", "abc")[0] == 2
    assert "there is no training" in nas("trainings", "show", "abcdef")[2]
