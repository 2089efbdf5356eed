"""Whoever only reads needs no right to write: files, folders, and what a writer has left beside the file."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nas.cli import make_app
from nas.errors import StoreError
from nas.store import Store
from nas.trial import TrialKind
from tests.nas.store.makers import complete, study, supernet

NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user reaches; those of pytest are their owner's alone."""
    with tempfile.TemporaryDirectory(prefix="read-only-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def as_reader(folder: Path, *, folder_mode: int = 0o555) -> Iterator[None]:
    """Be a user who may read what is in ``folder``, and nothing more; root would be let through everywhere."""
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(folder_mode)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'nas.db'}"


@pytest.mark.parametrize("folder_mode", [0o555, 0o777])
def test_everything_is_read_and_nothing_is_left_behind(folder: Path, folder_mode: int) -> None:
    with Store.open(url(folder)) as store:
        made = study(store)
        complete(store, made.id)
        made, jobs, trials = store.study(made.id), store.jobs(), store.trials(made.id)
    with as_reader(folder, folder_mode=folder_mode), Store.open(url(folder)) as store:
        assert store.study("latest") == made
        assert store.trials(made.id) == trials
        assert (store.jobs(), [row.study for row in store.studies()]) == (jobs, [made])
        store.ping()
        with pytest.raises(StoreError, match=r"nas\.db can only be read; may this user write the file and its folder"):
            store.add_trials(made.id, [(TrialKind.SEARCH, {})])
    assert [path.name for path in folder.iterdir()] == ["nas.db"]


def test_what_a_writer_adds_meanwhile_is_seen(folder: Path) -> None:
    with Store.open(url(folder)) as writer:
        made = study(writer)
        with as_reader(folder):
            reader = Store.open(url(folder))
            assert [row.study for row in reader.studies()] == [made]
        complete(writer, made.id)
        with as_reader(folder):
            assert len(reader.trials(made.id)) == 1
            reader.close()


def test_the_log_of_a_writer_that_was_killed_is_read(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as other:
        with Store.open(url(Path(other))) as writer:
            made = study(writer)
            for path in Path(other).iterdir():  # what is there while it is open is what a kill leaves
                shutil.copy(path, folder)
        assert (folder / "nas.db-wal").stat().st_size
    with as_reader(folder), Store.open(url(folder)) as reader:
        assert reader.study("latest") == made


def test_an_older_schema_is_not_upgraded(folder: Path) -> None:
    with Store.open(url(folder)) as store, store._database.write() as session:
        session.connection().exec_driver_sql("UPDATE nas_schema SET version_num = '0001'")
    with as_reader(folder), pytest.raises(StoreError, match=r"has schema 0001.*on a copy of the file"):
        Store.open(url(folder))


@pytest.mark.parametrize(
    "command", [["studies"], ["studies", "--json"], ["trial", "latest", "0"], ["pareto", "latest"], ["db", "status"]]
)
def test_commands_that_look(folder: Path, command: list[str]) -> None:
    with Store.open(url(folder)) as store:
        supernet(store)
    look = partial(CliRunner().invoke, make_app(), [*command, "--database", url(folder)])
    assert look().exit_code == 0  # it loads modules, which may lie where only their owner reads them
    with as_reader(folder):
        result = look()
    assert result.exit_code == 0, result.output
