"""The README's commands and code run as they stand, one after the other, in a folder that holds the studies."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(console|python)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
STUDY = ROOT / "studies" / "digits_quickstart.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the studies; the first one is small and short, since ``make demo`` runs it as it is."""
    shutil.copytree(ROOT / "studies", tmp_path / "studies")
    study: dict[str, Any] = yaml.safe_load(STUDY.read_text())
    study["data"] |= {"train_limit": 200}
    study["model"] |= {"patch_size": 2}
    study["latency"] |= {"n": 10, "warmup": 1, "interval": 1.0}
    study["training"] |= {"epochs": 2, "finetune_epochs": 1}
    study["sweep"] |= {"concurrent": 1}  # each process loads torch first, which takes longer than such a trial
    (tmp_path / "studies" / STUDY.name).write_text(yaml.safe_dump(study))
    return tmp_path


def serve_and_stop(folder: Path) -> None:
    """Start the service by the installed command, wait for its address, and end it by Ctrl-C."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("NAS_")}
    command = [str(Path(sys.executable).with_name("nas")), "serve"]
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=kept, stdout=log, stderr=log)

    def said() -> str:
        return (folder / "serve.log").read_text()

    wait_for(lambda: "?link=" in said() or process.poll() is not None)
    assert process.poll() is None, said()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, said()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_here")
def test_commands_and_code_run_in_order(
    folder: Path, nas: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(folder / "none"))  # a report's pictures as files have tests of their own
    ran = []
    os.chdir(folder)  # the fixture goes back
    for language, text in BLOCKS:
        if language == "python":
            exec(compile(text, "README.md", "exec"), {"__name__": "__main__"})
            continue
        for line in text.splitlines():
            command = line.removeprefix("$ ")
            ran.append(command)
            if command == "nas serve":
                serve_and_stop(folder)
                continue
            code, out, err = nas(*command.split()[1:], cwd=folder)
            assert code == 0, f"{command}\n{out}\n{err}"
            assert out.strip() or err.strip(), f"{command} said nothing"
    assert len(ran) >= 10
    assert all(command.startswith("nas ") for command in ran)
    assert (folder / "front.html").stat().st_size > 100_000
    assert (folder / "runs" / "scratch" / "package" / "model.safetensors").is_file()
    check_query(folder / "nas.db")


def check_query(path: Path) -> None:
    """The queries of the documentation of ``nas`` find the blocks of all networks, and the ratios of a search's."""
    queries = re.findall(r"^```sql\n(.*?)^```", (ROOT / "nas" / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    with closing(sqlite3.connect(path)) as database:
        blocks, rows = (database.execute(query).fetchall() for query in queries)
    assert {(name, present) for _, name, present, *_ in blocks} >= {("stages.0.blocks.0", 1)}
    assert len(rows) == 5
    assert rows[0][0] == "stages.0.blocks.0.mixer"
    assert all(0 < ratio <= 1 for _, ratio in rows)


PAGES = [ROOT / "README.md", *sorted(ROOT.glob("[a-z]*/**/README.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_exist(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []
