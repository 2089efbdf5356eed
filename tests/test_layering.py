"""Who may import whom: ``partialnet`` <- ``nas`` <- ``service``, no circles, and what may not load torch or Ray."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("partialnet", "nas", "service")
HEAVY = {"torch", "ray", "partialnet.models", "partialnet.layers", "partialnet.search"}
FORBIDDEN = {
    "partialnet": {"nas", "service", "ray", "sqlalchemy", "fastapi"},
    "nas": {"service", "fastapi"},
    "nas.definition": {*HEAVY, "sqlalchemy", "nas.store"},
    "nas.findings": {*HEAVY, "sqlalchemy", "nas.store"},
    "nas.wire": {*HEAVY, "sqlalchemy"},
    "nas.store": {*HEAVY},
    "nas.training": {"ray", "optuna", "sqlalchemy", "nas.store", "nas.sweep"},
    "nas.ray_training": {"sqlalchemy", "nas.store", "nas.worker", "nas.commands", "rich"},
    "nas.probes": {"ray", "sqlalchemy", "nas.store", "nas.sweep", "nas.training"},
    "nas.networks": {"ray", "optuna", "nas.sweep", "nas.training"},
    "nas.sweep": {"nas.worker", "nas.commands", "rich"},
    "nas.worker": {"nas.commands"},
    "nas.housekeeping": {"nas.commands", "nas.worker", "service"},
    "service": HEAVY,
}
LIGHT = (
    "partialnet.architecture",
    "partialnet.blocks",
    "partialnet.kinds",
    "partialnet.variants",
    "partialnet.search.units",
    "nas.*",
    "nas.definition",
    "nas.findings",
    "nas.host",
    "nas.wire",
    "nas.store",
    "nas.sweep.progress",
    "nas.worker",
    "service",
)
"""What loads neither torch nor Ray: packages with all that is in them, modules; ``nas.*`` are the files at its root."""

_LIGHT_PARTS = tuple(name for name in LIGHT if name.startswith("partialnet."))  # in packages that are heavy otherwise


def modules_of(name: str) -> dict[str, Path]:
    """Return the modules of a package (or a module) with their files; of ``nas.*`` those at the root of ``nas``."""
    place = ROOT.joinpath(*name.removesuffix(".*").split("."))
    if place.is_dir():
        files = sorted(place.glob("*.py") if name.endswith(".*") else place.rglob("*.py"))
    else:
        files = [place.with_suffix(".py")]
    found = {}
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return {module: file for module, file in found.items() if "migrations" not in module.split(".")}


@cache
def nodes(source: str) -> tuple[ast.AST, ...]:
    """Return all nodes of ``source``, at any depth of nesting."""
    return tuple(ast.walk(ast.parse(source)))


@cache
def imported_modules(source: str) -> frozenset[str]:
    """Return every absolute module name that ``source`` imports, at any depth of nesting."""
    found: set[str] = set()
    for node in nodes(source):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def violations(source: str, forbidden: set[str]) -> set[str]:
    """Return what ``source`` imports of ``forbidden`` or below it."""
    return {name for name in imported_modules(source) for bad in forbidden if name == bad or name.startswith(bad + ".")}


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_imports_point_downward(package: str) -> None:
    modules = modules_of(package)
    assert modules
    wrong = {
        name: heavy
        for name, file in modules.items()
        if (heavy := {v for v in violations(file.read_text(), FORBIDDEN[package]) if not v.startswith(_LIGHT_PARTS)})
    }
    assert wrong == {}


def test_the_check_sees_a_wrong_arrow() -> None:
    assert violations("def f():\n    from nas.definition.study import load_study\n", FORBIDDEN["partialnet"]) == {
        "nas.definition.study",
        "nas.definition.study.load_study",
    }


def test_light_modules_load_neither_torch_nor_ray() -> None:
    code = (
        "import importlib, sys\n"
        "for module in sys.argv[1:]:\n"
        "    importlib.import_module(module)\n"
        "    loaded = [heavy for heavy in ('torch', 'ray') if heavy in sys.modules]\n"
        "    assert not loaded, f'{module} loads {loaded}'\n"
    )
    modules = [modules_of(name) for name in LIGHT]
    assert all(modules)
    command = [sys.executable, "-c", code, *(module for found in modules for module in found)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def loaded_with(module: str) -> set[str]:
    """Return the names that a module of ours loads at its import, and those that they load in turn, if ours."""
    found, waiting = set[str](), [module]
    while waiting:
        for file in modules_of(waiting.pop()).values():
            top = [node for node in ast.parse(file.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
            names = set().union(*(imported_modules(ast.unparse(node)) for node in top)) - found
            found |= names
            waiting += [name for name in names if ROOT.joinpath(*name.split(".")).with_suffix(".py").is_file()]
    return found


@pytest.mark.parametrize(
    "module", ["partialnet.data.datasets", "nas.housekeeping.places", "nas.training.precheck_training"]
)
def test_data_are_read_without_libraries_of_networks(module: str) -> None:
    """With torchvision, timm takes two seconds to load."""
    found = loaded_with(module)
    assert "partialnet.data.catalog" in found
    assert {name for name in found if name.split(".")[0] in ("timm", "torchvision")} == set()


def test_the_check_sees_what_a_module_loads_through_others() -> None:
    assert "timm" in loaded_with("partialnet.package")


def import_graph(sources: Mapping[str, str], node: Callable[[str], str]) -> dict[str, set[str]]:
    """Return which nodes import which: at module level, inside functions, and for types only.

    Args:
        sources: Module name to its text.
        node: Module name to the node that it belongs to.
    """
    graph: dict[str, set[str]] = {node(module): set() for module in sources}
    for module, text in sources.items():
        imported = {name for name in imported_modules(text) if name in sources}
        # Of `from a.b import c`, where c is a module, both a.b and a.b.c are found, and a.b is only its folder.
        folders = {name.rpartition(".")[0] for name in imported}
        named = {name for name in imported if name not in folders or imports_from(text, name, sources)}
        graph[node(module)] |= {node(name) for name in named} - {node(module)}
    return graph


def imports_from(text: str, module: str, sources: Mapping[str, str]) -> bool:
    """Return whether ``text`` imports something of ``module`` that is no module itself."""
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == module
        and any(f"{module}.{alias.name}" not in sources for alias in node.names)
        for node in nodes(text)
    )


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Return the nodes of a circle, from one to the next that it imports; nothing if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def as_file(module: str) -> str:
    return module


def as_room(module: str) -> str:
    """Return the file or folder right below the package: ``nas.store.base`` belongs to ``nas.store``."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("node", [as_file, as_room])
