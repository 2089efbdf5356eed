"""Jobs of kind export, done by the function that workers call."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nas.artifacts import Artifacts
from nas.candidate import Candidate, Split
from nas.errors import ConflictError
from nas.jobs import INT8, JobKind
from nas.metrics import Evaluation, EvaluationKind
from nas.settings import Settings
from nas.store import Store
from nas.trial import TrialKind, TrialState
from nas.wire.bodies import Int8Body
from nas.worker.kinds import export
from partialnet.architecture import Architecture
from partialnet.models.partialnet import create
from tests.nas.store.makers import study

pytestmark = pytest.mark.long  # eight quantisations; a short export with --int8 runs in tests/nas/commands

OPTIONS = {"num_classes": 10, "in_chans": 1, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "merge_strides": [2]}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    url, storage = f"sqlite:///{tmp_path / 'nas.db'}", str(tmp_path / "storage")
    return Settings(_env_file=None, database_url=url, storage=storage)


@pytest.fixture
def study_id(settings: Settings, tmp_path: Path) -> str:
    """A study of digits with one trial, whose network has random weights."""
    torch.manual_seed(1)
    model = create(Architecture("partialnet_micro", OPTIONS, {"stages.0.blocks.0.mixer": 5})).eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors", {"class_names": json.dumps(list("0123456789"))})
    small = {"data": {"name": "digits", "train_limit": 200}, "latency": {"seconds": 0.05}}
    with Store.open(settings.database_url) as store:
        made = study(store, **small)
        store.add_trials(made.id, [(TrialKind.SEARCH, {"target": 4.0})])
        store.start_trial(made.id, 0)
        uri = f"studies/{made.id}/0/w.safetensors"
        kept = Artifacts(settings.storage).put(tmp_path / "w.safetensors", uri, "weights")
        found = Candidate(
            model.architecture(),
            (Split("stages.0.blocks.0.mixer", 0, 16, 5, 14400, 0, 0),),
            (Evaluation(EvaluationKind.FINETUNED, "top1", 0.1, epochs=3),),
            weights=kept,
        )
        store.end_trial(made.id, 0, TrialState.COMPLETE, candidates=[found])
    return made.id


def test_an_8_bit_form_is_in_the_zip_with_its_scores(settings: Settings, study_id: str, tmp_path: Path) -> None:
    with Store.open(settings.database_url) as store:
        job = store.enqueue_job(JobKind.EXPORT, {"number": 0, "candidate": "0", INT8: 100.0}, study_id=study_id)
        state, result = export.run(store, job, settings)
    files = {file["name"]: file for file in result["files"]}
    with zipfile.ZipFile(Path(settings.storage) / result["uri"]) as archive:
        form = archive.read("digits-trial-0/model-int8.onnx")
        report = json.loads(archive.read("digits-trial-0/int8.json"))
    assert (state.value, hashlib.sha256(form).hexdigest()) == ("finished", files["model-int8.onnx"]["sha256"])
    body = Int8Body.model_validate(result["int8"])
    assert (body.max_drop, body.images) == (1.0, report["validation"]["int8"]["n"])
    assert body.top1 == {name: report["validation"][name]["top1"] for name in ("float32", "int8")}
    assert body.latency_ms["int8"] > 0


def test_an_8_bit_form_that_loses_too_much_is_refused_with_the_reason(
    settings: Settings, study_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas.networks import int8

    judge = int8.check_drop
    monkeypatch.setattr(int8, "check_drop", lambda plain, form, most: judge(plain, form, most - 2))
    with Store.open(settings.database_url) as store:
        job = store.enqueue_job(JobKind.EXPORT, {"number": 0, INT8: 1.0}, study_id=study_id)
        with pytest.raises(ConflictError, match=r"int8: top-1 on \d+ validation images falls by"):
            export.run(store, job, settings)
    assert not list((Path(settings.storage) / "exports").rglob("*.zip"))
