"""The prose of the packages: arguments that can be read alone, no banned phrase, docstrings on public names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("partialnet", "nas", "service")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
HELPERS = sorted(path for path in (ROOT / "tests").rglob("*.py") if not path.name.startswith("test_"))
READMES = [ROOT / "README.md", *sorted(p for f in (*PACKAGES, "studies") for p in (ROOT / f).rglob("README.md"))]
NO_NOUN = frozenset({
    "Also", "As", "Asked", "At", "Build", "By", "Called", "For", "From", "Given", "How", "If", "In", "Is",
    "Likewise", "Made", "May", "Must", "Not", "Of", "On", "Over", "Passes", "Per", "Reads", "Replace", "Returns",
    "Said", "Says", "See", "Shown", "Spent", "Takes", "That", "Those", "To", "Told", "Until", "What", "Whatever",
    "Where", "Which", "Who", "Whose", "Why", "With", "Without", "Yields",
})  # fmt: skip
"""Words that begin no noun phrase: a line that starts with one needs its name to be understood."""
BANNED = {
    r"\b(?:is|are|be|been) told\b|\btold (?:of|to) ": "receives / is reported to",
    r"\b(?:is|are|be) had\b": "is computed / is available",
    r"\bheld to\b": "must match",
    r"\basked for\b|\basked to\b": "requested / proposed",
    r"\bgo(?:es)? with\b": "works only with",
    r"(?<!there )\bis none\b": "is invalid / is not a ...",
    r"\bfor a while\b": "inside the block",
    r"\bdear(?:est|er)\b": "most expensive / more expensive",
    r"(?i)\blikewise\b": "the words themselves",
    r"\bwhere there (?:is|are)\b": "if there is",
    r"\bgo(?:es)? on\b": "continues / resumes",
    r"\bwhatever it is\b|\bis what it\b": "a noun",
}
"""Phrases that the prose avoids, as regular expressions, with what stands in their place."""
WITHOUT_DOCSTRING = frozenset({"forward", "backward"})
"""Methods of autograd functions, whose contract is that of torch."""
ENTRY = re.compile(r" {4}(\*{0,2}[\w.]+): +(.*)")


class Module:
    """A file's nodes, all of them and those at its root."""

    def __init__(self, path: Path) -> None:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        self.body, self.nodes = tree.body, list(ast.walk(tree))


def documented(module: Module) -> Iterator[tuple[int, str]]:
    """Yield line number and text of the docstrings of modules, classes, functions and attributes."""
    for node in module.nodes:
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for statement in node.body:
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield statement.lineno, _dedented(value.value)


def _dedented(text: str) -> str:
    first, *others = text.expandtabs().splitlines() or [""]
    margin = min((len(line) - len(line.lstrip()) for line in others if line.strip()), default=0)
    return "\n".join([first.strip(), *(line[margin:] for line in others)])


def entries(doc: str, *sections: str) -> Iterator[tuple[str, str]]:
    """Yield name and first line of the entries in the named sections of a docstring."""
    if not any(f"{section}:" in doc for section in sections):
        return
    section = None
    for line in doc.splitlines():
        if re.fullmatch(r"[A-Z]\w+:", line):
            section = line[:-1]
        elif line and not line.startswith(" "):
            section = None
        elif section in sections and (entry := ENTRY.fullmatch(line)):
            yield entry[1], entry[2]


def argument_faults(doc: str) -> list[str]:
    """Return the faults of a docstring's argument and attribute lines, and of its errors."""
    found = []
    for name, text in entries(doc, "Args", "Attributes"):
        first = text.split()[0].strip(".,:;") if text.split() else ""
        if first in NO_NOUN or len(text.split()) < 2:
            found.append(f"{name}: {text!r} does not begin with a noun phrase that can be read alone")
    found += [
        f"{name}: {text!r} refers to another docstring; spell it out"
        for name, text in entries(doc, "Raises", "Returns")
        if text.startswith(("As ", "Likewise"))
    ]
    return found


