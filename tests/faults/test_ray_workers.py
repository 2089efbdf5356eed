"""kill -9 of the Ray process that runs a trial: the trial goes on, and the study becomes what it would have become."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nas.definition.study import StudyDefinition
from nas.settings import Settings
from nas.store import Store
from nas.study import Study, StudyState
from nas.sweep.deaths import MAX_DEATHS
from nas.sweep.progress import EpochDone, SweepEvent, TrialEnded, TrialPlaced, Warned
from nas.sweep.search import run_search
from nas.training.feasibility import reference_point
from nas.trial import TrialState
from tests.faults.studies import essence, small_study

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("ray_here")]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as opened:
        yield opened


def search(
    store: Store, folder: Path, definition: StudyDefinition, watch: Callable[[SweepEvent], None] | None = None
) -> Study:
    made = store.create_study(definition, reference_point=reference_point(definition))
    return run_search(store, made.id, Settings(storage=str(folder / "storage")), progress=watch)


class Killer:
    """Kills the process of a trial as soon as it has reported an epoch of a given number (0: when it starts)."""

    def __init__(self, *when: tuple[int, int], always: bool = False) -> None:
        self.left = set(when)
        self.always = always
        self.pids: dict[int, int] = {}
        self.killed: list[int] = []
        self.warnings: list[str] = []

    def __call__(self, event: SweepEvent) -> None:
        if isinstance(event, TrialPlaced):
            self.pids[event.number] = event.placement.pid
            self._strike(event.number, 0)
        elif isinstance(event, EpochDone):
            self._strike(event.number, event.record.epoch)
        elif isinstance(event, Warned):
            self.warnings.append(event.message)

    def _strike(self, number: int, epoch: int) -> None:
        if (number, epoch) in self.left:
            if not self.always:
                self.left.remove((number, epoch))
            self.killed.append(self.pids[number])
            os.kill(self.pids[number], signal.SIGKILL)


@pytest.mark.parametrize(
    ("trials", "kills"),
    [
        (1, [(0, 2), (1, 1)]),  # a baseline and a search, in the middle
        pytest.param(5, [(0, 2), (1, 0), (2, 1), (4, 3)], marks=pytest.mark.long),  # before the first, after the last
    ],
)
def test_a_killed_trial_goes_on_and_nothing_else_changes(store: Store, tmp_path: Path, trials, kills) -> None:
    killer = Killer(*kills)
    definition = small_study(sweep={"trials": trials, "seed": 5, "concurrent": 1})
    disturbed = search(store, tmp_path, definition, killer)
    whole = search(store, tmp_path, definition)
    assert len(killer.killed) == len(kills)
    told = [warning.split(" continues ")[0] for warning in killer.warnings]
    assert told == [f"trial {number}" for number, _ in kills]
    assert all("was ended by a signal" in warning for warning in killer.warnings)
    assert (disturbed.state, whole.state) == (StudyState.FINISHED, StudyState.FINISHED)
    found = essence(store, disturbed.id, tmp_path / "storage")
    assert {entry["trial"][2] for entry in found} == {"complete"}
    assert found == essence(store, whole.id, tmp_path / "storage")  # what TPE proposed after the kills, too
    epochs = [event.payload for event in store.events_after(disturbed.id, 0) if event.kind == "epoch"]
    assert len({(event["number"], event["epoch"]) for event in epochs}) == len(epochs) == 3 * (1 + trials)  # once each


@pytest.mark.long
def test_a_trial_that_always_kills_its_process_fails_with_the_cause(store: Store, tmp_path: Path) -> None:
    killer = Killer((1, 1), always=True)
    study = search(store, tmp_path, small_study(sweep={"trials": 2, "seed": 5, "concurrent": 1}), killer)
    good, killed, other = store.trials(study.id)
    assert study.state is StudyState.FINISHED
    assert (good.state, killed.state, other.state) == (TrialState.COMPLETE, TrialState.FAILED, TrialState.COMPLETE)
    assert len(killer.killed) == MAX_DEATHS
    assert "was ended by a signal" in killed.reason
    assert f"it died {MAX_DEATHS} times without an epoch between" in killed.reason


@pytest.mark.long
def test_the_death_of_a_process_between_two_trials_costs_none(store: Store, tmp_path: Path) -> None:
    """Processes are used again: the next trial meets the death of the one that it was to have."""
    pids: dict[int, int] = {}

    def kill_between(event: SweepEvent) -> None:
        if isinstance(event, TrialPlaced):
            pids[event.number] = event.placement.pid
        elif isinstance(event, TrialEnded) and event.number == 1:
            os.kill(pids[1], signal.SIGKILL)

    study = search(store, tmp_path, small_study(sweep={"trials": 3, "seed": 5, "concurrent": 1}), kill_between)
    assert {trial.state for trial in store.trials(study.id)} == {TrialState.COMPLETE}
    assert pids[1] not in (pids[2], pids[3])
