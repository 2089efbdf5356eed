"""A holder's name tells whether its process lives, and only on the machine that can know."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nas.worker.holder import is_gone, worker_name

pytestmark = pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="looks at processes in /proc")


def name_of_another() -> tuple[str, subprocess.Popen[str]]:
    code = "from nas.worker.holder import worker_name; print(worker_name(), flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code], **pipes)
    return process.stdout.readline().strip(), process


def test_who_lives_is_there_and_who_was_killed_is_gone() -> None:
    assert not is_gone(worker_name())
    name, process = name_of_another()
    assert not is_gone(name)
    process.kill()
    while process.returncode is None and not is_gone(name):  # dead before it has been waited for
        pass
    process.communicate()
    assert is_gone(name)


def test_a_process_id_that_is_used_again_is_another_process() -> None:
    name, _, start = worker_name().rpartition("-")
    assert is_gone(f"{name}-{int(start) - 1}")


@pytest.mark.parametrize("name", ["worker-1", "host:1", "host:1/00000000-1", "host:999999999/0123abcd-5"])
def test_of_other_machines_nothing_is_known(name: str) -> None:
    assert not is_gone(name)
