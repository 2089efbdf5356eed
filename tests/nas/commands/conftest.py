"""One tiny study, made by the real command: interrupted in a process of its own, then continued. All tests share it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from nas.store import Store
from nas.study import StudyState
from nas.trial import Trial
from tests.commands import Said, forget_settings, invoke

TINY = """\
name: tiny
question: Does it work?
data: {name: digits, train_limit: 200}
model: {name: micro, patch_size: 1}
space: {target: {log_uniform: [2, 8]}}
training: {epochs: 1, finetune_epochs: 1, batch_size: 50}
sweep: {trials: 2, concurrent: 1}
baselines: [1/4]
latency: {n: 10, warmup: 2, interval: 1}
final: {candidates: 0}
"""


def environment(**changes: str) -> dict[str, str]:
    """Return this process's environment without settings of the program, and with few threads."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("NAS_")}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **changes}


def _interruptible() -> None:
    # A test run in the background of a shell ignores SIGINT, and its children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass
class Started:
    """A command that runs: its output line by line."""

    process: subprocess.Popen[str]

    def wait_for(self, text: str) -> str:
        """Return the next line of standard output that contains ``text``."""
        assert self.process.stdout is not None
        seen = []
        for line in self.process.stdout:
            seen.append(line)
            if text in line:
                return line
        raise AssertionError(f"{text!r} never came; stdout: {''.join(seen)} stderr: {self.process.communicate()[1]}")

    def interrupt(self) -> Said:
        """Press Ctrl-C, as a terminal does: the signal goes to the whole group. Return exit code and the rest."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.finish()

    def finish(self) -> Said:
        """Wait for the end; return exit code, rest of the output, errors."""
        killer = threading.Timer(120, self.process.kill)
        killer.start()
        try:
            out, err = self.process.communicate()
        finally:
            killer.cancel()
        return self.process.returncode, out, err


def start(
    arguments: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None, module: str = "nas.cli"
) -> Started:
    """Start ``nas``, or another module, with ``arguments`` in a process group of its own."""
    return Started(
        subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=cwd,
            env=dict(env or environment()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_interruptible,
        )
    )


def run(*arguments: str | Path, cwd: Path) -> Said:
    """Run ``nas`` in a process of its own."""
    return start([str(argument) for argument in arguments], cwd).finish()


@dataclass(frozen=True)
class TinyStudy:
    """The shared study: where it is, what its two runs said, and what the tables held between them."""

    folder: Path
    interrupted: Said
    stopped: StudyState
    between: Sequence[Trial]
    resumed: Said


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, ray_here) -> TinyStudy:
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.yaml").write_text(TINY)
    first = start(["run", "tiny.yaml"], folder)
    first.wait_for("trial 1 ")
    interrupted = first.interrupt()
    with Store.open(f"sqlite:///{folder / 'nas.db'}") as store:
        study = store.study("tiny")
        stopped, between = study.state, store.trials(study.id)
    with pytest.MonkeyPatch.context() as patch:
        forget_settings(patch)
        return TinyStudy(folder, interrupted, stopped, between, invoke("run", "--resume", "tiny", cwd=folder))


@pytest.fixture(scope="session")
def exported(tiny) -> Path:
    code, _, err = invoke("export", "tiny", "1", "--out", "exported", cwd=tiny.folder)
    assert code == 0, err
    return tiny.folder / "exported"
