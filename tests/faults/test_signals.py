"""Signals to `nas run` at moments that once hung or lost something: it ends, the tables are right, nothing is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.study import StudyState
from nas.trial import TrialState
from tests.faults.sites import RunSite, Site
from tests.faults.studies import small_study
from tests.waiting import wait_for

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(900)]

_LATENCY = {"n": 10, "warmup": 2}


def to_the_command(site: Site, number: signal.Signals) -> None:
    os.kill(site.program() or 0, number)


def to_its_group(site: Site, number: signal.Signals) -> None:
    os.killpg(site.program() or 0, number)


def to_all_processes(site: Site, number: signal.Signals) -> None:
    """As systemd does by default: to each process of the control group."""
    for pid in site.processes():
        os.kill(pid, number)


def modules_load(site: Site) -> bool:
    return site.driver() is not None


def ray_starts(site: Site) -> bool:
    return site.daemon("gcs_server") is not None


def a_trial_starts(site: Site) -> bool:
    return any(trial.state is TrialState.RUNNING for trial in site.store.trials(site.study_id))


def an_epoch_is_there(site: Site) -> bool:
    return any(trial.history for trial in site.store.trials(site.study_id, history=True))


def all_trials_have_ended(site: Site) -> bool:
    trials = site.store.trials(site.study_id)
    return len(trials) == 2 and all(trial.state.ended for trial in trials)


@pytest.mark.parametrize(
    ("moment", "send", "number"),
    [
        (modules_load, to_its_group, signal.SIGTERM),
        (ray_starts, to_the_command, signal.SIGTERM),
        (ray_starts, to_all_processes, signal.SIGTERM),
        (a_trial_starts, to_the_command, signal.SIGHUP),
        (an_epoch_is_there, to_its_group, signal.SIGTERM),
        (an_epoch_is_there, to_all_processes, signal.SIGTERM),
        (all_trials_have_ended, to_the_command, signal.SIGTERM),
    ],
    ids=lambda value: getattr(value, "__name__", None) or getattr(value, "name", None),
)
def test_it_ends_in_order(
    moment: Callable[[Site], bool], send: Callable[[Site, signal.Signals], None], number: signal.Signals
) -> None:
    with RunSite(small_study(sweep={"trials": 1, "seed": 5, "concurrent": 1}, latency=_LATENCY)) as site:
        code, seconds = _interrupted(site, moment, lambda: send(site, number))
        study, trials = site.study(), site.store.trials(site.study_id)
        assert (code, seconds < 60) == (130, True)
        assert study.state in (StudyState.PAUSED, StudyState.QUEUED)  # queued before the search has begun
        assert not any(trial.state is TrialState.RUNNING for trial in trials)
        assert all(job.state.ended for job in site.store.jobs(site.study_id))
        assert site.left_behind() == []


def test_a_second_signal_ends_it_within_ten_seconds() -> None:
    with RunSite(small_study(sweep={"trials": 1, "seed": 5, "concurrent": 1})) as site:

        pause = 2.0

        def twice() -> None:
            to_the_command(site, signal.SIGTERM)
            time.sleep(pause)
            to_the_command(site, signal.SIGTERM)

        code, seconds = _interrupted(site, a_trial_starts, twice)
        assert (code, seconds - pause < 10.5) == (130, True)
        assert site.study().state is StudyState.PAUSED
        assert site.left_behind() == []


def _interrupted(site: Site, moment: Callable[[Site], bool], send: Callable[[], None]) -> tuple[int, float]:
    """Return the exit code of the command, and the seconds from the signal to its end."""
    site.begin()
    command = site.launch()
    wait_for(lambda: command.poll() is not None or moment(site))
    assert command.poll() is None, Path(site.folder / "program.log").read_text()
    began = time.monotonic()
    send()
    return command.wait(120), time.monotonic() - began
