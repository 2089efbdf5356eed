"""Exported folders: what goes in comes out, and what is damaged is named."""

from __future__ import annotations

import ctypes
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from partialnet.architecture import Architecture
from partialnet.errors import PackageError
from partialnet.fuse import fuse
from partialnet.models.partialnet import create
from partialnet.package import (
    Package,
    Preprocessing,
    check_target,
    load_package,
    load_tensors,
    read_tensors,
    save_package,
    save_tensors,
)
from tests.partialnet.several import fork_server

CLONE_NEWNS, CLONE_NEWUSER = 0x0002_0000, 0x1000_0000
PREPROCESSING = Preprocessing("digits", tuple("0123456789"), (1, 8, 8), (0.3,), (0.4,))
ARCHITECTURE = Architecture(
    "partialnet_micro",
    {"num_classes": 10, "in_chans": 1, "patch_size": 1, "depths": [1, 2], "merge_strides": [2]},
    {"stages.0.blocks.0.mixer": 3, "stages.1.blocks.1.mixer": 32},
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = create(ARCHITECTURE)
    network.train()
    network(torch.randn(4, 1, 8, 8))  # running statistics that are not the initial ones
    return network.eval()


@pytest.fixture
def folder(tmp_path, model):
    return save_package(tmp_path / "net", model, PREPROCESSING, readme="# Card\n")


def test_round_trip(folder, model):
    package = load_package(folder)
    assert isinstance(package, Package)
    assert package.preprocessing == PREPROCESSING
    assert package.architecture == model.architecture()
    assert package.architecture.active_channels["stages.0.blocks.0.mixer"] == 3
    assert not package.model.training
    images = torch.randn(2, 1, 8, 8)
    with torch.inference_mode():
        assert torch.equal(package.model(images), model(images))
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "architecture.json",
        "model.safetensors",
        "preprocessing.json",
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["net"]


@pytest.mark.parametrize("name", ["architecture.json", "model.safetensors", "preprocessing.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(PackageError, match=f"{name} is missing"):
        load_package(folder)


@pytest.mark.parametrize("name", ["architecture.json", "model.safetensors", "preprocessing.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\x00garbage", b"[1, 2]"])
def test_a_damaged_file_is_named(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(PackageError, match=str(folder / name)):
        load_package(folder)


def test_a_truncated_weights_file_is_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PackageError, match=str(path)):
        load_package(folder)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(PackageError, match="nowhere: there is no such folder"):
        load_package(tmp_path / "nowhere")
    with pytest.raises(PackageError, match=r"architecture\.json is missing"):
        load_package(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("classifier.bias"), "classifier.bias is missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra is unknown"),
        (lambda t: t.update({"classifier.bias": torch.zeros(3)}), r"classifier.bias has shape \[3\] instead of \[10\]"),
        (lambda t: t["classifier.bias"].fill_(float("nan")), "classifier.bias holds values that are not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_named(folder, change, message):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(PackageError, match=message):
        load_package(folder)


def test_an_architecture_that_does_not_fit_the_weights(folder):
    path = folder / "architecture.json"
    data = json.loads(path.read_text())
    data["active_channels"]["stages.0.blocks.0.mixer"] = 5
    path.write_text(json.dumps(data))
    with pytest.raises(PackageError, match="instead of"):
        load_package(folder)
    data["active_channels"]["stages.9.blocks.0.mixer"] = 5
    path.write_text(json.dumps(data))
    with pytest.raises(PackageError, match=r"architecture\.json.*stages\.9"):
        load_package(folder)


def test_class_names_must_fit(tmp_path, model, folder):
    with pytest.raises(PackageError, match="class_names has 9 entries, but the network 10 outputs"):
        save_package(tmp_path / "other", model, replace(PREPROCESSING, class_names=tuple("012345678")))
    with pytest.raises(PackageError, match="3 channels, but the network takes 1"):
        save_package(
            tmp_path / "other", model, replace(PREPROCESSING, input_shape=(3, 8, 8), mean=(0,) * 3, std=(1,) * 3)
        )
    assert not (tmp_path / "other").exists()
    path = folder / "preprocessing.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "class_names": ["one"]}))
    with pytest.raises(PackageError, match=r"preprocessing\.json: class_names has 1"):
        load_package(folder)


@pytest.mark.parametrize(
    "change",
    [{"input_shape": (1, 8)}, {"input_shape": (1, 0, 8)}, {"mean": ()}, {"std": (0.0,)}, {"std": (float("nan"),)}],
)
def test_impossible_preprocessing(change):
    with pytest.raises(PackageError, match=next(iter(change))):
        replace(PREPROCESSING, **change)


def test_names_that_are_no_text_are_refused(folder):
    with pytest.raises(PackageError, match=r"the name 'caf\\udce9' is not valid text"):
        replace(PREPROCESSING, class_names=(*"012345678", "caf\udce9"))
    path = folder / "preprocessing.json"
    path.write_text(path.read_text().replace('"digits"', r'"\udce9"'))
    with pytest.raises(PackageError, match=r"preprocessing\.json: the name .* is not valid text"):
        load_package(folder)


def test_an_existing_folder_is_kept(folder, model, tmp_path):
    with pytest.raises(PackageError, match="exists and is not empty"):
        save_package(folder, model, PREPROCESSING)
    save_package(folder, model, replace(PREPROCESSING, name="other"), overwrite=True)
    assert load_package(folder).preprocessing.name == "other"
    assert not (folder / "README.md").exists()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(PackageError, match=r"thesis\.txt"):
        save_package(folder, model, PREPROCESSING, overwrite=True)
    assert (folder / "thesis.txt").read_text() == "years of work"
    (tmp_path / "file").write_text("")
    with pytest.raises(PackageError, match="is a file"):
        check_target(tmp_path / "file", overwrite=True)


def test_an_empty_folder_is_filled(tmp_path, model):
    (tmp_path / "empty").mkdir()
    save_package(tmp_path / "empty", model, PREPROCESSING)
    assert load_package(tmp_path / "empty").preprocessing == PREPROCESSING


def poisoned():
    network = create(ARCHITECTURE)
    torch.nn.init.constant_(network.classifier.bias, float("nan"))
    return network


def searchable():
    return create(replace(ARCHITECTURE, active_channels={}), searchable=True)


def half_compiled():
    network = create(ARCHITECTURE)
    network.stages[0] = torch.compile(network.stages[0])
    return network


def pruned():
    network = create(ARCHITECTURE)
    network.prune_intermediate_layers([0])
    return network


class TestWritingChecksWhatReadingChecks:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (poisoned, r"classifier\.bias holds values that are not finite"),
            (lambda: fuse(create(ARCHITECTURE)), r"norm.* is missing; .*save the training form, .* before fuse"),
            (searchable, "still learns its split; apply to_fixed before"),
            (half_compiled, r"stages\.0\.blocks\.0 is missing: parts of the network were wrapped, compiled"),
            (lambda: torch.nn.Conv2d(1, 10, 1), r"a Conv2d has no architecture: build it with partialnet\.create"),
            (lambda: create(ARCHITECTURE).to("meta"), "has no values"),
            (pruned, "a network pruned for its intermediate maps has no architecture"),
        ],
        ids=["nan", "fused", "searchable", "compiled_part", "other", "meta", "pruned"],
    )
    def test_what_could_not_be_loaded_is_not_written(self, tmp_path, make, message):
        with pytest.raises(PackageError, match=rf"net: .*{message}"):
            save_package(tmp_path / "net", make(), PREPROCESSING)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "wrap",
        [
            torch.compile,
            torch.nn.DataParallel,
            lambda network: torch.compile(torch.nn.DataParallel(torch.compile(network))),
            torch.optim.swa_utils.AveragedModel,
        ],
        ids=["compiled", "data_parallel", "nested", "averaged"],
    )
    def test_wrappers_are_taken_off(self, tmp_path, model, wrap):
        wrapped = wrap(model)
        loaded = load_package(save_package(tmp_path / "net", wrapped, PREPROCESSING)).model
        assert all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values()))
        save_tensors(wrapped, tmp_path / "weights.safetensors")
        assert set(read_tensors(tmp_path / "weights.safetensors")) == set(model.state_dict())

    def test_saving_moves_no_random_numbers(self, tmp_path, model):
        before = torch.get_rng_state()
        save_package(tmp_path / "net", model, PREPROCESSING)
        assert torch.equal(torch.get_rng_state(), before)


