"""The doctor sees what is wrong, says what to do, and changes nothing."""

from __future__ import annotations

import resource
import shutil
import tempfile
from pathlib import Path

import pytest

from nas.housekeeping import doctor
from nas.housekeeping.doctor import Finding, Verdict, examine
from nas.settings import Settings
from nas.store import Store


def settings(folder: Path, **changes: object) -> Settings:
    facts: dict[str, object] = {"database_url": f"sqlite:///{folder}/nas.db", "storage": str(folder / "storage")}
    return Settings(**{**facts, **changes})  # type: ignore[arg-type]


def found(folder: Path, **changes: object) -> dict[str, list[Finding]]:
    names: dict[str, list[Finding]] = {}
    for finding in examine(settings(folder, **changes)):
        names.setdefault(finding.name, []).append(finding)
    return names


def test_a_new_place_is_in_order(tmp_path: Path) -> None:
    named = found(tmp_path)
    assert {"program", "packages", "database", "storage", "disk", "data", "GPU", "Ray", "open files"} <= set(named)
    wrong = [finding for findings in named.values() for finding in findings if finding.verdict is Verdict.WRONG]
    assert [finding for finding in wrong if finding.name not in ("disk", "shared memory")] == []
    assert named["database"][0].verdict is Verdict.NOTE
    assert "torch 2." in named["packages"][0].text
    assert "digits: built in" in named["data"][0].text
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_there(tmp_path: Path) -> None:
    Store.open(f"sqlite:///{tmp_path}/nas.db").close()
    [finding] = found(tmp_path)["database"]
    assert (finding.verdict, "0 studies" in finding.text) == (Verdict.GOOD, True)


@pytest.mark.parametrize(
    ("changes", "name", "text"),
    [
        ({"database_url": "postgresql://user:s3cret@localhost:1/nas"}, "database", "cannot connect"),
        ({"database_url": "sqlite:///{folder}/notes.txt"}, "database", "is not an SQLite database"),
        ({"storage": "{folder}/notes.txt"}, "storage", "cannot be written"),
        ({"storage": "nope://bucket"}, "storage", "cannot be used"),
        ({"data_roots": ("/nowhere/at/all",)}, "data", "is no folder"),
        ({"ray_address": "127.0.0.1:1"}, "Ray", "no Ray cluster answers"),
    ],
)
def test_what_is_wrong_is_said_with_a_remedy(tmp_path: Path, changes, name: str, text: str) -> None:
    (tmp_path / "notes.txt").write_text("not a database, but long enough to have a header" * 10)
    given = {key: value.format(folder=tmp_path) if isinstance(value, str) else value for key, value in changes.items()}
    wrong = [finding for finding in found(tmp_path, **given)[name] if finding.verdict is Verdict.WRONG]
    assert [text in finding.text for finding in wrong] == [True]
    assert wrong[0].remedy
    assert "s3cret" not in wrong[0].text


def test_a_full_disk_and_little_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    named = found(tmp_path)
    assert {finding.verdict for finding in named["disk"]} == {Verdict.WRONG}
    assert "1000 B free" in named["disk"][0].text
    assert named["shared memory"][0].remedy.startswith("give the container more")


def test_few_open_files_and_a_long_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    named = found(tmp_path)
    assert named["open files"][0] == Finding(
        "open files", Verdict.NOTE, "limit of open files: 256 (at most 1024)",
        "Ray needs many on a large machine: ulimit -n 4096",
    )  # fmt: skip
    assert "too long for the names of Ray's sockets" in named["Ray"][0].text


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["torch>=2.14,<3", "nonesuch-package[extra]>=1; python_version > '3'", "pytest; extra == 'dev'"]
    monkeypatch.setattr(doctor, "requires", lambda _: lines)
    good, wrong = found(tmp_path)["packages"]
    assert good.text.startswith("torch ")
    assert (wrong.verdict, wrong.remedy) == (Verdict.WRONG, "install them: pip install nonesuch-package")


def test_a_check_that_fails_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> None:
        raise OSError("no such thing")

    monkeypatch.setattr(doctor.shutil, "disk_usage", broken)
    [finding] = found(tmp_path)["disk"]
    assert (finding.verdict, finding.text) == (Verdict.WRONG, "the check itself failed: OSError: no such thing")
