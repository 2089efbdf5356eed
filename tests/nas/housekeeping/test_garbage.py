"""What `nas gc` takes is what nothing needs, and never what a search that has not ended may need."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest

from nas.artifacts import Artifacts
from nas.candidate import Artifact, Candidate
from nas.definition.requested_training import parse_training
from nas.errors import ConflictError, NotFoundError
from nas.finalist import Finalist, Role
from nas.housekeeping.garbage import Kind, collect, find_garbage
from nas.jobs import JobKind, JobState
from nas.metrics import Evaluation, EvaluationKind, Measurement
from nas.store import Store
from nas.study import Study, StudyState
from nas.trainings import Training, TrainingResult, TrainingState
from nas.trial import TrialKind, TrialState
from partialnet.architecture import Architecture
from tests.nas.store.databases import migrated_file, postgres, store, store_url
from tests.nas.store.makers import definition

__all__ = ["migrated_file", "postgres", "store", "store_url"]

REFERENCE = {"top1": 0.0, "macs": 100.0}


class Garden:
    """A study with files as a search leaves them."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.artifacts = Artifacts(str(folder))
        self.study = store.create_study(definition(), reference_point=REFERENCE)

    def file(self, uri: str, *, old: bool = True, size: int = 10) -> str:
        path = self.folder / uri
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        if old:
            os.utime(path, (time.time() - 7200, time.time() - 7200))
        return uri

    def trial(
        self, top1: float, macs: float, kind: TrialKind = TrialKind.SEARCH, finalist: Finalist | None = None
    ) -> int:
        if finalist is None:
            sampled = {"ratio": 0.25} if kind is TrialKind.BASELINE else {"target": 4.0}
            [spec] = self.store.add_trials(self.study.id, [(kind, sampled)])
        else:
            [spec] = self.store.add_finalists(self.study.id, [finalist])
        number = spec.number
        uri = f"studies/{self.study.id}/trials/{number}/weights-{number}.safetensors"
        local = self.folder.parent / "weights"
        local.write_bytes(bytes(100 + number))
        weights = self.artifacts.put(local, uri, "weights")
        evaluation = EvaluationKind.FINETUNED if finalist is None else EvaluationKind.RETRAINED
        settled = Candidate(
            Architecture("net", {"number": number}, {}), (), (Evaluation(evaluation, "top1", top1),),
            (Measurement("macs", macs, {}, "fvcore"),), weights,
        )  # fmt: skip
        self.store.start_trial(self.study.id, number)
        self.store.end_trial(self.study.id, number, TrialState.COMPLETE, candidates=[settled])
        return number

    def places(self) -> set[str]:
        """All files of the storage."""
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}


def training(store: Store, state: TrainingState) -> Training:
    """Return a training that has gone as far as ``state``."""
    made = store.submit_training(parse_training({"package": "mine", "data": {"name": "digits"}}))
    if state is TrainingState.QUEUED:
        return made
    job = store.lease_job("w", kinds=[JobKind.TRAIN], seconds=60.0)
    assert job is not None
    fenced = store.fenced(job.id, job.epoch)
    if state is TrainingState.FINISHED:
        stored = Artifact(f"{made.folder}/{job.id}-1.zip", "0", 10, "package")
        fenced.finish_training(made.id, TrainingResult(stored), [])
        fenced.finish_job(job.id, job.epoch, JobState.FINISHED, result={})
    elif state is TrainingState.FAILED:
        fenced.finish_job(job.id, job.epoch, JobState.FAILED, error="no data")
    found = store.training(made.id)
    assert found.state is state
    return found


@pytest.fixture
def garden(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Garden:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))  # what others have left here is not of this test
    return Garden(store, tmp_path / "storage")


def test_weights_of_fronts_baselines_final_comparison_and_pins_are_kept(garden: Garden) -> None:
    store, study = garden.store, garden.study
    best = garden.trial(0.9, 50)
    cheap = garden.trial(0.5, 10)
    dominated = garden.trial(0.4, 60)
    baseline = garden.trial(0.1, 90, TrialKind.BASELINE)
    retrained = garden.trial(0.1, 90, finalist=Finalist(Role.UNIFORM, 0, None, 9.0, (3,), ratio=0.25))
    pinned, exported = garden.trial(0.3, 70), garden.trial(0.3, 71)
    store.pin(study.id, pinned, 0)
    store.enqueue_job(JobKind.EXPORT, {"number": exported}, study_id=study.id)
    kept = {row.number: row.kept for row in store.stored_weights(study.id)}
    assert kept == {
        best: "front", cheap: "front", dominated: None, baseline: "baseline", retrained: "final comparison",
        pinned: "pinned", exported: "being exported",
    }  # fmt: skip
    store.set_study_state(study.id, StudyState.FINISHED)
    plan = find_garbage(store, garden.artifacts)
    assert [(item.kind, item.size) for item in plan.items] == [(Kind.WEIGHTS, 100 + dominated)]
    assert Counter(plan.kept) == {"front": 2, "baseline": 1, "final comparison": 1, "pinned": 1, "being exported": 1}
    before = garden.places()
    assert collect(store, garden.artifacts, plan.items) == list(plan.items)
    assert before - garden.places() == {plan.items[0].place}
    assert store.trial(study.id, dominated).candidates[0].weights is None
    assert store.trial(study.id, best).candidates[0].weights is not None
    assert find_garbage(store, garden.artifacts).items == ()
    store.pin(study.id, pinned, 0, pinned=False)
    assert store.pins(study.id) == frozenset()
    assert [item.kind for item in find_garbage(store, garden.artifacts).items] == [Kind.WEIGHTS]