class TestFoldersThatAreNoPlainOnes:
    """Where somebody stands, behind a link, a mount point: the folder stays the same, and the new network is in it."""

    @pytest.fixture(params=[False, True], ids=["empty", "replaced"])
    def place(self, request, tmp_path, model):
        (tmp_path / "place").mkdir()
        if request.param:
            save_package(tmp_path / "place", model, replace(PREPROCESSING, name="old"), readme="old")
        return tmp_path / "place"

    def test_the_folder_one_stands_in(self, place, model, monkeypatch):
        monkeypatch.chdir(place)
        save_package(Path(), model, PREPROCESSING, overwrite=True)
        assert load_package(".").preprocessing == PREPROCESSING  # as the shell sees it, not only by its name
        assert not (place / "README.md").exists()
        assert Path("architecture.json").samefile(place / "architecture.json")

    def test_a_link_stays_a_link(self, place, model, tmp_path):
        link = tmp_path / "link"
        link.symlink_to(place)
        save_package(link, model, PREPROCESSING, overwrite=True)
        assert link.readlink() == place
        assert load_package(place).preprocessing == PREPROCESSING
        assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "place"]

    def test_a_link_to_a_folder_yet_to_come(self, model, tmp_path):
        (tmp_path / "link").symlink_to(tmp_path / "below" / "later")
        save_package(tmp_path / "link", model, PREPROCESSING)
        assert load_package(tmp_path / "below" / "later").preprocessing == PREPROCESSING
        (tmp_path / "circle").symlink_to(tmp_path / "circle")
        with pytest.raises(PackageError, match="circle: is a symbolic link that leads back to itself"):
            save_package(tmp_path / "circle", model, PREPROCESSING)

    def test_permissions_of_the_folder_stay(self, place, model):
        place.chmod(0o750)
        save_package(place, model, PREPROCESSING, overwrite=True)
        assert stat.S_IMODE(place.stat().st_mode) == 0o750

    @pytest.mark.forks
    def test_a_mount_point(self, tmp_path):
        """In a mount namespace of its own, where an unprivileged user may make one."""
        (tmp_path / "mounted").mkdir()
        child = fork_server().Process(target=replace_at_a_mount_point, args=(tmp_path / "mounted",))
        child.start()
        child.join(60)
        if child.exitcode == NOT_ALLOWED:
            pytest.skip("needs the right to mount in a namespace")
        assert child.exitcode == 0
        assert list((tmp_path / "mounted").iterdir()) == []  # all of it was in the namespace