def test_no_circles(node: Callable[[str], str]) -> None:
    files = {name: file for package in PACKAGES for name, file in modules_of(package).items()}
    assert circle(import_graph({name: file.read_text() for name, file in files.items()}, node)) == []


def test_the_check_sees_circles() -> None:
    sources = {
        "p": "",
        "p.a": "from p.b.x import f\n",
        "p.b": "",
        "p.b.x": "def f():\n    from p.c import g\n",
        "p.b.y": "from p.c import g\n",
        "p.c": "if TYPE_CHECKING:\n    from p.b import y\n",
    }
    assert set(circle(import_graph(sources, as_file))) == {"p.b.y", "p.c"}
    without = {**sources, "p.b.y": ""}
    assert circle(import_graph(without, as_file)) == []
    assert set(circle(import_graph(without, as_room))) == {"p.b", "p.c"}
    assert circle(import_graph({**without, "p.c": "import p.a\n"}, as_file)) != []


@pytest.mark.parametrize("package", ["partialnet", "partialnet.data", "partialnet.train", "nas", "nas.sweep"])
def test_names_that_are_loaded_on_first_use_are_there(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == dir(module)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_the_root_of_nas_holds_few_files() -> None:
    files = modules_of("nas.*").keys() - {"nas.__main__"}  # `python -m nas` wants that one there
    assert len(files) <= 18, "a new file belongs into a room, or is a word that every room speaks"


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
    return found + [ast.unparse(node) for node in nodes(source) if isinstance(node, ast.Global)]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_level_mutable_state(package: str) -> None:
    wrong = {name: found for name, file in modules_of(package).items() if (found := mutable_state(file.read_text()))}
    assert wrong == {}


def test_the_check_sees_mutable_state() -> None:
    assert mutable_state("x = []\ny: dict = {}\ndef f():\n    global x\n") == ["x", "y", "global x"]
