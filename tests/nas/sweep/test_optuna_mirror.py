"""Mirrors of studies that Optuna itself opens and draws, in a database and in a journal file."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState as OptunaState

from nas.errors import ConflictError, InputError
from nas.metrics import Measurement
from nas.store import Store
from nas.study import Study, StudyState
from nas.sweep.optuna_mirror import mirror, open_storage
from nas.trial import EpochRecord, Fidelity, TrialKind, TrialState
from tests.nas.strategies import make_definition, make_trial

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
OBJECTIVES = ("top1", "macs")


def study(**changes) -> Study:
    return Study("id-1", "digits", StudyState.FINISHED, make_definition(**changes), {"top1": 0.0}, START, START)


def trials() -> list:
    parameters = [{"target": 2.0 + n, "complexity_exponent": 0.5, "penalty": 0.5 + 0.1 * n} for n in range(6)]
    made = [
        make_trial(0, (0.5, 100.0), kind=TrialKind.BASELINE, parameters={"ratio": 0.25}),
        *(make_trial(n, (0.5 + 0.05 * n, 100.0 * n), parameters=parameters[n]) for n in range(1, 4)),
        replace(make_trial(4, parameters=parameters[4]), state=TrialState.PRUNED, fidelity=Fidelity(2, 30)),
        make_trial(5, parameters=parameters[5], reason="the loss is not finite"),
        make_trial(6, parameters=parameters[1], state=TrialState.RUNNING),
    ]
    history = tuple(EpochRecord(epoch, "gates", {"top1": 0.1 * epoch}, {}) for epoch in (1, 2))
    return [
        replace(t, started_at=START, ended_at=START + timedelta(minutes=1 + t.number), history=history) for t in made
    ]


@pytest.fixture(params=["database", "journal"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/optuna.db" if request.param == "database" else str(tmp_path / "optuna.log")


def opened(place: str, name: str = "digits") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=open_storage(place))


def test_optuna_opens_what_the_study_holds(place) -> None:
    done = mirror(study(constraints=["macs <= 250"]), trials(), open_storage(place), "digits", OBJECTIVES)
    assert (done.trials, done.added, done.rewritten) == (5, 5, False)
    found = opened(place)
    assert [direction.name for direction in found.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert [trial.user_attrs["trial"] for trial in found.trials] == [1, 2, 3, 4, 5]
    states = [OptunaState.COMPLETE] * 3 + [OptunaState.PRUNED, OptunaState.FAIL]
    assert [trial.state for trial in found.trials] == states
    first, *_, last = found.trials
    assert first.values == pytest.approx([0.55, 100.0])
    assert first.params == {"target": 3.0, "complexity_exponent": 0.5, "penalty": 0.6}
    assert first.distributions["target"] == optuna.distributions.FloatDistribution(2.0, 8.0, log=True)
    assert first.duration == timedelta(minutes=2)
    assert first.datetime_start.astimezone(UTC) == START
    assert first.user_attrs["macs"] == 100.0
    assert last.user_attrs["reason"] == "the loss is not finite"
    assert found.trials[3].user_attrs["epochs_trained"] == 2
    assert found.user_attrs["baselines"] == {"uniform 1/4": {"top1": 0.5, "macs": 100.0}}
    assert [max(trial.constraints.values()) > 0 for trial in found.trials[:3]] == [False, False, True]
    assert [trial.user_attrs["trial"] for trial in found.best_trials] == [1, 2]


def test_optuna_draws_it(place) -> None:
    mirror(study(), trials(), open_storage(place), "digits", OBJECTIVES)
    mirror(study(), trials(), open_storage(place), "top1", ("top1",))
    draw = optuna.visualization
    both, single = opened(place), opened(place, "top1")
    figures = [
        draw.plot_pareto_front(both),
        draw.plot_slice(both, target=lambda trial: trial.values[0]),
        draw.plot_parallel_coordinate(both, target=lambda trial: trial.values[0]),
        draw.plot_timeline(both),
        draw.plot_optimization_history(single),
        draw.plot_contour(single, params=["target", "penalty"]),
        draw.plot_intermediate_values(single),
        draw.plot_edf(single),
    ]
    assert all(len(figure.data) for figure in figures)


def test_a_single_objective_has_its_epochs(place) -> None:
    mirror(study(), trials(), open_storage(place), "digits", ("top1",))
    found = opened(place).trials
    assert found[0].intermediate_values == {1: 0.1, 2: 0.2}
    assert (found[3].state, found[3].values) == (OptunaState.PRUNED, [0.2])


def test_a_repeated_call_adds_what_is_new_and_repeats_nothing(place) -> None:
    every = trials()
    assert mirror(study(), every[:3], open_storage(place), "digits", OBJECTIVES).added == 2
    number = opened(place)._study_id
    second = mirror(study(), every, open_storage(place), "digits", OBJECTIVES)
    third = mirror(study(), every, open_storage(place), "digits", OBJECTIVES)
    assert [(done.trials, done.added, done.rewritten) for done in (second, third)] == [(5, 3, False), (5, 0, False)]
    assert opened(place)._study_id == number
    assert len(opened(place).trials) == 5


def test_what_has_changed_is_written_anew(place) -> None:
    every = trials()
    mirror(study(), every, open_storage(place), "digits", OBJECTIVES)
    candidate = every[1].candidates[0]
    measured = replace(candidate, measurements=(*candidate.measurements, Measurement("latency_ms", 3.5)))
    every[1] = replace(every[1], candidates=(measured,))
    done = mirror(study(), every, open_storage(place), "digits", OBJECTIVES)
    assert (done.trials, done.added, done.rewritten) == (5, 5, True)
    assert opened(place).trials[0].user_attrs["latency_ms"] == 3.5
    assert mirror(study(), every, open_storage(place), "digits", ("top1",)).rewritten


def test_a_study_of_somebody_else_stays(place) -> None:
    optuna.create_study(study_name="digits", storage=open_storage(place))
    with pytest.raises(ConflictError, match="no mirror of digits; give another --name"):
        mirror(study(), trials(), open_storage(place), "digits", OBJECTIVES)
    assert opened(place).trials == []


def test_our_own_database_is_refused(tmp_path: Path) -> None:
    """Its tables have the names of Optuna's."""
    with Store.open(f"sqlite:///{tmp_path}/nas.db"):
        pass
    before = (tmp_path / "nas.db").read_bytes()
    with pytest.raises(InputError, match="belongs to another program"):
        open_storage(f"sqlite:///{tmp_path}/nas.db")
    assert (tmp_path / "nas.db").read_bytes() == before


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("{}/optuna.db", "write sqlite:///"),
        ("{}/no/optuna.log", "the folder .*/no does not exist"),
        ("{}/notes.txt", "no journal file of Optuna"),
        ("nonsense://x", "Optuna cannot open it"),
        ("postgresql://me:secret@127.0.0.1:1/x", r"me:\*\*\*@127.0.0.1:1/x: Optuna cannot open it"),
    ],
)
def test_a_storage_that_cannot_be_opened(tmp_path: Path, given, fault) -> None:
    (tmp_path / "notes.txt").write_text("my notes\n", encoding="utf-8")
    with pytest.raises(InputError, match=fault) as raised:
        open_storage(given.format(tmp_path))
    assert "secret" not in str(raised.value)
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "my notes\n"
