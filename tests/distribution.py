"""Which tests go to the same process, when there are several (``pytest -n 2``).

Tests of one file do, since they share its fixtures; and all tests that need Ray, PostgreSQL or a browser, wherever they
stand, since each of these is started once for a process. So do those whose processes are forks of a server.
pytest-xdist's own groups travel in a private part of pytest's ids, which pytest 9.2 has changed; here they travel in a
file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.warm_start import PYTHON, start_warm

SHARED = ("ray", "postgres", "browser", "forks")
"""Marks of tests that share a server."""


def group_of(item: pytest.Item) -> str:
    """Return the group of a test: what it shares, or its file."""
    return next((mark for mark in SHARED if item.get_closest_marker(mark)), item.nodeid.partition("::")[0])


class Groups(LoadScopeScheduling):
    """Gives each group to one process, in the order of the tests."""

    def __init__(self, config: pytest.Config, log: Any, path: Path) -> None:
        super().__init__(config, log)
        self._path = path

    @cached_property
    def _groups(self) -> dict[str, str]:
        return json.loads(self._path.read_text())

    def _split_scope(self, nodeid: str) -> str:
        return self._groups[nodeid]


class Controller:
    """Starts the processes and tells them where to write the groups of the tests that they find."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="nas-groups-")
        self._path = Path(self._folder.name) / "groups.json"
        self._warm: subprocess.Popen[bytes] | None = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self, specs: list[Any]) -> None:
        local = [spec for spec in specs if spec.popen and not spec.python]
        if len(local) > 1 and sys.platform == "linux":  # elsewhere a fork of what has loaded libraries may fail
            self._warm = start_warm(Path(self._folder.name))
            for spec in local:
                spec.python = PYTHON

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["groups"] = str(self._path)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Groups:
        return Groups(config, log, self._path)

    def pytest_unconfigure(self) -> None:
        self._folder.cleanup()
        if self._warm is not None:
            with suppress(subprocess.TimeoutExpired):
                self._warm.wait(10)


def tell_groups(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Write down the groups, in one of several processes; all find the same tests, and whoever is last has its way."""
    path = Path(config.workerinput["groups"])  # type: ignore[attr-defined]
    own = path.with_name(f"{os.getpid()}.json")
    own.write_text(json.dumps({item.nodeid: group_of(item) for item in items}))
    own.replace(path)
