"""``nas run``: a study that a fault pauses, one whose trials mostly failed, and failed trials that run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.store import Store
from nas.study import StudyState
from nas.trial import TrialKind, TrialState
from tests.commands import Said
from tests.disks import full, small_disk
from tests.nas.store.makers import candidate, epoch
from tests.nas.tiny import tiny

__all__ = ["small_disk"]
DIVERGED = "the training diverged: loss is nan at step 3; lower the learning rate"


def study(folder: Path, *failed: str) -> Store:
    """Return a store with a paused study whose trials have ended: two complete ones, and others that failed."""
    store = Store.open(f"sqlite:///{folder / 'nas.db'}")
    definition = tiny(baselines=["1/4"], sweep={"trials": 1 + len(failed), "seed": 3})
    made = store.create_study(definition, reference_point={"top1": 0.0, "macs": 1e6})
    kinds = [(TrialKind.BASELINE, {"ratio": 0.25}), *[(TrialKind.SEARCH, {"target": 4.0})] * (1 + len(failed))]
    for spec, reason in zip(store.add_trials(made.id, kinds), (None, None, *failed), strict=True):
        store.start_trial(made.id, spec.number)
        store.record_epoch(made.id, spec.number, epoch(1))
        state = TrialState.COMPLETE if reason is None else TrialState.FAILED
        networks = [] if reason else [candidate(3 + spec.number, weights=None)]
        store.end_trial(made.id, spec.number, state, candidates=networks, reason=reason)
    store.set_study_state(made.id, StudyState.PAUSED)
    return store


def test_a_full_storage_is_one_sentence_and_no_success(nas, tmp_path: Path, small_disk: Path) -> None:
    with study(tmp_path, DIVERGED) as store:
        with full(small_disk):
            code, _, err = nas("run", "--resume", "latest", "--storage", small_disk, cwd=tmp_path)
        assert code == 1
        (sentence,) = err.splitlines()
        assert sentence.startswith(f"nas: study tiny is paused: storage {small_disk} has 0.0 MiB free, but needs")
        assert sentence.endswith("; when that is mended, continue with: nas run --resume tiny")
        found = store.study("tiny")
        assert found.state is StudyState.PAUSED
        assert found.reason is not None
        assert found.reason in sentence
        assert nas("run", "--resume", "latest", "--storage", small_disk, cwd=tmp_path)[0] == 0
        assert store.study("tiny").state is StudyState.FINISHED


def test_a_study_whose_trials_mostly_failed_is_no_success(nas, tmp_path: Path) -> None:
    with study(tmp_path, DIVERGED, DIVERGED, "other") as store:
        code, out, err = nas("run", "--resume", "latest", "--storage", "storage", cwd=tmp_path)
        assert code == 1
        said = f"most trials failed, 3 of 5; 2 of them with: {DIVERGED}"
        again = "to run them again: nas run --resume tiny --retry-failed"
        assert err.splitlines()[-1] == f"nas: study tiny: {said}; {again}"
        assert f"{said[0].upper()}{said[1:]}." in out
        found = store.study("tiny")
        assert (found.state, found.reason) == (StudyState.FINISHED, said)
        code, _, err = nas("run", "--resume", "latest", cwd=tmp_path)
        assert (code, "study tiny is finished; see" in err) == (2, True)


def test_failed_trials_of_a_finished_study_run_again(nas, tmp_path: Path, small_disk: Path) -> None:
    with study(tmp_path, DIVERGED, "other") as store:
        store.set_study_state(store.study("tiny").id, StudyState.FINISHED)
        with full(small_disk):  # so that no search starts
            again: Said = nas("run", "--resume", "tiny", "--retry-failed", "--storage", small_disk, cwd=tmp_path)
        assert again[0] == 1
        assert again[2].splitlines()[0] == "2 failed trials will run again"
        states = [trial.state for trial in store.trials(store.study("tiny").id)]
        assert states == [TrialState.COMPLETE] * 2 + [TrialState.QUEUED] * 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--retry-failed"], "--retry-failed works only with --resume STUDY"),
        (["--resume", "tiny", "--retry-failed"], "study tiny has no failed trials to run again"),
    ],
)
def test_there_must_be_failed_trials_to_run_again(nas, tmp_path: Path, arguments: list[str], says: str) -> None:
    study(tmp_path).close()
    code, _, err = nas("run", *arguments, cwd=tmp_path)
    assert (code, err) == (2, f"nas: {says}\n")
