"""How many trials fit, and how signals become a flag."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from nas.errors import InputError, NasError
from nas.host import interrupts
from nas.host.interrupts import SIGNALS
from nas.sweep import cluster
from nas.sweep.cluster import fitting_trials, quiet_ray, socket_base, start_patiently
from nas.sweep.stop_flag import StopFlag, StoppedAtOnce


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "count"),
    [
        ({"CPU": 2}, 1, 0, 2),
        ({"CPU": 2}, 0.1, 0, 20),
        ({"CPU": 2, "GPU": 8}, 1, 0, 2),
        ({"CPU": 16, "GPU": 2}, 1, 0.5, 4),
        ({"CPU": 16, "GPU": 2}, 1, 0.3, 6),
        ({"CPU": 16, "GPU": 4}, 1, 2, 2),
        ({"CPU": 3, "GPU": 4}, 1, 0.25, 3),
    ],
)
def test_as_many_trials_as_fit(resources, cpus, gpus, count) -> None:
    assert fitting_trials([resources], cpus, gpus) == count


def test_trials_take_processes_that_ray_keeps_ready() -> None:
    from ray.tune.execution.class_cache import _ActorClassCache

    def environment() -> dict[str, object]:
        return _ActorClassCache().get(type("Trial", (), {}))._default_options["runtime_env"]

    with quiet_ray():
        assert "env_vars" in environment()  # of Tune itself: a process with it must be started
        with cluster._spare_processes_taken():
            assert not environment()
        assert "env_vars" in environment()


@pytest.mark.ray
def test_a_private_ray_has_no_unused_processes(ray_here) -> None:
    from ray._private import worker
    from ray._private.node import Node

    assert set(worker._global_node.all_processes) == {"gcs_server", "raylet"}
    assert {Node.start_log_monitor.__name__, Node.start_monitor.__name__, Node.start_api_server.__name__} == set(
        cluster._UNUSED_PROCESSES
    )  # clusters that others start in this process have them


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "message"),
    [
        ({"CPU": 2}, 4, 0, "asks for 4 CPUs and 0 GPUs, but there are 2 and 0"),
        ({"CPU": 2}, 1, 0.5, "asks for 1 CPUs and 0.5 GPUs, but there are 2 and 0"),
        ({"CPU": 8, "GPU": 4}, 1, 1.5, "gpus_per_trial is 1.5"),
    ],
)
def test_a_trial_that_does_not_fit_is_refused(resources, cpus, gpus, message) -> None:
    with pytest.raises(InputError, match=message):
        fitting_trials([resources], cpus, gpus)


def test_the_environment_is_given_back(monkeypatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.delenv("TUNE_DISABLE_SIGINT_HANDLER", raising=False)
    with quiet_ray():
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
    assert "TUNE_DISABLE_SIGINT_HANDLER" not in os.environ


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_sets_the_flag_and_the_second_interrupts(number, monkeypatch) -> None:
    monkeypatch.setattr(interrupts, "ONE_REQUEST_SECONDS", 0.0)
    before = signal.getsignal(number)
    with StopFlag() as stop:
        assert not stop
        signal.raise_signal(number)
        assert stop
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_signals_taken_by_others_are_taken_back_and_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopFlag() as stop:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stop.listen()
        signal.raise_signal(signal.SIGTERM)
        assert stop
    assert signal.getsignal(signal.SIGTERM) is before


def test_signals_that_come_together_are_one_request() -> None:
    with StopFlag() as stop:
        for number in SIGNALS:
            signal.raise_signal(number)
        assert stop


def test_where_nothing_is_half_done_the_first_signal_interrupts() -> None:
    with StopFlag() as stop:
        with pytest.raises(StoppedAtOnce), stop.at_once():
            signal.raise_signal(signal.SIGTERM)
        assert stop
        with pytest.raises(StoppedAtOnce), stop.at_once():  # a stop that came before the block
            raise AssertionError("the block was entered")


def test_the_exit_of_ray_s_own_handler_is_a_stop() -> None:
    with StopFlag() as stop:
        with pytest.raises(StoppedAtOnce), stop.at_once():
            sys.exit(signal.SIGTERM)
        assert stop
    with StopFlag() as stop, pytest.raises(SystemExit), stop.at_once():
        sys.exit(3)


def test_other_threads_are_left_alone() -> None:
    seen = []

    def use() -> None:
        with StopFlag() as stop:
            stop.set()
            seen.append(bool(stop))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert seen == [True]


class TestStart:
    """Ray gives up on a raylet that is not there within 30 s; a machine that does other work can be slower."""

    SLOW = "The current node timed out during startup. This could happen because some of the raylet failed to startup."

    def starts(self, *failures: Exception) -> list[int]:
        left, calls = list(failures), []

        def init() -> None:
            calls.append(len(calls))
            if left:
                raise left.pop(0)

        start_patiently(init)
        return calls

    def test_a_slow_start_is_tried_again(self) -> None:
        assert self.starts(Exception(self.SLOW), Exception(self.SLOW)) == [0, 1, 2]

    def test_not_for_ever(self) -> None:
        with pytest.raises(NasError, match="Ray did not start within 30 s, 3 times in a row: the machine is busy"):
            self.starts(*[Exception(self.SLOW)] * 3)

    def test_other_failures_are_told_at_once(self) -> None:
        with pytest.raises(ValueError, match="no such folder"):
            self.starts(ValueError("no such folder"), Exception(self.SLOW))


class TestSockets:
    """The name of a socket has at most 107 characters, and Ray puts long ones below the folder that it is given."""

    START = (
        "import sys, ray\n"
        "from nas.sweep.cluster import quiet_ray, ray_session\n"
        "with quiet_ray(), ray_session(cpus=1):\n"
        "    print(ray.get(ray.remote(lambda: 'answered').remote()))\n"
    )

    @pytest.mark.ray
    def test_a_long_folder_for_temporary_files(self, tmp_path: Path) -> None:
        folder = tmp_path / ("x" * max(8, 63 - len(str(tmp_path))))
        folder.mkdir()
        assert len(str(folder)) >= 64
        done = subprocess.run(
            [sys.executable, "-c", self.START],
            env={**os.environ, "TMPDIR": str(folder)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stdout) == (0, "answered\n"), done.stderr
        assert list(folder.iterdir()) == []

    def test_a_short_one_is_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
        assert socket_base() == Path("/var/tmp")

    def test_where_none_is_short_the_error_says_so(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(tempfile, "tempdir", f"{tmp_path}/{'x' * 64}")
        monkeypatch.setattr(cluster, "_SHORT_FOLDERS", ("/none",))
        with pytest.raises(InputError, match=r"TMPDIR is .*x, of \d+ characters, but .* at most 23, and none of /none"):
            socket_base()