def test_the_front_of_the_networks_that_keep_the_constraints_is_kept(garden: Garden) -> None:
    store = garden.store
    garden.study = store.create_study(definition("limited", constraints=["macs <= 30"]), reference_point=REFERENCE)
    outside, inside, worse = garden.trial(0.9, 50), garden.trial(0.5, 20), garden.trial(0.4, 25)
    kept = {row.number: row.kept for row in store.stored_weights(garden.study.id)}
    assert kept == {outside: "front", inside: "front", worse: None}
    cheaper = garden.trial(0.95, 29)
    kept = {row.number: row.kept for row in store.stored_weights(garden.study.id)}
    assert kept == {outside: None, inside: "front", worse: None, cheaper: "front"}
    garden.study = store.create_study(definition("reversed", constraints=["macs >= 40"]), reference_point=REFERENCE)
    free, bound = garden.trial(0.9, 20), garden.trial(0.5, 50)
    kept = {row.number: row.kept for row in store.stored_weights(garden.study.id)}
    assert kept == {free: "front", bound: "front"}


def test_files_without_a_use_are_found_by_kind(garden: Garden) -> None:
    store, study = garden.store, garden.study
    garden.trial(0.9, 50)
    store.add_trials(study.id, [(TrialKind.SEARCH, {})] * 2)
    store.end_trial(study.id, 2, TrialState.FAILED, reason="it diverged")
    ended, waits = (garden.file(f"studies/{study.id}/checkpoints/{number}.tar") for number in (2, 1))
    orphan = garden.file(f"studies/{study.id}/trials/2/weights-x.safetensors")
    half = garden.file(f"studies/{study.id}/trials/2/weights-y.safetensors.00ff.partial")
    young = garden.file(f"exports/{study.id}/0/new.zip", old=False)
    foreign = garden.file("exports/00000000-0000-0000-0000-000000000000/0/a.zip")
    job = store.enqueue_job(JobKind.EXPORT, {"number": 0}, study_id=study.id)
    held = store.lease_job("w", kinds=[JobKind.EXPORT], seconds=60.0)
    assert held is not None
    export = garden.file(f"exports/{study.id}/0/{job.id}-1.zip")
    store.finish_job(held.id, held.epoch, JobState.FINISHED, result={"uri": export, "sha256": "0", "size": 10})
    store.set_study_state(study.id, StudyState.STOPPED, reason="stopped on request")
    plan = find_garbage(store, garden.artifacts)
    assert {item.place: item.kind for item in plan.items} == {
        ended: Kind.CHECKPOINT, orphan: Kind.UNREFERENCED, half: Kind.PARTIAL, foreign: Kind.FOREIGN,
    }  # fmt: skip
    assert plan.size((Kind.CHECKPOINT, Kind.PARTIAL)) == 20
    assert plan.used[study.id] == sum((garden.folder / name).stat().st_size for name in garden.places() - {foreign})
    collect(store, garden.artifacts, [item for item in plan.items if item.kind is not Kind.FOREIGN])
    assert garden.places() >= {waits, young, foreign, export}
    assert not garden.places() & {ended, orphan, half}
    only = find_garbage(store, garden.artifacts, store.study(study.id))
    assert only.items == ()


@pytest.mark.parametrize("state", [StudyState.QUEUED, StudyState.RUNNING, StudyState.PAUSED])
def test_a_study_that_has_not_ended_is_left_alone(garden: Garden, state: StudyState) -> None:
    garden.trial(0.9, 50)
    garden.trial(0.4, 60)
    garden.file(f"studies/{garden.study.id}/trials/9/weights-x.safetensors")
    garden.store.set_study_state(garden.study.id, state)
    plan = find_garbage(garden.store, garden.artifacts)
    assert (plan.items, plan.active) == ((), (garden.study.name,))
    with pytest.raises(ConflictError, match="so its weights are kept"):
        garden.store.forget_weights(garden.study.id, set())


def test_what_has_come_into_use_since_the_plan_is_left(garden: Garden) -> None:
    store, study = garden.store, garden.study
    garden.trial(0.9, 50)
    number = garden.trial(0.4, 60)
    store.set_study_state(study.id, StudyState.FINISHED)
    plan = find_garbage(store, garden.artifacts)
    store.pin(study.id, number, 0)
    assert collect(store, garden.artifacts, plan.items) == []
    store.pin(study.id, number, 0, pinned=False)
    store.set_study_state(study.id, StudyState.RUNNING)
    assert collect(store, garden.artifacts, plan.items) == []
    assert len(garden.places()) == 2


