"""Text is read and written as UTF-8, whatever the machine's locale says."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from partialnet.architecture import Architecture
from partialnet.models.partialnet import create
from partialnet.package import Preprocessing, load_package, save_package

ROOT = Path(__file__).parents[1]
PACKAGES = ("partialnet", "nas", "service")
# Methods called open that read no text by themselves, by the name before the dot.
OTHER_OPENS = ("Image", "Store", "os", "tarfile", "archive", "self._fs")

ASCII_ONLY = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_text_without_an_encoding(package: str) -> None:
    """A Latin-1 locale would decode a definition, or a class called "é", to something else."""
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}: {ast.unparse(call)}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for call in calls(ast.parse(path.read_text(encoding="utf-8")))
        if is_text(call) and not any(keyword.arg == "encoding" for keyword in call.keywords)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("path.read_text()", True),
        ("path.write_text(json.dumps(content))", True),
        ("open(path)", True),
        ("path.open('w')", True),
        ("path.open(mode='a')", True),
        ("subprocess.run(command, text=True)", True),
        ("logging.FileHandler(path)", True),
        ("path.open('rb')", False),
        ("open(path, 'wb')", False),
        ("open(path, mode='r+b')", False),
        ("Store.open(url)", False),
        ("subprocess.Popen(command)", False),
        ("path.read_bytes()", False),
    ],
)
def test_what_counts_as_text(source: str, text: bool) -> None:
    assert next(map(is_text, calls(ast.parse(source)))) == text


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def is_text(call: ast.Call) -> bool:
    """Return whether a call reads or writes text in an encoding that it could name."""
    method = isinstance(call.func, ast.Attribute)
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name in ("read_text", "write_text", "FileHandler"):
        return True
    if name in ("run", "Popen", "check_output") and owner == "subprocess":
        return "True" in (options.get("text"), options.get("universal_newlines"))
    if name != "open" or owner in OTHER_OPENS:
        return False
    modes = call.args[0 if method else 1 :][:1]
    return "b" not in options.get("mode", ast.unparse(modes[0]) if modes else "'r'")


def test_a_definition_is_utf_8_and_every_name_can_be_printed(tmp_path: Path) -> None:
    text = "name: x\nquestion: Où est le 猫?\ndata: {name: digits}\n"
    (tmp_path / "study.yaml").write_text(text, encoding="utf-8")
    code = (
        "from pathlib import Path; from nas.definition.study import load_study\n"
        f"assert load_study(Path({str(tmp_path)!r}) / 'study.yaml').question == {'Où est le 猫?'!a}\n"
    )
    subprocess.run([sys.executable, "-c", code], env=ASCII_ONLY, check=True)
    (tmp_path / "猫").mkdir()
    command = [sys.executable, "-m", "nas.cli", "datasets", "--data-root", tmp_path / "猫"]
    done = subprocess.run(command, env=ASCII_ONLY, check=True, capture_output=True)
    assert b"data roots: " in done.stdout
    assert done.stderr == b""


def test_packages_travel_between_locales(tmp_path: Path) -> None:
    """Between this process and one whose locale knows ASCII only, and between two of the latter."""
    preprocessing = Preprocessing("b\u00e9b\u00e9s", ("\u00e9", "\u732b"), (3, 32, 32), (0.0,) * 3, (1.0,) * 3)
    model = create(Architecture("partialnet_micro", {"num_classes": 2, "depths": [1, 1, 1, 1]}))
    save_package(tmp_path / "ours", model, preprocessing, readme="\u732b")
    subprocess.run([sys.executable, "-c", PROGRAM, tmp_path / "ours", tmp_path / "theirs"], env=ASCII_ONLY, check=True)
    assert load_package(tmp_path / "theirs").preprocessing == preprocessing
    for file in ("preprocessing.json", "README.md"):
        assert (tmp_path / "theirs" / file).read_bytes() == (tmp_path / "ours" / file).read_bytes()


PROGRAM = """
import locale, sys
from pathlib import Path
from partialnet.package import load_package, save_package

assert locale.getpreferredencoding(False) not in ("UTF-8", "utf-8"), locale.getpreferredencoding(False)
ours, theirs = map(Path, sys.argv[1:])
package = load_package(ours)
save_package(theirs, package.model, package.preprocessing, readme="\\u732b")
assert load_package(theirs).preprocessing == package.preprocessing
"""