def banned_in(text: str) -> list[str]:
    """Return the banned phrases of a text, each with its replacement."""
    return [
        f"{match[0]!r} (write: {instead})" for phrase, instead in BANNED.items() for match in re.finditer(phrase, text)
    ]


def messages(module: Module) -> Iterator[tuple[int, str]]:
    """Yield line number and text of the string constants that are prose."""
    for node in module.nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.strip().count(" ") >= 2:
            yield node.lineno, node.value


def undocumented(module: Module) -> Iterator[tuple[int, str]]:
    """Yield line number and name of the public classes and functions of a module without a docstring."""
    for node in module.body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or node.name.startswith("_"):
            continue
        members = [node, *node.body] if isinstance(node, ast.ClassDef) else [node]
        for member in members:
            if (
                isinstance(member, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
                and not member.name.startswith("_")
                and ast.get_docstring(member) is None
                and not _is_excepted(member)
            ):
                yield member.lineno, member.name


def _is_excepted(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    stub = [ast.unparse(statement) for statement in node.body] == ["..."]
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    autograd = node.name in WITHOUT_DOCSTRING and "staticmethod" in decorators
    return stub or autograd or any(name.endswith(".setter") for name in decorators)


@pytest.fixture(scope="module")
def modules() -> dict[str, Module]:
    return {str(path.relative_to(ROOT)): Module(path) for path in FILES}


def test_each_argument_begins_with_a_noun_phrase(modules: dict[str, Module]) -> None:
    found = [
        f"{name}:{line}: {fault}"
        for name, module in modules.items()
        for line, doc in documented(module)
        for fault in argument_faults(doc)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", HELPERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_argument_of_a_test_helper_begins_with_a_noun_phrase(path: Path) -> None:
    assert not [f"{line}: {fault}" for line, doc in documented(Module(path)) for fault in argument_faults(doc)]


def test_each_attribute_docstring_begins_with_a_noun_phrase(modules: dict[str, Module]) -> None:
    found = []
    for name, module in modules.items():
        for body in (module.body, *(node.body for node in module.nodes if isinstance(node, ast.ClassDef))):
            for before, after in pairwise(body):
                value = after.value if isinstance(after, ast.Expr) else None
                text = value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None
                if isinstance(before, (ast.AnnAssign, ast.Assign)) and text and text.split()[0].strip(".") in NO_NOUN:
                    found.append(f"{name}:{after.lineno}: {text!r}")
    assert not found, "\n".join(found)


def test_no_banned_phrase_stands_in_docstrings_and_messages(modules: dict[str, Module]) -> None:
    found = [
        f"{name}:{line}: {fault}"
        for name, module in modules.items()
        for line, text in messages(module)
        for fault in banned_in(text)
    ]
    assert not found, "\n".join(found)


def test_no_banned_phrase_stands_in_comments() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {fault}"
        for path in FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if "#" in line
        for fault in banned_in(line.partition("#")[2])
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_banned_phrase_stands_in_a_readme(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [f"{number}: {fault}" for number, line in enumerate(lines, 1) for fault in banned_in(line)]
    assert not found, "\n".join(found)


def test_public_names_have_docstrings(modules: dict[str, Module]) -> None:
    found = [f"{name}:{line}: {what}" for name, module in modules.items() for line, what in undocumented(module)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    ["seed: Of the trial.", "table: Likewise.", "path: Where it stands.", "report: Told of epochs.", "cost: Costs."],
)
def test_a_line_that_needs_its_context_is_found(line: str) -> None:
    assert argument_faults(f"Do something.\n\nArgs:\n    {line}\n")


@pytest.mark.parametrize(
    "text",
    ["a figure is told", "how they are had", "it is held to its cost", "it goes with a name", "a date that is none"],
)
def test_a_banned_phrase_is_found(text: str) -> None:
    assert banned_in(text)


def test_plain_prose_passes() -> None:
    doc = "Return the cost.\n\nArgs:\n    seed: Seed of the trial.\n\nRaises:\n    ValueError: If there is none.\n"
    assert not argument_faults(doc)
    assert not banned_in(doc)
