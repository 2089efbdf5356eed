"""A driver that loses a daemon of its private Ray notices it at once and ends, instead of hanging for a minute."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import pytest

from nas.sweep import ray_watch
from nas.sweep.ray_watch import RAY_LOST, daemons_watched

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="watched on Linux only")

DRIVER = """
    import os, signal, sys
    from nas.sweep.cluster import quiet_ray, ray_session
    from nas.sweep.ray_watch import RAY_LOST, _daemons, daemons_watched

    def lost(name):
        print("lost", name, flush=True)
        return RAY_LOST

    with quiet_ray(), ray_session(cpus=1), daemons_watched(lost):
        import ray
        waits = ray.remote(lambda: __import__("time").sleep(600)).remote()
        print("killed", flush=True)
        os.kill(dict(_daemons())[sys.argv[1]], signal.SIGKILL)
        while True:  # as Tune does
            ray.wait([waits], timeout=1)
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("daemon", ["gcs_server", pytest.param("raylet", marks=pytest.mark.long)])
def test_a_killed_daemon_ends_the_driver_at_once(daemon: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(DRIVER), daemon]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "killed\n"
        began = time.monotonic()
        out, _ = process.communicate(timeout=100)
    assert (process.returncode, out) == (RAY_LOST, f"lost {daemon}\n")
    assert time.monotonic() - began < 30


def test_daemons_that_end_after_the_block_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(ray_watch, "_daemons", lambda: [("raylet", child.pid)])
    told: list[str] = []
    with daemons_watched(lambda name: told.append(name) or 0):
        pass
    child.kill()
    child.wait()
    assert told == []


def test_a_joined_cluster_is_not_watched() -> None:
    with daemons_watched(lambda name: pytest.fail(f"{name} is not ours")):
        pass
