"""What the display shows, as data; then that it draws at all, on terminals and elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from nas.commands.display import SweepDisplay, SweepState, describe_trial
from nas.finalist import Finalist, Role
from nas.sweep.progress import EpochDone, FinalStarted, SearchStarted, Tick, TrialEnded, TrialStarted
from nas.trial import EpochRecord, TrialKind, TrialSpec, TrialState
from tests.nas.strategies import make_candidate, make_definition

SEARCH = TrialSpec(1, TrialKind.SEARCH, {"target": 3.2}, 1)
BASELINE = TrialSpec(0, TrialKind.BASELINE, {"ratio": 0.25}, 1)
FOUR_EPOCHS = make_definition(training={"epochs": 3, "finetune_epochs": 1})
EVENTS = [
    SearchStarted(definition=FOUR_EPOCHS, total=3),
    TrialStarted(BASELINE, total=3),
    TrialStarted(SEARCH, total=3),
    EpochDone(
        SEARCH, total=3,
        record=EpochRecord(2, "gates", {"loss": 1.25, "top1": 0.5, "cost": 1500.0, "target": 1400.0}, {}),
    ),
    TrialEnded(
        BASELINE, TrialState.COMPLETE, candidates=(make_candidate(0.9, 2e6),),
        ended=1, total=3,
    ),
]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_state_sums_up_the_events() -> None:
    clock = Clock()
    state = SweepState(clock)
    for event in EVENTS:
        state.update(event)
        clock.now += 10
    assert (state.ended, state.total, state.failed, state.best) == (1, 3, 0, 0.9)
    assert list(state.running) == [1]
    assert state.done == 1.5  # one trial, and two of four epochs
    assert state.elapsed == 50
    assert state.remaining == pytest.approx(50)  # as many trials again


def test_until_the_first_epoch_it_says_that_ray_starts() -> None:
    state = SweepState(Clock())
    notes = []
    for event in EVENTS:
        state.update(event)
        notes.append((type(event), state.note))
    first = [kind for kind, _ in notes].index(EpochDone)
    assert all("starting Ray" in note for _, note in notes[:first])
    assert not any(note for _, note in notes[first:])


def test_time_before_a_resumed_search_does_not_count() -> None:
    clock = Clock()
    state = SweepState(clock)
    state.update(SearchStarted(definition=make_definition(), ended=8, total=10))
    clock.now = 30
    assert state.remaining is None
    state.update(TrialEnded(SEARCH, state=TrialState.FAILED, ended=9, total=10))
    assert (state.remaining, state.failed) == (30, 1)


def test_without_a_terminal_there_are_plain_lines() -> None:
    out = io.StringIO()
    with SweepDisplay(Console(file=out, width=100)) as display:
        for event in EVENTS:
            display(event)
        display(TrialEnded(SEARCH, TrialState.FAILED, reason="it diverged"))
    lines = out.getvalue().splitlines()
    assert lines[0] == "[0/3] trial 0 (uniform 1/4) started"
    assert lines[2].startswith("[1/3] trial 0 (uniform 1/4) complete: top-1 90.00 %, 2.00 M multiply-adds")
    assert "trial 1 (target 3.2) failed: it diverged" in lines[3]
    assert "\x1b" not in out.getvalue()


def test_on_a_terminal_there_is_a_table_with_a_bar() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=110, color_system=None)
    with SweepDisplay(console) as display:
        for event in EVENTS:
            display(event)
        shown = out.getvalue()
    for text in ("gates", "2/4", "1.250", "50.00 %", "1.50 k", "1.40 k", "1/3", "best top-1 90.00 %"):
        assert text in shown


def test_trials_are_described_by_what_they_try() -> None:
    uniform = Finalist(Role.UNIFORM, 5, None, 9.0, (3,), ratio=0.2421875, seed_index=1)
    assert describe_trial(TrialSpec(0, TrialKind.BASELINE, {"ratio": 0.125}, 1)) == "uniform 1/8"
    assert describe_trial(TrialSpec(1, TrialKind.SEARCH, {"target": 3.14159}, 1)) == "target 3.14"
    assert describe_trial(TrialSpec(2, TrialKind.RETRAIN, {}, 1)) == "retrain"
    assert describe_trial(TrialSpec(3, TrialKind.RETRAIN, {}, 1, uniform)) == "uniform 0.242 retrained, seed 2"


def test_the_final_comparison_counts_with_its_own_epochs_and_may_be_smaller_than_planned() -> None:
    state = SweepState(clock=lambda: 0.0)
    definition = make_definition(final={"epochs": 4}, training={"epochs": 9, "finetune_epochs": 9})
    state.update(SearchStarted(definition=definition, total=43))
    state.update(FinalStarted(message="final comparison", ended=19, total=25))
    assert (state.ended, state.total, state.note) == (19, 25, "final comparison")
    spec = TrialSpec(20, TrialKind.RETRAIN, {}, 1, Finalist(Role.RANDOM, 5, None, 9.0, (3,), draw=0))
    state.update(TrialStarted(spec, ended=19, total=25))
    state.update(EpochDone(spec, record=EpochRecord(1, "train", {}, {}), ended=19, total=25))
    assert state.done == 19.25
    state.update(Tick())  # says nothing of the counts
    assert state.total == 25
