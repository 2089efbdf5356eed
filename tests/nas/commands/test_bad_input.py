"""Bad input: exit code 2, one line that names the value, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nas.cli import _explain
from nas.errors import DefinitionError, JobError, StoreError
from partialnet.architecture import Architecture
from partialnet.errors import ArchitectureError, BudgetError, DataError, PackageError, TrainingDiverged
from tests.nas.commands.conftest import TINY


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def changed(**changes) -> str:
    return yaml.safe_dump({**yaml.safe_load(TINY), **changes})


DEFINITIONS = {
    "no mapping": ("- 1", "list"),
    "no YAML": ("a: [", "not valid YAML: line 1, column 5: expected"),
    "nothing": ("", "but got nothing"),
    "a date that is none": ("name: 2026-13-01", "not valid YAML"),
    "a name that is none": (changed(name="a b"), "at most 64 letters, digits, '-' and '_'"),
    "an unknown key": (changed(epochs=3), "epochs: unknown key"),
    "an unknown key below": (changed(training={"epoch": 3}), "training.epoch: unknown key"),
    "a wrong type": (changed(sweep={"trials": "many"}), "'many'"),
    "an impossible range": (changed(space={"target": {"uniform": [8, 2]}}), "low=8.0, high=2.0"),
    "an unknown data set": (changed(data={"name": "mnist"}), "'mnist'"),
    "an unknown variant": (changed(model={"name": "t9"}), "'t9'"),
    "an unknown objective": (changed(objectives=["top1", "flops"]), "'flops'"),
    "a width that cannot be split": (changed(baselines=["1/3"]), "1/3"),
    "images too small": (changed(model={"name": "micro", "patch_size": 16}), "patch_size=16"),
    "an unreachable target": (changed(space={"target": {"uniform": [900, 1000]}}), "900"),
    "a missing data set": (changed(data={"name": "cifar10"}, baselines=["1/2"]), "cifar10 was not found"),
}


@pytest.mark.parametrize("fault", DEFINITIONS)
def test_bad_definitions(nas, tmp_path, fault):
    text, expected = DEFINITIONS[fault]
    (tmp_path / "bad.yaml").write_text(text)
    code, out, err = nas("run", "bad.yaml")
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("nas: ")
    assert expected in err
    assert listing(tmp_path) == ["bad.yaml"]


def test_every_fault_of_a_definition_has_its_line(nas, tmp_path):
    (tmp_path / "bad.yaml").write_text(changed(epochs=3, sweep={"trials": -1}))
    code, _, err = nas("run", "bad.yaml")
    assert code == 2
    assert [line.split(": ")[2] for line in err.splitlines()] == ["sweep.trials", "epochs"]


COMMANDS = {
    "no command": ("bogus", "'bogus'"),
    "an unknown flag": ("studies --bogus", "--bogus"),
    "no definition": ("run", "give a definition"),
    "a definition that is not there": ("run none.yaml", "none.yaml"),
    "a number of trials below 0": ("run tiny.yaml --trials -1", "-1"),
    "a number of trials that is none": ("run tiny.yaml --trials few", "'few'"),
    "a budget of no seconds": ("run tiny.yaml --seconds 0", "sweep.seconds"),
    "fewer than no finalists": ("run tiny.yaml --finalists -1", "final.candidates"),
    "a resumption with finalists": ("run --resume latest --finalists 1", "leave out --finalists"),
    "a resumption with an earlier study": ("run --resume latest --from tiny", "leave out --from"),
    "an early stopping that is none": ("run tiny.yaml --early-stopping median", "'median'"),
    "a mirror without a place": ("optuna-mirror tiny", "--storage"),
    "a mirror of a metric that is none": ("optuna-mirror tiny --storage a.log --objective speed", "'speed'"),
    "a name that is none": ("run tiny.yaml --name a/b", "'a/b'"),
    "a definition and a resumption": ("run tiny.yaml --resume tiny", "DEFINITION"),
    "a resumption without a database": ("run --resume tiny", "nas.db"),
    "a data root that is not there": ("run tiny.yaml --data-root nowhere", "nowhere"),
    "a database in no folder": ("run tiny.yaml --database sqlite:///nowhere/nas.db", "nowhere"),
    "a database that is none": ("run tiny.yaml --database sqlite:///tiny.yaml", "tiny.yaml"),
    "a database of another kind": ("studies --database mysql://host/db", "mysql"),
    "a database that is no URL": ("studies --database nas.db", "nas.db"),
    "a Ray cluster that is no address": ("run tiny.yaml --ray-address cluster", "HOST:PORT"),
    "a Ray cluster that does not answer": ("run tiny.yaml --ray-address 127.0.0.1:1", "127.0.0.1:1"),
    "no database": ("studies", "nas.db"),
    "no database to look at": ("db status", "nas.db"),
    "no study": ("pareto", "STUDY"),
    "a trial that is no number": ("trial tiny one", "'one'"),
    "a trial below 0": ("trial tiny -1", "-1"),
    "a figure of no kind": ("pareto tiny --plot front.jpg", ".jpg"),
    "a figure in no folder": ("pareto tiny --plot nowhere/front.html", "nowhere"),
    "two forms at once": ("pareto tiny --csv --json", "--csv"),
    "a kind of evaluation that is none": ("pareto tiny --evaluation best", "'best'"),
    "an export without a place": ("export tiny 1", "--out"),
    "an export of nothing": ("export --out new", "--package"),
    "an export of two things": ("export tiny 1 --package . --out new", "--package"),
    "an export of no package": ("export --package nowhere --out new", "nowhere"),
    "a bound without an 8-bit form": ("export tiny 1 --out new --int8-max-drop 1", "--int8-max-drop"),
    "a bound beyond all": ("export tiny 1 --out new --int8 --int8-max-drop 101", "101"),
    "data of a study's export": ("export tiny 1 --out new --int8 --data digits", "--data"),
    "broken images in no files": ("train --architecture a.json --data digits --skip-broken --out new", "skip_broken"),
    "no decoding threads": ("train --architecture a.json --data digits --workers 0 --out new", "0"),
    "a package that is not there": ("predict nowhere a.png", "nowhere"),
    "a package that is none": ("predict . a.png", "architecture.json"),
    "no image": ("predict .", "IMAGE"),
    "a cluster for a worker's training": (
        "train --study tiny --trial 1 --queue --ray-address auto", "the worker's own --ray-address decides"
    ),
    "nothing to train": ("train --data digits --out new", "--architecture"),
    "two things to train": ("train --architecture a.json --package . --data digits --out new", "--architecture"),
    "no data": ("train --architecture a.json --out new", "--data"),
    "data that are none": ("train --architecture a.json --data mnist --out new", "mnist"),
    "data without their folder": ("train --architecture a.json --data image_folder --out new", "folder"),
    "data that are not there": ("train --architecture a.json --data cifar10 --out new", "cifar10"),
    "images that are too small": ("train --architecture a.json --data digits --image-size 4 --out new", "4x4"),
    "an architecture that is not there": ("train --architecture b.json --data digits --out new", "b.json"),
    "an architecture that is none": ("train --architecture tiny.yaml --data digits --out new", "tiny.yaml"),
    "weights that are not there": ("train --architecture a.json --weights w --data digits --out new", "w"),
    "weights that are none": ("train --architecture a.json --weights tiny.yaml --data digits --out new", "tiny.yaml"),
    "no place": ("train --architecture a.json --data digits", "--out"),
    "a place that is taken": ("train --architecture a.json --data digits --out .", "not empty"),
    "no epochs": ("train --architecture a.json --data digits --out new --epochs 0", "0"),
    "a device that is none": ("train --architecture a.json --data digits --out new --device tpu", "'tpu'"),
    "no training to go on with": ("train --resume .", "training.json"),
    "a resumption with more": ("train --resume . --data digits", "--resume"),
    "a port that is none": ("serve --port 99999", "99999"),
    "an address of another machine": ("serve --host 192.0.2.1", "192.0.2.1"),
    "a token that is too short": ("serve --token secret", "16"),
}


@pytest.mark.parametrize("fault", COMMANDS)
def test_bad_commands(nas, tmp_path, fault):
    line, expected = COMMANDS[fault]
    (tmp_path / "tiny.yaml").write_text(TINY)
    Architecture("partialnet_micro", {"patch_size": 2, "num_classes": 10, "in_chans": 1}).save(tmp_path / "a.json")
    before = listing(tmp_path)
    code, out, err = nas(*line.split())
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.startswith("nas: ")
    assert expected in err
    # `serve` opens its database, and so makes it, before it listens
    left = [name for name in listing(tmp_path) if not (line.startswith("serve") and name.startswith("nas.db"))]
    assert left == before


def test_unknown_studies_and_trials(nas, tmp_path):
    from nas.definition.study import parse_study
    from nas.store import Store

    with Store.open(f"sqlite:///{tmp_path / 'nas.db'}") as store:
        store.create_study(parse_study(yaml.safe_load(TINY)), reference_point={"top1": 0.0})
    for line, expected in {
        "pareto tinny": "tiny",
        "trial tiny 7": "no trial 7",
        "export tiny 7 --out new": "no trial 7",
        "run --resume tinny": "tiny",
        "pareto tiny --x flops": "'flops'",
        "pareto tiny --x top1 --y top1": "top1",
    }.items():
        code, _, err = nas(*line.split())
        assert code == 2
        assert len(err.splitlines()) == 1
        assert expected in err
    assert not (tmp_path / "new").exists()


def test_a_resumption_without_the_images_spends_no_trial(nas, tmp_path):
    from nas.definition.study import parse_study
    from nas.store import Store
    from nas.study import StudyState
    from nas.trial import TrialKind, TrialState

    with Store.open(f"sqlite:///{tmp_path / 'nas.db'}") as store:
        definition = parse_study({**yaml.safe_load(TINY), "data": {"name": "cifar10"}})
        study = store.create_study(definition, reference_point={"top1": 0.0})
        store.add_trials(study.id, [(TrialKind.BASELINE, {"ratio": 0.25})])
        store.set_study_state(study.id, StudyState.PAUSED)
        code, _, err = nas("run", "--resume", "tiny")
        assert code == 2
        assert "cifar10 was not found" in err
        assert store.study(study.id).state is StudyState.PAUSED
        assert store.trial(study.id, 0).state is TrialState.QUEUED


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DefinitionError("x"), 2),
        (ArchitectureError("x"), 2),
        (BudgetError("x"), 2),
        (DataError("x"), 2),
        (PackageError("x"), 2),
        (StoreError("x"), 1),
        (JobError("x"), 1),
        (TrainingDiverged(3, float("nan")), 1),
        (RuntimeError("x\ny"), 1),
    ],
)
def test_exit_codes(error, code):
    message, found = _explain(error)
    assert found == code
    assert len(message.splitlines()) == 1


def test_tracebacks_only_on_request(nas, monkeypatch):
    code, _, err = nas("predict", "nowhere", "a.png")
    assert code == 2
    assert err == "nas: nowhere: there is no such folder; an exported one holds architecture.json, " + (
        "model.safetensors, preprocessing.json\n"
    )
    monkeypatch.setenv("NAS_DEBUG", "1")
    with pytest.raises(PackageError, match="there is no such folder"):
        nas("predict", "nowhere", "a.png")