def test_networks_that_share_a_file_keep_it_together(garden: Garden) -> None:
    store, study = garden.store, garden.study
    garden.trial(0.9, 50)
    weights = store.trial(study.id, 0).candidates[0].weights
    store.add_trials(study.id, [(TrialKind.SEARCH, {})])
    store.start_trial(study.id, 1)
    worse = Candidate(
        Architecture("net", {"number": 7}, {}), (), (Evaluation(EvaluationKind.FINETUNED, "top1", 0.1),),
        (Measurement("macs", 99.0, {}, "fvcore"),), weights,
    )  # fmt: skip
    store.end_trial(study.id, 1, TrialState.COMPLETE, candidates=[worse])
    store.set_study_state(study.id, StudyState.FINISHED)
    assert find_garbage(store, garden.artifacts).items == ()
    assert store.forget_weights(study.id, {weights.uri} if weights else set()) == []


def test_a_temporary_folder_of_a_dead_process_is_found_and_deleted(garden: Garden, tmp_path: Path) -> None:
    left = tmp_path / "tmp" / "nas-weights-abcd1234"
    left.mkdir()
    (left / "weights.safetensors").write_bytes(bytes(1000))
    plan = find_garbage(garden.store, garden.artifacts)
    [item] = plan.items
    assert (item.kind, item.place) == (Kind.SCRATCH, str(left))
    assert item.size >= 1000
    assert left.exists()
    assert collect(garden.store, garden.artifacts, plan.items) == [item]
    assert not left.exists()


def test_pins_name_what_does_not_exist(garden: Garden) -> None:
    with pytest.raises(NotFoundError, match="trial 3 of study digits has no network 0"):
        garden.store.pin(garden.study.id, 3, 0)
    made: Study = garden.study
    garden.trial(0.9, 50)
    with pytest.raises(NotFoundError, match="has no network 1"):
        garden.store.pin(made.id, 0, 1)


CHECKPOINT = "checkpoints/epoch-00001-step-000000-0123456789abcdef.pt"


@pytest.mark.parametrize(
    ("state", "taken"),
    [
        (TrainingState.FINISHED, {CHECKPOINT: Kind.CHECKPOINT, "ray/checkpoint_1/" + CHECKPOINT: Kind.CHECKPOINT,
                                  "stale-2.zip": Kind.UNREFERENCED, "a.zip.00ff.partial": Kind.PARTIAL}),
        (TrainingState.FAILED, {"stale-2.zip": Kind.UNREFERENCED, "a.zip.00ff.partial": Kind.PARTIAL}),
        (TrainingState.RUNNING, {}),
        (TrainingState.QUEUED, {}),
    ],
)  # fmt: skip
def test_a_training_keeps_what_its_state_needs(
    garden: Garden, state: TrainingState, taken: dict[str, Kind]
) -> None:
    store = garden.store
    found = training(store, state)
    names = [CHECKPOINT, "ray/checkpoint_1/" + CHECKPOINT, "stale-2.zip", "a.zip.00ff.partial", "events/curve",
             "training.json", f"{found.job_id}-1.zip" if state is TrainingState.FINISHED else "start.safetensors"]
    for name in names:
        garden.file(f"{found.folder}/{name}")
    garden.file(f"{found.folder}/young.zip", old=False)
    plan = find_garbage(store, garden.artifacts)
    assert {item.place: item.kind for item in plan.items} == {
        f"{found.folder}/{name}": kind for name, kind in taken.items()
    }
    assert all(item.training_id == found.id for item in plan.items)
    assert find_garbage(store, garden.artifacts, only=garden.study).items == ()
    collect(store, garden.artifacts, plan.items)
    left = {*names, "young.zip"} - taken.keys()
    assert garden.places() == {f"{found.folder}/{name}" for name in left}


def test_files_of_a_training_that_was_deleted_are_those_of_an_unknown_one(garden: Garden) -> None:
    found = training(garden.store, TrainingState.FAILED)
    left = garden.file(f"{found.folder}/{CHECKPOINT}")
    garden.store.delete_training(found.id)
    plan = find_garbage(garden.store, garden.artifacts)
    assert [(item.place, item.kind, item.training_id) for item in plan.items] == [(left, Kind.FOREIGN, found.id)]
    collect(garden.store, garden.artifacts, plan.items)
    assert garden.places() == set()


def test_checkpoints_of_a_training_that_resumed_since_the_plan_are_left(garden: Garden) -> None:
    store = garden.store
    found = training(store, TrainingState.FAILED)
    half = garden.file(f"{found.folder}/a.zip.00ff.partial")
    plan = find_garbage(store, garden.artifacts)
    assert [item.place for item in plan.items] == [half]
    store.resume_training(found.id)
    assert collect(store, garden.artifacts, plan.items) == []
    assert garden.places() == {half}
