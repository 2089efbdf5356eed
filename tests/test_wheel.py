"""The wheel holds what an installed service needs besides its modules."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("partialnet", "nas", "service", "studies", "pyproject.toml", "README.md")


@pytest.mark.long  # a build takes seconds
def test_an_installation_offers_the_definitions_of_studies(tmp_path: Path) -> None:
    """In a copy: a build writes beside its sources."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
        else:
            shutil.copy(ROOT / name, copy)
    command = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", tmp_path, copy]
    built = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packages = {name.partition("/")[0] for name in archive.namelist()}
    assert {name for name in packages if not name.startswith("partialnet_nas-")} == {"partialnet", "nas", "service"}
    python = tmp_path / "environment" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
    install = [python, "-I", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(list(map(str, install)), check=True)
    code = "import json; from nas.definition.example import starting_definitions as s; print(json.dumps(s()))"
    said = subprocess.check_output([python, "-c", code], cwd=tmp_path, env={"PATH": ""}, text=True)
    offered = json.loads(said)
    assert {name for name in offered if name != "example"} == {path.stem for path in (ROOT / "studies").glob("*.yaml")}
    for path in (ROOT / "studies").glob("*.yaml"):
        assert offered[path.stem] == path.read_text(encoding="utf-8")
