"""Signals become one request to stop: never a traceback, never in the middle of an import, and a second one ends it."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.host import interrupts
from nas.host.interrupts import SIGNALS, Requests, heard_signals, interrupt_on_signals, signals_kept, stop_on_signals
from tests.samples import sampled


@pytest.fixture(autouse=True)
def _handlers_given_back() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    yield
    signal.alarm(0)
    for number, handler in before.items():
        signal.signal(number, handler)


def run(body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program that ends within a minute."""
    command = [sys.executable, "-c", textwrap.dedent(body), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_signals_that_come_together_are_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: now)
    requests = Requests()
    assert [requests.new(), requests.new()] == [True, False]  # as of `timeout`: to the process, and to its group
    now = 1.5
    assert requests.new()
    assert requests.count == 2


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_interrupts(number: signal.Signals) -> None:
    interrupt_on_signals()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_only_nohup_is_obeyed() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    assert heard_signals() == (signal.SIGINT, signal.SIGTERM)
    interrupt_on_signals()
    signal.raise_signal(signal.SIGHUP)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", SIGNALS)
def test_an_event_is_set_first_and_the_second_request_interrupts(number, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "ONE_REQUEST_SECONDS", 0.0)
    stop = threading.Event()
    stop_on_signals(stop)
    signal.raise_signal(number)
    assert stop.is_set()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL  # the kernel ends a process that hangs all the same


SLOW = """
    import os, signal, time
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(3):
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
    whole = True
"""


def test_an_import_is_not_interrupted_in_its_middle_and_the_next_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(textwrap.dedent(SLOW))
    (tmp_path / "later.py").write_text("import time\ntime.sleep(30)\n")
    body = """
        import sys, time
        from nas.host.interrupts import interrupt_on_signals
        interrupt_on_signals()
        sys.path.insert(0, sys.argv[1])
        try:
            import slow, later
        except KeyboardInterrupt:
            print(sys.modules["slow"].whole, "later" in sys.modules)
        import email.mime.text as unhindered
        print(unhindered.__name__)
    """
    assert run(body, str(tmp_path)).stdout == "True False\nemail.mime.text\n"


def test_a_second_request_ends_even_an_import_that_hangs(tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text("import time\nprint('imports', flush=True)\ntime.sleep(60)\n")
    body = """
        import sys
        from nas.host.interrupts import interrupt_on_signals
        interrupt_on_signals()
        sys.path.insert(0, sys.argv[1])
        import hangs
    """
    command = [sys.executable, "-c", textwrap.dedent(body), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "imports\n"
        process.send_signal(signal.SIGINT)
        time.sleep(1.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")


def test_a_signal_to_a_process_that_has_no_handler_yet_is_kept() -> None:
    """Also where a shell in the background has it ignored."""
    body = """
        import signal, sys, time
        sys.stdin.readline()
        from nas.host.interrupts import interrupt_on_signals
        try:
            interrupt_on_signals()
            time.sleep(30)
        except KeyboardInterrupt:
            print("interrupted")
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    command = [sys.executable, "-c", textwrap.dedent(body)]
    with signals_kept():
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    process.send_signal(signal.SIGINT)
    assert process.communicate("\n", timeout=60)[0] == "interrupted\n"


INTERRUPTED_IMPORT = """
    import os, signal, sys

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == {module!r}:
                os.kill(os.getpid(), signal.{name})

    sys.meta_path.insert(0, Finder())
    sys.argv[1:] = {arguments!r}
    from {entry} import main
    sys.exit(main())
"""


LOADING = [
    ("nas.__main__", "typer", "nas: interrupted\n"),
    ("nas.__main__", "nas.commands.datasets", "nas: interrupted\n"),
    ("nas.worker.__main__", "sqlalchemy", ""),
]
"""Program, module that it loads, and what it then says."""


@pytest.mark.parametrize(("name", "loading"), sampled(["SIGINT", "SIGTERM", "SIGHUP"], LOADING))
def test_a_signal_while_modules_load_is_no_traceback(
    name: str, loading: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, module, said = loading
    # Were the signal lost, the worker would wait for jobs, and the command end with 0.
    arguments = ["--runs", str(tmp_path)] if "worker" in entry else ["datasets"]
    monkeypatch.setenv("NAS_DATABASE_URL", f"sqlite:///{tmp_path}/nas.db")
    done = run(INTERRUPTED_IMPORT.format(name=name, entry=entry, module=module, arguments=arguments))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", said)
