"""The README's commands and code run as they stand, one after the other, in an empty folder."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(console|python)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    (folder / "studies").symlink_to(ROOT / "studies")
    return folder


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("NAS_")}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def serve_and_stop(folder: Path) -> None:
    """Start the service, wait for its address, and end it by Ctrl-C."""
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(["nas", "serve"], cwd=folder, env=environment(), stdout=log, stderr=log)
    deadline = time.monotonic() + 60
    while "?token=" not in (text := (folder / "serve.log").read_text()):
        assert process.poll() is None, text
        assert time.monotonic() < deadline, text
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, (folder / "serve.log").read_text()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_commands_and_code_run_in_order(folder: Path) -> None:
    ran = []
    for language, text in BLOCKS:
        if language == "python":
            subprocess.run([sys.executable, "-c", text], cwd=folder, env=environment(), check=True, timeout=120)
            continue
        for line in text.splitlines():
            command = line.removeprefix("$ ")
            ran.append(command)
            if command == "nas serve":
                serve_and_stop(folder)
                continue
            result = subprocess.run(
                command.split(), cwd=folder, env=environment(), capture_output=True, text=True, timeout=400
            )
            assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
            assert result.stdout.strip() or result.stderr.strip(), f"{command} said nothing"
    assert len(ran) >= 10
    assert (folder / "front.html").stat().st_size > 100_000
    assert (folder / "runs" / "scratch" / "package" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.ray
def test_the_query_of_the_documentation_runs(folder: Path) -> None:
    """Goes with the test before it, whose database it asks."""
    if not (folder / "nas.db").exists():
        pytest.skip("the README's commands did not run")
    query = re.search(r"^```sql\n(.*?)^```", (ROOT / "nas" / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert query
    with closing(sqlite3.connect(folder / "nas.db")) as database:
        rows = database.execute(query[1]).fetchall()
    assert len(rows) == 5
    assert rows[0][0] == "stages.0.blocks.0.mixer"
    assert all(0 < ratio <= 1 for _, ratio in rows)


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(ROOT.glob("[a-z]*/**/README.md"))], ids=str)
def test_links_and_pictures_exist(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []
