"""``nas train``: recipes, settings, a dry run, signals and several processes."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
import typer
from PIL import Image

from nas.commands.train_run import saved_request
from nas.commands.train_settings import settings_of
from nas.definition.sections import DataSpec
from nas.definition.training import TrainRequest
from nas.errors import InputError, NasError
from nas.host.interrupts import INTERRUPTED
from partialnet.architecture import Architecture
from partialnet.package import read_tensors
from partialnet.train import Recipe
from partialnet.train.named_recipes import recipe_names

from .conftest import run, start

PLAIN = ("--data", "digits", "--train-limit", "100", "--batch-size", "20", "--device", "cpu")


@pytest.fixture(scope="module")
def architecture(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("architecture") / "a.json"
    options = {"num_classes": 10, "in_chans": 1, "patch_size": 1, "depths": [1, 1, 1, 1]}
    path.write_text(json.dumps(Architecture("partialnet_micro", options).to_dict()))
    return str(path)


def test_every_recipe_can_be_used() -> None:
    assert {"small_images", "finetune", *(f"{who}_{size}" for who in ("paper", "authors") for size in ("t0", "l"))} <= {
        *recipe_names()
    }
    for name in recipe_names():
        found = settings_of(name, {"batch_size": 512}, (), from_weights=False)
        assert found.recipe().weight_decay == found.weight_decay > 0


def test_a_recipe_is_changed_by_flags_and_settings() -> None:
    flags, changes = {"batch_size": 1024, "epochs": 5}, ("mixup=0", "sizes=[128, 160]")
    found = settings_of("paper_t2", flags, changes, from_weights=False)
    assert (found.epochs, found.batch_size, found.mixup, found.sizes) == (5, 1024, 0, (128, 160))
    assert found.learning_rate == pytest.approx(0.001)  # 0.004 for batches of 4096
    assert settings_of("paper_t2", {"learning_rate": 0.5}, (), from_weights=False).learning_rate == 0.5
    assert [settings_of(None, {}, (), from_weights=old).learning_rate for old in (False, True)] == [2e-3, 5e-4]


WRONG = {
    "a recipe of nobody": (("resnet",), (), r"--recipe: unknown recipe 'resnet'; known: authors_l, .*small_images"),
    "an unknown key": ((None,), ("mixupp=1",), "--set mixupp: unknown key; known: optimizer"),
    "no value": ((None,), ("mixup",), "--set mixup: must be key=value"),
    "a value out of range": ((None,), ("erasing=2",), "--set erasing=2: must be less than or equal to 1"),
    "words for a number": ((None,), ("mixup=much",), "--set mixup=much: must be a number"),
    "a key given twice": ((None,), ("epochs=3",), "--set epochs: given twice"),
    "a key without effect": ((None,), ("temperature=2",), "temperature has no effect unless teacher is given"),
    "words of no augmentation": ((None,), ("rand_augment=strong",), "must be in timm's words"),
    "batches for other sizes": ((None,), ("sizes=[8, 16]", "size_batches=[4]"), "size_batches has 1 numbers"),
}


@pytest.mark.parametrize(("name", "changes", "words"), WRONG.values(), ids=WRONG)
def test_wrong_settings_are_named(name, changes, words) -> None:
    with pytest.raises(InputError, match=words):
        settings_of(*name, {"epochs": 2}, changes, from_weights=False)


BAD_FLAGS = {
    "a crop of images in memory": (("--set", "test_crop=0.9"), "--set test_crop: has no effect unless the data are"),
    "json without a dry run": (("--json",), "--json works only with --dry-run"),
    "fewer processes without a cluster": (("--least-processes", "1"), "--least-processes works only with"),
    "fewer processes that are more": (
        ("--ray-address", "local", "--least-processes", "2"), "must be at most --processes 1"
    ),
    "no cluster": (("--ray-address", "localhost:1"), "no Ray cluster answers at localhost:1"),
    "a client's address": (("--ray-address", "ray://here:10001"), "--ray-address 'ray://here:10001' is one of Ray's"),
    "an unknown logger": (("--logger", "comet"), "--logger comet: unknown; known: mlflow, wandb"),
    "uneven shares": (("--processes", "3"), "batch_size is 20, but must be divisible by the 3 processes"),
}


@pytest.mark.parametrize(("flags", "words"), BAD_FLAGS.values(), ids=BAD_FLAGS)
def test_wrong_flags_are_named(nas, architecture, tmp_path, flags, words) -> None:
    code, _, err = nas("train", "--architecture", architecture, *PLAIN, "--out", tmp_path / "new", *flags)
    assert (code, words in err, (tmp_path / "new").exists()) == (2, True, False)


REQUEST = TrainRequest(Architecture("partialnet_micro"), DataSpec(name="digits"), Recipe(), 1, 20)


def _fail(out: Path, made: str, error: Exception) -> None:
    """Let processes fail that have read the request and made a folder."""
    with saved_request(REQUEST, out):
        assert TrainRequest.load(out) == REQUEST
        (out / made).mkdir()
        raise error


@pytest.mark.parametrize("error", [InputError("no data"), typer.Exit(1)])
@pytest.mark.parametrize("existed", [True, False])
def test_processes_that_fail_before_they_train_leave_nothing(tmp_path, error, existed) -> None:
    out = tmp_path / "new"
    if existed:
        out.mkdir()
    with pytest.raises(type(error)):
        _fail(out, "ray", error)
    assert list(tmp_path.rglob("*")) == ([out] if existed else [])


@pytest.mark.parametrize(
    ("error", "made"),
    [(typer.Exit(INTERRUPTED), "ray"), (NasError("killed again"), "ray"), (InputError("no"), "checkpoints")],
)
def test_what_can_be_continued_stays(tmp_path, error, made) -> None:
    with pytest.raises(type(error)):
        _fail(tmp_path, made, error)
    assert TrainRequest.load(tmp_path) == REQUEST


def test_a_dry_run_tells_what_it_takes_and_writes_nothing(nas, architecture, tmp_path) -> None:
    arguments = ("train", "--architecture", architecture, *PLAIN, "--epochs", "30", "--dry-run")
    code, out, err = nas(*arguments, "--json", "--set", "ema_decay=0.9", cwd=tmp_path)
    found = json.loads(out)
    assert (code, found["steps"], found["images"], found["epochs"]) == (0, 120, 30 * 80, 30), err
    speed, evaluated = found["images_per_second"], found["evaluated_per_second"]
    assert found["hours"] == pytest.approx((2400 / speed + 30 * 2 * 10 / evaluated) / 3600)
    assert found["memory_bytes"] > 1e6
    code, out, err = nas(*arguments, "--ray-address", "local", cwd=tmp_path)
    assert (code, [line.split()[0] for line in out.splitlines()]) == (0, ["steps", "memory", "speed", "time"])
    assert "measured on this machine, not on the Ray cluster" in err
    assert list(tmp_path.iterdir()) == []


def test_averaged_weights_are_a_package_of_their_own_and_teach_another_network(nas, architecture, tmp_path) -> None:
    common = ("train", "--architecture", architecture, *PLAIN, "--epochs", "1")
    code, out, err = nas(*common, "--recipe", "small_images", "--out", tmp_path / "run")
    assert code == 0, err
    assert "averaged weights, test data: top-1 (%)" in out
    assert "| mixup | 0.2 |" in (tmp_path / "run/package/README.md").read_text()
    teacher = tmp_path / "run" / "package-average"
    code, _, err = nas(*common, "--set", f"teacher={teacher}", "--set", "distillation=0.9", "--out", tmp_path / "next")
    assert code == 0, err


@pytest.mark.long
def test_sigterm_writes_a_checkpoint_at_its_place(architecture, tmp_path) -> None:
    training = start(["train", "--architecture", architecture, *PLAIN, "--epochs", "3000", "--out", "run"], tmp_path)
    training.wait_for("epoch 1/3000")
    training.process.send_signal(signal.SIGTERM)
    assert training.process.wait(30) == 130
    newest = max((tmp_path / "run/checkpoints").glob("epoch-*.pt"))
    content = torch.load(newest, weights_only=True)
    position = content["position"]
    assert position is None or 0 < position["step"] <= 4
    assert (tmp_path / "run/training.json").is_file()


@pytest.mark.long
def test_processes_that_decode_leave_a_stop_of_the_whole_group_to_the_training(architecture, tmp_path) -> None:
    """SIGTERM reaches the group, as systemd and ``timeout`` send it; the training continues to the same weights."""
    for index in range(24):
        folder = tmp_path / "images" / "train" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.linear_gradient("L").resize((130, 110)).rotate(17 * index)
        picture.convert("RGB").save(folder / f"{index}.jpg")
    common = ["--data-root", str(tmp_path), "--checkpoint-minutes", "0", "--workers", "2"]
    new = [
        "train", "--architecture", architecture, "--data", "image_folder", "--folder", "images", "--image-size", "96",
        "--batch-size", "4", "--epochs", "3", "--device", "cpu", "--set", "rand_augment=m5", *common,
    ]  # fmt: skip
    training = start([*new, "--worker-processes", "--out", "run"], tmp_path)
    training.wait_for("epoch 1/3")
    os.killpg(training.process.pid, signal.SIGTERM)
    assert training.process.wait(30) == 130
    code, _, err = run("train", "--resume", "run", "--worker-processes", *common, cwd=tmp_path)
    assert code == 0, err
    assert run(*new, "--out", "whole", cwd=tmp_path)[0] == 0
    one, other = (read_tensors(tmp_path / name / "package/model.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in {*one, *other})


def _children(process: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.long
def test_a_killed_process_costs_nothing(architecture, tmp_path) -> None:
    common = ["train", "--architecture", architecture, *PLAIN, "--checkpoint-minutes", "0.0001"]
    training = start([*common, "--processes", "2", "--epochs", "12", "--out", "run"], tmp_path)
    training.wait_for("epoch 1/12")
    os.kill(_children(training.process.pid)[1], signal.SIGKILL)
    code, _, err = training.finish()
    assert (code, err.count("a process was killed (SIGKILL); continuing from the newest checkpoint")) == (0, 1), err
    assert "Traceback" not in err
    assert (tmp_path / "run/package/model.safetensors").is_file()


def _epochs(text: str) -> list[tuple[int, float]]:
    """Return number and loss of each epoch that was printed."""
    found = re.findall(r"^epoch (\d+)/\d+  loss ([\d.]+)", text, re.MULTILINE)
    return [(int(epoch), float(loss)) for epoch, loss in found]


@pytest.mark.long
def test_torchrun_trains_like_one_process_and_replaces_a_killed_one(nas, architecture, tmp_path) -> None:
    settings = ["--set", "statistics=synchronized", "--set", "optimizer=sgd", "--set", "drop_path=0"]
    common = ["train", "--architecture", architecture, *PLAIN, *settings, "--epochs", "12"]
    launcher = ["--standalone", "--nproc-per-node", "2", "--max-restarts", "2", "-m", "nas"]
    training = start([*launcher, *common, "--out", "run"], tmp_path, module="torch.distributed.run")
    first = training.wait_for("epoch 1/12")
    os.kill(_children(training.process.pid)[1], signal.SIGKILL)
    code, out, err = training.finish()
    assert code == 0, err
    found = _epochs(first + out)
    assert [epoch for epoch, _ in found] == list(range(1, 13))
    assert (tmp_path / "run/package/model.safetensors").is_file()
    code, out, _ = nas(*common, "--out", tmp_path / "alone")
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in _epochs(out)], rel=0.01)


@pytest.mark.long
def test_a_training_on_a_cluster_stops_and_fewer_processes_continue_it(architecture, tmp_path) -> None:
    """Three processes, which share batches of 20 unevenly, then two: they go on with the next epoch."""
    cluster = ["--ray-address", "local", "--least-processes", "1"]
    common = ["--architecture", architecture, *PLAIN, "--epochs", "30", "--out", "run"]
    training = start(["train", *common, *cluster, "--processes", "3"], tmp_path)
    said = training.wait_for("epoch 1/30")
    training.process.send_signal(signal.SIGTERM)
    code, out, err = training.finish()
    told = f"nas train --resume run {' '.join(cluster[:2])} --processes 3 {' '.join(cluster[2:])}"
    assert (code, told in err) == (130, True), err
    resumed = start(["train", "--resume", "run", *cluster, "--processes", "2"], tmp_path)
    first = re.search(r"epoch (\d+)/30", resumed.wait_for("/30"))
    assert first is not None
    assert int(first[1]) == _epochs(said + out)[-1][0] + 1
    resumed.wait_for("epoch 30/30")
    code, _, err = resumed.finish()
    assert code == 0, err
    assert (tmp_path / "run/package/model.safetensors").is_file()


@pytest.mark.long
def test_processes_stop_and_continue_together(architecture, tmp_path) -> None:
    common = ["--architecture", architecture, *PLAIN, "--processes", "2", "--epochs", "3000", "--out", "run"]
    training = start(["train", *common], tmp_path)
    training.wait_for("epoch 1/3000")
    training.process.send_signal(signal.SIGTERM)
    assert training.process.wait(60) == 130
    resumed = start(["train", "--resume", "run", "--processes", "2"], tmp_path)
    line = resumed.wait_for("/3000")
    assert not line.startswith("epoch 1/")
    time.sleep(0.1)
    assert resumed.interrupt()[0] == 130
