"""Training fixed architectures: what is built from what, and what is kept."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas.definition.sections import DataSpec
from nas.definition.training import TrainRequest
from nas.errors import ConflictError, InputError
from nas.metrics import EvaluationKind
from nas.training.data import open_splits
from nas.training.standalone import Watch, build_model, check_folder, told_skipped, train_alone
from partialnet.architecture import Architecture
from partialnet.data import Workers
from partialnet.errors import ArchitectureError, DataError, PackageError, TrainingDiverged
from partialnet.models.partialnet import create
from partialnet.package import load_package, save_tensors
from partialnet.train import Recipe
from partialnet.train.processes import Processes
from tests.partialnet.data import made
from tests.partialnet.several import together

OPTIONS = {"num_classes": 10, "in_chans": 1, "patch_size": 1}
REQUEST = TrainRequest(
    Architecture("partialnet_micro", OPTIONS, {"stages.0.blocks.0.mixer": 3}),
    DataSpec(name="digits", train_limit=60),
    Recipe(),
    epochs=1,
    batch_size=25,
)


@pytest.fixture(scope="module")
def splits():
    return open_splits(REQUEST, ())


def weights(path, **options):
    torch.manual_seed(5)
    model = create(Architecture("partialnet_micro", {**OPTIONS, **options}, REQUEST.architecture.active_channels))
    save_tensors(model, path)
    return model


@given(st.integers(1, 500), st.integers(2, 100), st.floats(1e-6, 1.0), st.sampled_from(["adamw", "sgd"]))
def test_requests_survive_a_file(tmp_path_factory, epochs, batch_size, rate, optimizer):
    folder = tmp_path_factory.mktemp("request")
    recipe = Recipe(optimizer=optimizer, learning_rate=rate)
    request = replace(REQUEST, epochs=epochs, batch_size=batch_size, recipe=recipe, weights=folder / "w")
    request.save(folder)
    assert TrainRequest.load(folder) == request


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 1}', '{"schema": 2}'])
def test_damaged_requests(tmp_path, content):
    (tmp_path / "training.json").write_text(content)
    with pytest.raises(InputError, match=r"training\.json"):
        TrainRequest.load(tmp_path)


def test_unknown_keys_of_a_request(tmp_path):
    REQUEST.save(tmp_path)
    path = tmp_path / "training.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "optimiser": "lion"}))
    with pytest.raises(InputError, match="optimiser"):
        TrainRequest.load(tmp_path)


def test_classes_and_channels_are_the_data_sets(splits):
    rgb = replace(REQUEST, architecture=Architecture("partialnet_micro", {"patch_size": 1}))
    model, notes = build_model(rgb, splits)
    assert (model.num_classes, model.in_chans) == (10, 1)
    assert notes == []


def test_weights_are_loaded(splits, tmp_path):
    source = weights(tmp_path / "w")
    model, notes = build_model(replace(REQUEST, weights=tmp_path / "w"), splits)
    assert notes == []
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), source.state_dict().values(), strict=True)
    )


def test_another_number_of_classes_keeps_the_rest(splits, tmp_path):
    source = weights(tmp_path / "w", num_classes=4)
    model, notes = build_model(replace(REQUEST, weights=tmp_path / "w"), splits)
    assert "4 classes, not 10" in notes[0]
    assert model.classifier.weight.shape[0] == 10
    assert torch.equal(model.patch_embed.proj.weight, source.patch_embed.proj.weight)


def test_weights_for_other_images(splits, tmp_path):
    weights(tmp_path / "w", in_chans=3)
    request = replace(
        REQUEST, weights=tmp_path / "w", architecture=Architecture("partialnet_micro", {"patch_size": 1})
    )
    with pytest.raises(InputError, match="3 channels, but digits has 1"):
        build_model(request, splits)


def test_weights_of_another_architecture(splits, tmp_path):
    weights(tmp_path / "w", embed_dim=24)
    with pytest.raises(PackageError, match="shape"):
        build_model(replace(REQUEST, weights=tmp_path / "w"), splits)


def test_images_that_are_too_small(splits):
    with pytest.raises(ArchitectureError, match="8x8"):
        build_model(replace(REQUEST, architecture=Architecture("partialnet_micro", {"patch_size": 4})), splits)


def test_a_folder_that_is_taken(tmp_path):
    check_folder(tmp_path / "new")
    check_folder(tmp_path)
    (tmp_path / "x").write_text("")
    with pytest.raises(ConflictError, match="choose another folder"):
        check_folder(tmp_path)
    with pytest.raises(ConflictError, match="not empty"):
        check_folder(tmp_path / "x")


def test_a_training_tells_and_keeps(tmp_path):
    told: list[str] = []
    watch = Watch(
        start=told.append,
        step=lambda: told.append("step"),
        epoch=lambda progress: told.append(f"epoch {progress.epoch}"),
        note=told.append,
    )
    result = train_alone(REQUEST, tmp_path / "out", (), watch=watch)
    assert re.match(r"training partialnet_micro on \d+ images of digits from random weights, 1 epoch on", told[0])
    assert told[1:] == ["step", "step", "epoch 1"]
    assert {(e.kind, e.data_split) for e in result.candidate.evaluations} == {
        (EvaluationKind.RETRAINED, "validation"),
        (EvaluationKind.RETRAINED, "test"),
    }
    assert {m.metric for m in result.candidate.measurements} >= {"macs", "params"}
    assert result.candidate.splits[0].active_channels == 3
    assert load_package(result.package).architecture == result.candidate.architecture
    again = train_alone(REQUEST, tmp_path / "out", (), resume=True)
    assert again.candidate.evaluations == result.candidate.evaluations


def test_files_that_are_left_out_are_told(tmp_path):
    made.class_folders(tmp_path / "pets", ("train",), ("cat", "dog"), per_class=8)
    (tmp_path / "pets" / "train" / "cat" / "raw.heic").touch()
    data = DataSpec(name="image_folder", folder="pets", image_size=72)
    architecture = Architecture("partialnet_micro", {"depths": [1, 1, 1, 1]})
    told = []
    request = replace(REQUEST, architecture=architecture, data=data, batch_size=4)
    result = train_alone(request, tmp_path / "out", (tmp_path,), watch=Watch(note=told.append))
    expected = f"{tmp_path}/pets/train: files that end in .heic: 1 left out, such as cat/raw.heic"
    assert told[0] == result.notes[0] == expected


def test_broken_images_are_skipped_on_request_and_counted(tmp_path):
    made.class_folders(tmp_path / "pets", ("train",), ("cat", "dog"), per_class=9)
    (tmp_path / "pets" / "train" / "cat" / "0003.png").write_bytes(b"no image")
    rows = [f"train/{name}/{number:04d}.png,{name}" for name in ("cat", "dog") for number in range(9)]
    (tmp_path / "pets" / "train.csv").write_text("\n".join(["path,label", *rows]))
    data = DataSpec(name="image_csv", folder="pets", image_size=72)
    architecture = Architecture("partialnet_micro", {"depths": [1, 1, 1, 1]})
    request = replace(REQUEST, architecture=architecture, data=data, batch_size=4)
    with pytest.raises(DataError, match=r"train\.csv line 5: .*0003\.png: cannot be read as an image"):
        train_alone(request, tmp_path / "out", (tmp_path,))
    skipping = replace(request, data=data.model_copy(update={"skip_broken": True}))
    result = train_alone(skipping, tmp_path / "out", (tmp_path,), workers=Workers(1))
    assert re.match(r"skipped 1 image that cannot be read, such as .*train\.csv line 5", result.notes[-1])


def told_of_two():
    processes = Processes.current()
    skipped = (("a.png: broken", "b.png: broken"), ("b.png: broken",))[processes.index]
    return told_skipped(SimpleNamespace(skipped=skipped), processes)


@pytest.mark.forks
def test_an_image_that_several_processes_skip_counts_once(tmp_path):
    told = "skipped 2 images that cannot be read, such as a.png: broken"
    assert together(tmp_path / "both", told_of_two) == [told] * 2


def test_a_diverged_training_leaves_no_package(tmp_path):
    request = replace(REQUEST, recipe=Recipe(optimizer="sgd", learning_rate=1e30, clip_norm=0), epochs=5)
    with pytest.raises(TrainingDiverged):
        train_alone(request, tmp_path / "out", ())
    assert not (tmp_path / "out" / "package").exists()
