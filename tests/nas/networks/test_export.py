"""Exports from a real store and storage: what can be handed out, and what is said when it can't."""

from __future__ import annotations

from dataclasses import replace

import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from nas.artifacts import Artifacts
from nas.candidate import Candidate, Split
from nas.commands.export import judged_by
from nas.definition.sections import DataSpec
from nas.definition.study import parse_study
from nas.definition.training import TrainRequest
from nas.errors import ConflictError, InputError, NotFoundError
from nas.metrics import Evaluation, EvaluationKind
from nas.networks.export import Int8Wish, export_package, export_trial
from nas.store import Store
from nas.trial import TrialKind, TrialState
from partialnet.architecture import Architecture
from partialnet.errors import PackageError
from partialnet.models.partialnet import create
from partialnet.package import Preprocessing, load_package, save_package
from partialnet.train import Recipe

DEFINITION = {
    "name": "shop",
    "question": "Which one?",
    "data": {"name": "digits"},
    "model": {"name": "micro", "patch_size": 1},
    "space": {"target": {"log_uniform": [2, 8]}},
}
OPTIONS = {"num_classes": 3, "in_chans": 1, "patch_size": 1, "depths": [1, 1], "merge_strides": [2]}


@pytest.fixture
def artifacts(tmp_path):
    return Artifacts(str(tmp_path / "storage"))


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path / 'nas.db'}") as opened:
        yield opened


@pytest.fixture
def study(store):
    return store.create_study(parse_study(DEFINITION), reference_point={"top1": 0.0})


def network():
    torch.manual_seed(1)
    return create(Architecture("partialnet_micro", OPTIONS, {"stages.0.blocks.0.mixer": 5})).eval()


def ended(store, study, artifacts, tmp_path, *, state=TrialState.COMPLETE, weights=True, metadata=None, **changes):
    """Run a trial of ``study`` through the store's own door; return its number."""
    (spec,) = store.add_trials(study.id, [(TrialKind.SEARCH, {"target": 4.0})])
    store.start_trial(study.id, spec.number)
    model = network()
    kept = None
    if weights:
        save_file(model.state_dict(), tmp_path / "w.safetensors", metadata=metadata)
        kept = artifacts.put(tmp_path / "w.safetensors", f"studies/{study.id}/{spec.number}/w.safetensors", "weights")
    candidate = Candidate(
        model.architecture(),
        (Split("stages.0.blocks.0.mixer", 0, 16, 5, 14400, 0, 0),),
        (Evaluation(EvaluationKind.FINETUNED, "top1", 0.875, epochs=3),),
        weights=kept,
    )
    candidates = () if state is not TrialState.COMPLETE else (replace(candidate, **changes),)
    store.end_trial(study.id, spec.number, state, candidates=candidates, reason=changes.get("note"))
    return spec.number


def test_an_export_holds_the_trained_network(store, study, artifacts, tmp_path):
    number = ended(store, study, artifacts, tmp_path, metadata={"class_names": '["a", "b", "ü"]'})
    out = export_trial(store, artifacts, "shop", number, tmp_path / "out")
    package = load_package(out)
    assert package.preprocessing.class_names == ("a", "b", "ü")
    assert package.preprocessing.input_shape == (1, 8, 8)
    images = torch.randn(2, 1, 8, 8)
    with torch.inference_mode():
        assert torch.equal(package.model(images), network()(images))
    card = (out / "README.md").read_text()
    assert "Which one?" in card
    assert "| 87.50 |" in card
    assert "| `stages.0.blocks.0.mixer` | 16 | 5 | 0.312 | 14,400 |" in card


def test_an_export_with_onnx(store, study, artifacts, tmp_path):
    number = ended(store, study, artifacts, tmp_path)
    out = export_trial(store, artifacts, "shop", number, tmp_path / "out", onnx=True)
    session = onnxruntime.InferenceSession(out / "model.onnx")
    images = torch.randn(4, 1, 8, 8)
    (logits,) = session.run(["output"], {"images": images.numpy()})
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(logits), network()(images), rtol=0, atol=1e-5)
    assert "`model.onnx` is that form" in (out / "README.md").read_text()
    export_trial(store, artifacts, "shop", number, out, force=True)
    assert not (out / "model.onnx").exists()
    assert "onnx" not in (out / "README.md").read_text()


def test_a_missed_budget_is_said(store, study, artifacts, tmp_path):
    number = ended(store, study, artifacts, tmp_path, within_budget=False, note="nearest is 7")
    out = export_trial(store, artifacts, study.id, number, tmp_path / "out")
    assert "The budget was not met: nearest is 7" in (out / "README.md").read_text()


def test_a_trial_without_a_network(store, study, artifacts, tmp_path):
    number = ended(store, study, artifacts, tmp_path, state=TrialState.FAILED, note="it diverged")
    with pytest.raises(ConflictError, match=r"trial 0 of shop is failed \(it diverged\)"):
        export_trial(store, artifacts, "shop", number, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_were_not_kept(store, study, artifacts, tmp_path):
    number = ended(store, study, artifacts, tmp_path, weights=False)
    with pytest.raises(ConflictError, match="weights of trial 0 of shop were not kept"):
        export_trial(store, artifacts, "shop", number, tmp_path / "out")


def test_weights_that_are_gone(store, study, artifacts, tmp_path):
    number = ended(store, study, artifacts, tmp_path)
    next((tmp_path / "storage").rglob("w.safetensors")).unlink()
    with pytest.raises(NotFoundError, match=r"w\.safetensors"):
        export_trial(store, artifacts, "shop", number, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_of_another_architecture(store, study, artifacts, tmp_path):
    other = Architecture("partialnet_micro", OPTIONS)
    number = ended(store, study, artifacts, tmp_path, architecture=create(other).architecture())
    with pytest.raises(PackageError, match=r"stages\.0\.blocks\.0\.mixer"):
        export_trial(store, artifacts, "shop", number, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_place_that_is_taken(store, study, artifacts, tmp_path):
    number = ended(store, study, artifacts, tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(PackageError, match="out"):
            export_trial(store, artifacts, "shop", number, tmp_path / "out", force=force)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def package_of(folder, name):
    preprocessing = Preprocessing(name, tuple("abc"), (1, 8, 8), (0.5,), (0.5,))
    return save_package(folder / "package", network(), preprocessing)


def test_a_package_of_own_images_needs_its_data_only_for_the_8_bit_form(tmp_path):
    package = package_of(tmp_path, "image_folder")
    out = export_package(package, tmp_path / "out", None, onnx=True)
    assert (out / "model.onnx").is_file()
    with pytest.raises(InputError, match="folder"):
        judged_by(package, Int8Wish(0.01, ()), None, None)
    assert judged_by(package, Int8Wish(0.01, ()), None, "pets")[0].folder == "pets"


@pytest.mark.parametrize(("split_seed", "expected"), [(None, 5), (2, 2)])
@pytest.mark.parametrize("name", [None, "digits"])
def test_an_8_bit_form_is_judged_by_no_training_image(tmp_path, split_seed, expected, name):
    data = DataSpec(name="digits", train_limit=100)
    TrainRequest(network().architecture(), data, Recipe(), 1, 30, seed=5, split_seed=split_seed).save(tmp_path)
    spec, wish = judged_by(package_of(tmp_path, "digits"), Int8Wish(0.01, ()), name, None)
    assert wish.seed == expected
    assert name is not None or spec == data
