"""What all tests share: one thread a process, hypothesis without deadlines, what comes first.

Tests run in one process, or in several (``pytest -n 2``), which share no temporary files and so no locks.
"""

from __future__ import annotations

import functools
import gc
import getpass
import importlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from tests.commands import Said, forget_settings, invoke
from tests.distribution import SHARED, Controller, tell_groups
from tests.samples import examples
from tests.shortcuts import take_shortcuts

# Networks here are tiny: two threads wait for each other longer than they work, on a loaded machine several times as
# long. Read when torch is loaded, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A loaded machine makes single examples slow; a deadline would fail them at random.
settings.register_profile("tests", deadline=None, max_examples=examples(50))
settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    """Give each of several processes a folder of its own for temporary files: the machine's locks lie there too."""
    _listen_to_signals()
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Controller())
        return
    # Compiled kernels stay where all processes find them: compiling takes half a minute.
    kernels = Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(kernels))
    # The name is short, because the paths of Ray's sockets are limited, and none that the product itself would sweep.
    folder = tempfile.mkdtemp(prefix="nt-")
    Path(folder).chmod(0o711)  # tests that act as another user go through it
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def _listen_to_signals() -> None:
    """Let tests and their processes get the signals that ``nohup`` or a background job of a script has them ignore."""
    for number, usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(autouse=True)
def own_state(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give back what a command that ran in this process leaves behind, and what an interruption may leave."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler and handler is not None:
            signal.signal(number, handler)
    torch = sys.modules.get("torch")
    if torch is not None and not torch.is_grad_enabled():
        # An exception of a signal between two steps of a context's end leaves the context open until it is collected.
        gc.collect()
        torch.set_grad_enabled(True)
        warnings.warn(f"{request.node.nodeid} had left torch without gradients", stacklevel=1)


def pytest_runtest_teardown() -> None:
    """Let exports to ONNX share what the exporter knows of operators, once it is loaded: reading it takes 0.4 s each.

    Nothing changes that table, since no export here brings operators of its own.
    """
    module = sys.modules.get("torch.onnx._internal.exporter._registration")
    registry = getattr(module, "ONNXRegistry", None)
    read = getattr(registry, "from_torchlib", None)
    if registry is not None and read is not None and not hasattr(read, "cache_info"):
        registry.from_torchlib = staticmethod(functools.cache(read))


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Load the tests without searching for garbage, which is not there yet, nor later among what is loaded now."""
    gc.disable()
    try:
        _load_a_part_first(session.config)
        return (yield)
    finally:
        # pytest listens to all loggers that pass nothing on; torch makes traces of compilations for any listener.
        logging.getLogger("torch.__trace").propagate = True
        gc.freeze()
        gc.enable()
        # Networks and requests make many objects that need no search: a twentieth as often halves what searches cost.
        gc.set_threshold(20_000, 10, 10)
        take_shortcuts()


def _load_a_part_first(config: pytest.Config) -> None:
    """Let each of several processes compile other test modules first, and find those of the rest compiled.

    A module that cannot be loaded is told about when pytest loads it.
    """
    if not hasattr(config, "workerinput"):
        return
    folder, number = Path(__file__).parent, int(config.workerinput["workerid"].removeprefix("gw"))
    modules = [".".join(("tests", *path.relative_to(folder).with_suffix("").parts)) for path in _test_files(config)]
    start = len(modules) * number // config.workerinput["workercount"]
    for module in (*modules[start:], *modules[:start]):
        try:
            importlib.import_module(module)
        except (Exception, pytest.skip.Exception):
            continue


def _test_files(config: pytest.Config) -> list[Path]:
    """Return the files with tests that the command line names."""
    named = [config.invocation_params.dir / argument.partition("::")[0] for argument in config.args]
    files = (path.rglob("test_*.py") if path.is_dir() else [path] for path in named)
    return sorted({file for found in files for file in found if Path(__file__).parent in file.parents})


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests: what is quick first, so that a failure shows early.

    Several processes begin with the largest groups, Ray's first: so none is left with one of them alone.
    """
    for item in items:
        if "ray_here" in getattr(item, "fixturenames", ()):  # whatever its file says: a process starts one Ray
            item.add_marker("ray")
    several = hasattr(config, "workerinput")
    if several:
        tell_groups(config, items)
    items.sort(key=lambda item: _rank(item, several=several))


def _rank(item: pytest.Item, *, several: bool) -> float:
    if item.get_closest_marker("ray"):
        # A cluster ends the shared Ray, so all other tests that need Ray come before.
        return (-2 if several else 2) + 0.5 * bool(item.get_closest_marker("cluster"))
    if any(item.get_closest_marker(mark) for mark in SHARED):
        return -1 if several else 1
    return int(item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[ExitStack]:
    """What ends the Ray of :func:`ray_here`. A cluster in this process closes it first: their tokens differ."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def ray_here(shared_ray: ExitStack) -> None:
    """One Ray for all searches of this process: starting one takes seconds. It declares GPUs that need not exist."""
    from nas.sweep.cluster import quiet_ray, ray_session
    from tests.warm_workers import warm_workers

    for part in (quiet_ray(), warm_workers(), ray_session(cpus=4, gpus=2)):
        shared_ray.enter_context(part)


@pytest.fixture
def nas(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Said]:
    """Return a function that runs ``nas`` in this process: in an empty folder, or where it is told to and ran last."""
    forget_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path, cwd: Path | None = None) -> Said:
        if cwd is not None:
            monkeypatch.chdir(cwd)
        return invoke(*arguments)

    return call
