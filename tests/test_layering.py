"""Who may import whom: ``partialnet`` <- ``nas`` <- ``service``, and what the API process must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {
    "partialnet": {"nas", "service", "ray", "sqlalchemy", "fastapi"},
    "nas": {"service", "fastapi"},
    "service": {"torch", "ray", "partialnet.models", "partialnet.layers", "partialnet.search"},
}
LIGHT = (
    "partialnet.architecture",
    "partialnet.variants",
    "nas.definition.sections",
    "nas.definition.study",
    "nas.trial",
    "nas.findings.pareto",
    "nas.wire.builders",
    "nas.wire.bodies",
    "nas.store",
    "service.app",
)


def imported_modules(source: str) -> set[str]:
    """Return every absolute module name that ``source`` imports, at any depth of nesting."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def violations(source: str, forbidden: set[str]) -> set[str]:
    """Return what ``source`` imports of ``forbidden`` or below it."""
    return {name for name in imported_modules(source) for bad in forbidden if name == bad or name.startswith(bad + ".")}


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_imports_point_downward(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {str(f.relative_to(ROOT)): v for f in files if (v := violations(f.read_text(), FORBIDDEN[package]))}
    assert wrong == {}


def test_the_check_sees_a_wrong_arrow() -> None:
    assert violations("def f():\n    from nas.definition.study import load_study\n", FORBIDDEN["partialnet"]) == {
        "nas.definition.study",
        "nas.definition.study.load_study",
    }


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_neither_torch_nor_ray(module: str) -> None:
    code = f"import {module}, sys; print([m for m in ('torch', 'ray') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
CONSTANT_BY_CONVENTION = {"__all__", "_LOCATIONS"}


def mutable_state(source: str) -> list[str]:
    """Return the module-level names bound to something that can be changed, and every ``global`` statement."""
    tree = ast.parse(source)
    found = []
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, MUTABLE):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [ast.unparse(target) for target in targets if ast.unparse(target) not in CONSTANT_BY_CONVENTION]
    return found + [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Global)]


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_no_module_level_mutable_state(package: str) -> None:
    files = [path for path in sorted((ROOT / package).rglob("*.py")) if "migrations" not in path.parts]
    wrong = {str(path.relative_to(ROOT)): found for path in files if (found := mutable_state(path.read_text()))}
    assert wrong == {}


def test_the_check_sees_mutable_state() -> None:
    assert mutable_state("x = []\ny: dict = {}\ndef f():\n    global x\n") == ["x", "y", "global x"]
