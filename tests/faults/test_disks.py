"""A disk that is full, or data that are damaged, while a study runs: it pauses once, and then goes on."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from nas.errors import StoreLost
from nas.settings import Settings
from nas.store import Store
from nas.study import StudyState
from nas.sweep.progress import EpochDone, SweepEvent
from nas.sweep.search import run_search
from nas.training.data import inspect_data
from nas.training.feasibility import reference_point
from nas.trial import TrialState
from tests.disks import full, small_disk
from tests.faults.studies import essence, small_study
from tests.partialnet.data import made

__all__ = ["small_disk"]
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_here"), pytest.mark.timeout(600)]


def test_a_full_storage_pauses_and_goes_on_when_there_is_room(small_disk: Path, tmp_path: Path) -> None:
    storage = small_disk / "storage"
    settings = Settings(storage=str(storage))
    definition = small_study(sweep={"trials": 1, "seed": 5, "concurrent": 1})
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        study, whole = (store.create_study(definition, reference_point=reference_point(definition)) for _ in range(2))
        with ExitStack() as stack:

            def fill(event: SweepEvent) -> None:
                if isinstance(event, EpochDone) and event.number == 1 and event.record.epoch == 1:
                    stack.enter_context(full(small_disk))

            paused = run_search(store, study.id, settings, progress=fill)
            assert paused.state is StudyState.PAUSED
            assert paused.reason is not None
            assert str(storage) in paused.reason
            assert "\n" not in paused.reason
            states = [trial.state for trial in store.trials(study.id)]
            assert states == [TrialState.COMPLETE, TrialState.QUEUED]
            # Nothing has changed: the next run pauses before it starts anything.
            assert run_search(store, study.id, settings).state is StudyState.PAUSED
            assert [trial.state for trial in store.trials(study.id)] == states
        assert run_search(store, study.id, settings).state is StudyState.FINISHED
        run_search(store, whole.id, settings)
        assert essence(store, study.id, storage) == essence(store, whole.id, storage)


@pytest.mark.long
def test_a_damaged_image_pauses_once_and_its_repair_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTIALNET_CACHE", str(tmp_path / "cache"))
    made.class_folders(tmp_path / "pets", ("train",), ("cat", "dog"), per_class=20)
    definition = small_study(
        data={"name": "image_folder", "folder": "pets", "image_size": 32, "augment": "none"},
        sweep={"trials": 3, "seed": 5, "concurrent": 1},
        baselines=[],
        training={"epochs": 1, "finetune_epochs": 1, "batch_size": 8},
    )
    settings = Settings(storage=str(tmp_path / "storage"), data_roots=(tmp_path,))
    image = tmp_path / "pets" / "train" / "cat" / "0003.png"
    whole = image.read_bytes()
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        study = store.create_study(definition, reference_point=reference_point(definition, 2))
        store.record_data(study.id, inspect_data(definition, settings.data_roots)[1])
        image.write_bytes(whole[:50])
        paused = run_search(store, study.id, settings)
        assert paused.state is StudyState.PAUSED
        assert paused.reason is not None
        assert str(image) in paused.reason
        assert [trial.state for trial in store.trials(study.id)] == [TrialState.QUEUED]
        image.write_bytes(whole)
        assert run_search(store, study.id, settings).state is StudyState.FINISHED
        assert [trial.state for trial in store.trials(study.id)] == [TrialState.COMPLETE] * 3


@pytest.mark.long
def test_a_deleted_database_ends_the_search_with_its_loss(tmp_path: Path) -> None:
    definition = small_study(sweep={"trials": 2, "seed": 5, "concurrent": 1})
    path = tmp_path / "nas.db"

    def delete(event: SweepEvent) -> None:
        if isinstance(event, EpochDone):
            path.unlink(missing_ok=True)

    with Store.open(f"sqlite:///{path}") as store:
        study = store.create_study(definition, reference_point=reference_point(definition))
        with pytest.raises(StoreLost, match=rf"{path} was deleted while it was in use; its content is saved in"):
            run_search(store, study.id, Settings(storage=str(tmp_path / "storage")), progress=delete)
    (saved,) = tmp_path.glob("nas.db.saved-*")
    with Store.open(f"sqlite:///{saved}") as store:
        assert store.trials(study.id, history=True)[0].history
