"""Text is read and written as UTF-8, whatever the machine's locale says."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

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


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a process whose locale knows ASCII only has worked, and reports what it printed."""
    folder = tmp_path_factory.mktemp("elsewhere")
    text = f"name: x\nquestion: {QUESTION}\ndata: {{name: digits}}\n"
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    (folder / "猫").mkdir()
    save_package(folder / "ours", network(), PREPROCESSING, readme="猫")
    program = [sys.executable, "-c", PROGRAM.format(question=QUESTION), folder, folder / "猫"]
    done = subprocess.run(program, env=ASCII_ONLY, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    (folder / "out").write_bytes(done.stdout)
    (folder / "err").write_bytes(done.stderr)
    return folder


def network() -> nn.Module:
    return create(Architecture("partialnet_micro", {"num_classes": 2, "depths": [1, 1, 1, 1]}))


def test_a_definition_is_utf_8_and_every_name_can_be_printed(elsewhere: Path) -> None:
    assert b"the question is the same" in (elsewhere / "out").read_bytes()
    assert b"data roots: " in (elsewhere / "out").read_bytes()
    assert (elsewhere / "err").read_bytes() == b""


def test_packages_travel_between_locales(elsewhere: Path) -> None:
    """Between this process and one whose locale knows ASCII only, and between two of the latter."""
    assert load_package(elsewhere / "theirs").preprocessing == PREPROCESSING
    for file in ("preprocessing.json", "README.md"):
        assert (elsewhere / "theirs" / file).read_bytes() == (elsewhere / "ours" / file).read_bytes()


QUESTION = "Où est le 猫?"
PREPROCESSING = Preprocessing("bébés", ("é", "猫"), (3, 32, 32), (0.0,) * 3, (1.0,) * 3)
PROGRAM = """
import locale, sys
from pathlib import Path

assert locale.getpreferredencoding(False) not in ("UTF-8", "utf-8"), locale.getpreferredencoding(False)
folder = Path(sys.argv[1])

from nas.definition.study import load_study
assert load_study(folder / "study.yaml").question == {question!a}
print("the question is the same", flush=True)

from partialnet.package import load_package, save_package
package = load_package(folder / "ours")
save_package(folder / "theirs", package.model, package.preprocessing, readme="\\u732b")
assert load_package(folder / "theirs").preprocessing == package.preprocessing

from nas.cli import main
sys.argv = ["nas", "datasets", "--data-root", sys.argv[2]]
main()
"""
