"""Trainings by timm and by us read each other's checkpoints."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_dataset, create_loader
from timm.models import load_checkpoint, resume_checkpoint
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import CheckpointSaver, NativeScaler
from torch import nn
from torch.nn import functional

from partialnet.architecture import Architecture
from partialnet.errors import PackageError
from partialnet.networks import create
from partialnet.package import load_tensors, read_tensors, save_tensors
from partialnet.train import Recipe, fit
from partialnet.train.kept import KeptCheckpoints

from . import small

OPTIONS = {"num_classes": 2, "patch_size": 1, "depths": (1, 1, 1, 1)}
SCRIPT = os.environ.get("TIMM_TRAIN")
WITH_OUR_NAMES = "import partialnet, runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen images of two colours, as timm's training script reads them."""
    place = tmp_path_factory.mktemp("images")
    for split in ("train", "validation"):
        for name, colour in (("blue", (0, 0, 200)), ("red", (200, 0, 0))):
            target = place / split / name
            target.mkdir(parents=True)
            for index in range(8):
                shade = tuple(min(255, value + 5 * index) for value in colour)
                Image.new("RGB", (20, 20), shade).save(target / f"{index}.png")
    return place


def timm_epoch(folder: Path, out: Path) -> tuple[nn.Module, torch.optim.Optimizer, Path]:
    """Train for an epoch with the parts of timm's training script, and return its checkpoint."""
    torch.manual_seed(0)
    model = timm.create_model("partialnet_t0", **OPTIONS)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)
    scheduler, _ = create_scheduler_v2(optimizer, num_epochs=1)
    images = create_dataset("", root=str(folder), split="train", is_training=True)
    loader = create_loader(
        images, input_size=(3, 16, 16), batch_size=4, is_training=True, num_workers=0, use_prefetcher=False
    )
    saver = CheckpointSaver(
        model, optimizer, args=argparse.Namespace(model="partialnet_t0"), checkpoint_dir=str(out), max_history=2
    )
    scaler = NativeScaler(device="cpu")
    model.train()
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(inputs), targets)
        scaler(loss, optimizer, clip_grad=1.0, parameters=model.parameters())
    scheduler.step(1)
    saver.save_checkpoint(0, metric=50.0)
    return model, optimizer, out / "last.pth.tar"


def test_a_checkpoint_of_timm_loads_here(folder: Path, tmp_path: Path) -> None:
    trained, optimizer, path = timm_epoch(folder, tmp_path)
    ours = create(Architecture("partialnet_t0", {**OPTIONS, "depths": [1, 1, 1, 1]}))
    load_tensors(ours, read_tensors(path), path)
    inputs = torch.randn(2, 3, 16, 16)
    assert torch.equal(ours.eval()(inputs), trained.eval()(inputs))
    again = timm.create_model("partialnet_t0", **OPTIONS)
    other = create_optimizer_v2(again, opt="adamw", lr=1e-3, weight_decay=0.05)
    assert resume_checkpoint(again, str(path), other) == 1
    assert len(other.state_dict()["state"]) == len(optimizer.state_dict()["state"])


def test_our_checkpoints_and_packages_load_in_timm(tmp_path: Path) -> None:
    model = timm.create_model("partialnet_t0", **{**OPTIONS, "in_chans": 1, "num_classes": 4})
    kept = KeptCheckpoints(tmp_path / "kept")
    fit(model, small.quadrants(64).batches(32), recipe=Recipe(), epochs=1, seed=0, checkpoint=kept)
    save_tensors(model, tmp_path / "model.safetensors")
    for path in (kept.files()[0], tmp_path / "model.safetensors"):
        found = timm.create_model("partialnet_t0", **{**OPTIONS, "in_chans": 1, "num_classes": 4})
        load_checkpoint(found, str(path), strict=True)
        assert all(map(torch.equal, found.state_dict().values(), model.state_dict().values()))
        assert read_tensors(path).keys() == model.state_dict().keys()


def timms_script(folder: Path, out: Path, *arguments: str) -> Path:
    """Train T0 for an epoch by timm's own script, and return its checkpoint."""
    assert SCRIPT is not None
    command = [
        sys.executable, "-c", WITH_OUR_NAMES, str(Path(SCRIPT).resolve()), str(folder), "--model", "partialnet_t0",
        "--num-classes", "2", "--input-size", "3", "64", "64", "--device", "cpu", "--epochs", "1",
        "--warmup-epochs", "0", "--batch-size", "4", "--workers", "0", "--output", str(out), "--experiment", "run",
        *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return out / "run" / "last.pth.tar"


@pytest.mark.long
@pytest.mark.skipif(
    SCRIPT is None, reason="TIMM_TRAIN does not name timm's train.py, which is in its repository and not in its package"
)
def test_timms_own_script_trains_t0_and_both_read_the_weights_of_the_other(folder: Path, tmp_path: Path) -> None:
    recipe = ("--opt", "adamw", "--lr", "1e-3", "--model-ema", "--mixup", "0.2", "--aa", "rand-m7-mstd0.5")
    path = timms_script(folder, tmp_path / "theirs", *recipe)
    ours = create(Architecture("partialnet_t0", {"num_classes": 2}))
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    load_tensors(ours, read_tensors(path), path)
    assert not all(torch.equal(before[name], tensor) for name, tensor in ours.state_dict().items())
    save_tensors(ours, tmp_path / "model.safetensors")
    still = ("--opt", "sgd", "--lr", "1e-12", "--weight-decay", "0")
    again = timms_script(
        folder, tmp_path / "again", "--initial-checkpoint", str(tmp_path / "model.safetensors"), *still
    )
    found = read_tensors(again)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(found[name], parameter.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"epoch": 3, "state_dict": {"a": "text"}}, "a checkpoint without weights"),
        ({"model": print}, "not a readable"),
        ([torch.ones(2)], "a checkpoint without weights"),
        ({"state_dict": None}, "a checkpoint without weights"),
        ({3: torch.ones(2)}, "a checkpoint without weights"),
    ],
)
def test_a_file_without_weights_is_named(tmp_path: Path, content: object, words: str) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(PackageError, match=rf"odd\.pth: {words}"):
        read_tensors(tmp_path / "odd.pth")


@pytest.mark.parametrize("name", ["other.zip", "other.safetensors"])
def test_an_archive_that_is_no_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(PackageError, match=rf"{name}: not a readable checkpoint"):
        read_tensors(tmp_path / name)