NOT_ALLOWED = 77


def replace_at_a_mount_point(folder):
    """End with ``NOT_ALLOWED`` where there can be none."""
    try:
        enter_namespace()
        subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    except (OSError, subprocess.CalledProcessError):
        sys.exit(NOT_ALLOWED)
    assert folder.is_mount()
    network = create(Architecture("partialnet_micro", {"num_classes": 2, "depths": [1, 1, 1, 1]}))
    for name in ("old", "new"):
        preprocessing = Preprocessing(name, ("a", "b"), (3, 32, 32), (0.0,) * 3, (1.0,) * 3)
        save_package(folder, network, preprocessing, overwrite=True)
    assert load_package(folder).preprocessing.name == "new"


def enter_namespace():
    """Let this process be root in namespaces of users and mounts of its own, like ``unshare -rm``."""
    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER | CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


@pytest.mark.parametrize("failing", range(7))
def test_an_exchange_that_fails_puts_the_old_package_back(folder, model, monkeypatch, failing):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    rename, calls = Path.rename, []

    def fail_once(self, target):
        calls.append(target)
        if len(calls) == failing + 1:
            raise OSError("disk full")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(OSError, match="disk full"):
        save_package(folder, create(ARCHITECTURE), PREPROCESSING, overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_a_killed_process_left_is_in_nobody_s_way(tmp_path, model):
    (tmp_path / "net" / ".partialnet-abc" / "old").mkdir(parents=True)
    save_package(tmp_path / "net", model, PREPROCESSING)
    save_package(tmp_path / "net", model, PREPROCESSING, overwrite=True)
    assert load_package(tmp_path / "net").preprocessing == PREPROCESSING


def test_a_failure_leaves_nothing(tmp_path, model, monkeypatch):
    def fail(*_args):
        raise OSError("disk full")

    monkeypatch.setattr("partialnet.package.save_safetensors", fail)
    with pytest.raises(OSError, match="disk full"):
        save_package(tmp_path / "net", model, PREPROCESSING)
    assert list(tmp_path.iterdir()) == []


def test_read_and_load_tensors(folder, model):
    tensors = read_tensors(folder / "model.safetensors")
    other = create(ARCHITECTURE)
    load_tensors(other, tensors, "here")
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), model.state_dict().values(), strict=True))
    with pytest.raises(PackageError, match="no such file"):
        read_tensors(folder / "none.safetensors")
