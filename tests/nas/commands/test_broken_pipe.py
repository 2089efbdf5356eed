"""A reader that goes (``| head -1``) ends the output, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.store import Store
from nas.study import StudyState
from nas.trial import TrialState
from tests.nas.commands.conftest import TINY, environment, start
from tests.nas.sweep.test_search import Bench, already_searched

LONG = """\
import sys
from pathlib import Path
from nas.commands.options import console, note, say
out = console(stderr=sys.argv[1] == "stderr")
for number in range(50):
    say(out, f"{number} " + "x" * 20_000)
note("beside the output")
print("printed")
Path(sys.argv[2]).write_text("went on")
"""


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_whatever_is_done_goes_on(tmp_path: Path, stream: str) -> None:
    marker = tmp_path / "marker"
    process = subprocess.Popen(
        [sys.executable, "-c", LONG, stream, str(marker)],
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    read, other = (process.stdout, process.stderr) if stream == "stdout" else (process.stderr, process.stdout)
    assert read is not None
    assert other is not None
    assert read.readline().startswith("0 ")
    read.close()
    beside = other.read()
    assert process.wait(60) == 0
    assert beside == ("beside the output\n" if stream == "stdout" else "printed\n")
    assert marker.read_text() == "went on"


def starts(folder: Path) -> list[str]:
    """Write a definition; return the command that searches it."""
    (folder / "tiny.yaml").write_text(TINY)
    return ["run", "tiny.yaml"]


def ends(folder: Path) -> list[str]:
    """Store a study whose trials have ended; return the command that measures latencies and shows the front."""
    with Store.open(f"sqlite:///{folder / 'nas.db'}") as store:
        already_searched(Bench(folder, store))
    return ["run", "--resume", "tiny"]


@pytest.mark.slow
@pytest.mark.parametrize("begin", [ends, pytest.param(starts, marks=[pytest.mark.long, pytest.mark.ray])])
def test_a_search_comes_to_its_end(tmp_path: Path, begin: Callable[[Path], list[str]]) -> None:
    search = start(begin(tmp_path), tmp_path)
    assert search.process.stdout is not None
    search.process.stdout.close()  # before its first line
    assert search.process.stderr is not None
    errors = search.process.stderr.read()
    assert search.process.wait(120) == 0, errors
    assert errors == ""
    with Store.open(f"sqlite:///{tmp_path / 'nas.db'}") as store:
        study = store.study("tiny")
        assert (study.state, study.reason) == (StudyState.FINISHED, None)
        assert study.report
        assert {trial.state for trial in store.trials(study.id)} == {TrialState.COMPLETE}
