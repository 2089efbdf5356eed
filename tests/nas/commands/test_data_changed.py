"""A study records what its data is; with other data it does not go on, by command or by worker."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nas.definition.study import load_study
from nas.errors import ConflictError
from nas.jobs import JobKind
from nas.settings import Settings
from nas.store import Store
from nas.study import Study, StudyState
from nas.training.data import inspect_data
from nas.worker.kinds import search
from tests.partialnet.data import made

PETS = """\
name: pets
data: {name: image_folder, folder: pets, image_size: 32}
model: {name: micro, patch_size: 2}
training: {epochs: 1, finetune_epochs: 1, batch_size: 8}
sweep: {trials: 1}
final: {candidates: 1, seeds: 1}
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTIALNET_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    made.class_folders(tmp_path / "roots" / "pets", ("train", "test"), ("cat", "dog"), per_class=12)
    (tmp_path / "pets.yaml").write_text(PETS, encoding="utf-8")
    return tmp_path


def paused(folder: Path, *, recorded: bool = True) -> Study:
    """Make a study that has been run and paused, as ``nas run`` leaves it."""
    definition = load_study(folder / "pets.yaml")
    with Store.open(f"sqlite:///{folder / 'nas.db'}") as store:
        study = store.create_study(definition, reference_point={"top1": 0.0, "macs": 1e9})
        if recorded:
            store.record_data(study.id, inspect_data(definition, [folder / "roots"])[1])
        store.set_study_state(study.id, StudyState.PAUSED)
        return store.study(study.id)


def changed(folder: Path, what: str) -> str:
    """Change the data; return what is to be said of it."""
    base = folder / "roots" / "pets"
    if what == "class":
        made.class_folders(base, ("train", "test"), ("emu",), per_class=12)
        return "with the new class 'emu'; 32 instead of 22 train images"
    image = base / ("test" if what == "test" else "train") / "cat" / "0003.png"
    if what == "count":
        image.unlink()
        return "21 instead of 22 train images"
    image.write_bytes((base / "train" / "dog" / "0005.png").read_bytes())
    return "other content in the 24 test images" if what == "test" else "other content in the 22 train images"


@pytest.mark.parametrize("what", ["class", "count", "content", "test"])
def test_resume_is_refused_and_changes_nothing(nas, pets, what) -> None:
    study = paused(pets)
    said = changed(pets, what)
    code, out, err = nas("run", "--resume", "pets", "--data-root", pets / "roots", cwd=pets)
    assert (code, out) == (2, "")
    assert "the data of study pets has changed since it was first run" in err
    if what != "content":  # of 24 images, the seed decides whether it is one of the training or the validation images
        assert said in err
    with Store.open(f"sqlite:///{pets / 'nas.db'}") as store:
        assert store.study("pets") == study
        assert store.trials(study.id) == []


def test_a_worker_refuses_too(pets) -> None:
    study = paused(pets)
    changed(pets, "class")
    settings = Settings(database_url=f"sqlite:///{pets / 'nas.db'}", data_roots=(pets / "roots",))
    with Store.open(settings.database_url) as store:
        job = store.enqueue_job(JobKind.SEARCH, {}, study_id=study.id)
        with pytest.raises(ConflictError, match=r"has changed since it was first run.*'emu'"):
            search.run(store, job, settings)
        assert store.trials(study.id) == []


def test_a_study_that_has_none_records_it_when_it_goes_on(pets) -> None:
    study = paused(pets, recorded=False)
    with Store.open(f"sqlite:///{pets / 'nas.db'}") as store:
        assert study.data is None
        store.record_data(study.id, inspect_data(study.definition, [pets / "roots"], study.data)[1])
        found = store.study(study.id).data
        assert found is not None
        assert found.counts == {"train": 22, "validation": 2, "test": 24}


def test_it_is_shown(nas, pets) -> None:
    study = paused(pets)
    assert study.data is not None
    short = study.data.content["train"][:8]
    code, out, err = nas("studies", cwd=pets)
    assert (code, err) == (0, "")
    assert f"image_folder {short}" in out


def test_a_damaged_test_image_is_named_before_there_is_a_study(nas, pets) -> None:
    damaged = pets / "roots" / "pets" / "test" / "dog" / "0004.png"
    damaged.write_bytes(b"damaged")
    code, _, err = nas("run", "pets.yaml", "--data-root", pets / "roots", cwd=pets)
    assert code == 2
    assert re.search(f"{damaged}: cannot be read as an image", err)
    assert not (pets / "nas.db").exists()
