"""Pause, stop and extension of real searches, requested through the store as from another process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nas.artifacts import Artifacts
from nas.definition.study import StudyDefinition
from nas.errors import ConflictError
from nas.jobs import JobState
from nas.lifecycle import Action
from nas.settings import Settings
from nas.store import Store
from nas.study import PAUSED_ON_REQUEST, STOPPED_ON_REQUEST, Study, StudyState
from nas.sweep.progress import EpochDone, SweepEvent
from nas.sweep.search import run_search
from nas.training.feasibility import reference_point
from nas.trial import TrialKind, TrialState
from nas.worker.lease import held_search
from tests.faults.studies import essence, small_study
from tests.nas.sweep.test_search import check_undisturbed

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

OBEYS_SECONDS = 10.0
SHORT = {"epochs": 1, "finetune_epochs": 1, "batch_size": 30}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as opened:
        yield opened


class Searches:
    """Searches under a lease in this process, as `nas run` holds one, and requests from elsewhere."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.settings = Settings(storage=str(folder / "storage"))

    def create(self, **changes: Any) -> Study:
        definition: StudyDefinition = small_study(**changes)
        return self.store.create_study(definition, reference_point=reference_point(definition))

    def run(self, study: Study, watch: Any = None) -> Study:
        with held_search(self.store, study.id) as held:
            return run_search(held, study.id, self.settings, progress=watch)

    def run_until(self, study: Study, action: Action, epoch: tuple[int, int]) -> tuple[Study, float]:
        """Search until another thread's request at an epoch of a trial; return the study and the time until it obeyed.
        """
        asked: list[float] = []
        request = self.store.pause if action is Action.PAUSE else self.store.stop
        threads: list[threading.Thread] = []

        def watch(event: SweepEvent) -> None:
            if isinstance(event, EpochDone) and (event.number, event.record.epoch) == epoch and not asked:
                asked.append(time.monotonic())
                threads.append(threading.Thread(target=request, args=(study.id,)))
                threads[0].start()

        ended = self.run(study, watch)
        took = time.monotonic() - asked[0]
        threads[0].join()
        return ended, took

    def checkpoints(self, study: Study) -> list[str]:
        return Artifacts(self.settings.storage).names(f"studies/{study.id}/checkpoints")

    def essence(self, study: Study) -> list[dict[str, Any]]:
        return essence(self.store, study.id, Path(self.settings.storage))


@pytest.fixture
def searches(store: Store, tmp_path: Path, ray_here: None) -> Searches:
    return Searches(store, tmp_path)


def test_a_pause_keeps_checkpoints_and_the_search_goes_on_from_them(searches: Searches) -> None:
    long = {"training": {"epochs": 20, "finetune_epochs": 1, "batch_size": 30}}
    study = searches.create(sweep={"trials": 1, "seed": 5, "concurrent": 1}, **long)
    paused, seconds = searches.run_until(study, Action.PAUSE, (1, 2))
    assert (paused.state, paused.reason) == (StudyState.PAUSED, PAUSED_ON_REQUEST)
    assert seconds < OBEYS_SECONDS
    assert [job.state for job in searches.store.jobs(study.id)] == [JobState.CANCELLED]
    complete, waiting = searches.store.trials(study.id, history=True)
    assert (complete.state, waiting.state) == (TrialState.COMPLETE, TrialState.QUEUED)
    assert len(waiting.history) >= 2
    assert searches.checkpoints(study) == ["1.tar"]
    assert searches.run(study).state is StudyState.FINISHED
    epochs = [event.payload for event in searches.store.events_after(study.id, 0) if event.kind == "epoch"]
    assert len({(event["number"], event["epoch"]) for event in epochs}) == len(epochs)  # none was repeated
    for trial in searches.store.trials(study.id, history=True):
        check_undisturbed(study.definition, trial, Path(searches.settings.storage))


def test_a_stop_ends_every_trial_and_keeps_the_results(searches: Searches) -> None:
    study = searches.create(
        sweep={"trials": 3, "seed": 5, "concurrent": 1},
        training={"epochs": 20, "finetune_epochs": 1, "batch_size": 30},
        final={"candidates": 1, "seeds": 1, "random": 0},
    )
    stopped, seconds = searches.run_until(study, Action.STOP, (1, 2))
    assert (stopped.state, stopped.reason) == (StudyState.STOPPED, STOPPED_ON_REQUEST)
    assert seconds < OBEYS_SECONDS
    complete, cut = searches.store.trials(study.id)
    assert (complete.state, cut.state, cut.reason) == (TrialState.COMPLETE, TrialState.CANCELLED, STOPPED_ON_REQUEST)
    assert searches.checkpoints(study) == []
    assert any("1 complete" in sentence for sentence in stopped.report)
    with pytest.raises(ConflictError, match="is stopped: it was ended for good"):
        searches.run(stopped)


@pytest.mark.long
def test_an_extended_study_is_what_a_longer_one_would_have_been(searches: Searches) -> None:
    sweep = {"seed": 5, "concurrent": 1, "searcher": "random"}
    study = searches.create(sweep={"trials": 1, **sweep}, training=SHORT)
    searches.run(study)
    with pytest.raises(ConflictError, match="study faults is finished; see"):
        searches.run(study)
    searches.store.extend(study.id, 2, queue=False)
    extended = searches.run(study)
    assert (extended.state, extended.search_trials) == (StudyState.FINISHED, 3)
    assert any("(3 searches, 1 baseline)" in sentence for sentence in extended.report)
    longer = searches.create(sweep={"trials": 3, **sweep}, training=SHORT)
    assert searches.run(longer).state is StudyState.FINISHED
    assert searches.essence(study) == searches.essence(longer)


@pytest.mark.long
def test_an_extension_compares_what_it_has_found_anew(searches: Searches) -> None:
    """The trainings of the first comparison stay, and those that the longer search calls for are added."""
    sweep = {"trials": 1, "seed": 5, "concurrent": 1, "searcher": "random"}
    final = {"candidates": 2, "seeds": 2, "random": 0}
    study = searches.create(sweep=sweep, training=SHORT, final=final, baselines=[])
    searches.run(study)
    before = searches.store.trials(study.id)
    searches.store.extend(study.id, 1, queue=False)
    assert searches.run(study).state is StudyState.FINISHED
    after = searches.store.trials(study.id)
    assert after[: len(before)] == [
        trial if trial.kind is TrialKind.RETRAIN else after[trial.number] for trial in before
    ]
    assert {trial.state for trial in after} == {TrialState.COMPLETE}
    assert after[len(before)].kind is TrialKind.SEARCH
    compared = [trial.finalist for trial in after if trial.finalist is not None]
    pairs = [(finalist, finalist.seed_index) for finalist in compared]
    assert len(set(pairs)) == len(pairs)  # none is trained twice
    for finalist in set(compared):
        assert {(finalist, seed) for seed in range(2)} <= set(pairs)
