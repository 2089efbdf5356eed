"""Starting several processes anew: when they are lost, and when their failure is final."""

from __future__ import annotations

import sys

import pytest

from nas.errors import NasError
from nas.training.processes import LOST_CONNECTION, run_processes


def python(code: str) -> list[str]:
    return [sys.executable, "-c", f"import os, signal\n{code}"]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (f"os._exit({LOST_CONNECTION})", "the processes lost their connection"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "a process was killed (SIGKILL)"),
    ],
)
def test_lost_processes_start_again_and_the_reason_is_said(code: str, told: str) -> None:
    notes: list[str] = []
    with pytest.raises(NasError) as caught:
        run_processes(python(code), 1, "nas train --resume run", notes.append)
    assert str(caught.value) == f"{told}, for the 4th time; continue with: nas train --resume run"
    assert notes == [f"{told}; continuing from the newest checkpoint"] * 3


def test_a_failure_is_final() -> None:
    notes: list[str] = []
    assert run_processes(python("os._exit(2)"), 1, "again", notes.append) == 2
    assert notes == []
