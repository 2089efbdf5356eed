"""Definitions as YAML: no key occurs twice, and numbers are those of JSON. Loads neither torch nor ray.

YAML 1.1, which the library reads, takes ``1e-1`` for a text, ``010`` for eight and ``1:30`` for ninety. This reader
treats numbers as JSON and YAML 1.2 do. A whole number with a leading zero stays a text, so that it is refused if a
number is expected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from typing import Any

import yaml

from nas.errors import DefinitionError, one_line

_INT, _FLOAT, _STR = (f"tag:yaml.org,2002:{name}" for name in ("int", "float", "str"))
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_REAL = re.compile(
    r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)

_BREAK = re.compile("[\n\x85\u2028\u2029]")


def _number_tag(value: str) -> str | None:
    if _WHOLE.fullmatch(value):
        return _INT
    return _FLOAT if _REAL.fullmatch(value) else None


class _Loader(yaml.SafeLoader):
    """Safe, with the numbers of JSON; refuses a repeated key, of which YAML silently keeps the last."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """Return the tag of a node; a text in quotes is not a number (``implicit[0]`` is false)."""
        tag: str = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        if kind is not yaml.ScalarNode or not implicit[0] or tag not in (_INT, _FLOAT, _STR):
            return tag
        return _number_tag(value) or _STR

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            before = first.setdefault((key.tag, key.value), key)
            if before is not key:
                line = before.start_mark.line + 1
                problem = f"the key {key.value!r} occurs twice, first in line {line}; keep one of them"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes each text that a reader would take for a number."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """Return the tag with which a text without quotes would be read."""
        tag: str = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        return _number_tag(value) or tag if kind is yaml.ScalarNode and implicit[0] and tag == _STR else tag


class _InlineDumper(_Dumper):
    """Escapes each text with line breaks, which are several characters in YAML: between quotes, they become spaces."""


def _inline_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = '"' if _BREAK.search(text) else None
    return dumper.represent_scalar(_STR, text, style)


_InlineDumper.add_representer(str, _inline_text)


class _PlainLoader(_Loader):
    """Refuses aliases as well: a few lines of nested ones would expand to gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "aliases are not accepted here", event.start_mark)
        return super().compose_node(parent, index)


def parse_yaml(text: str, *, aliases: bool = True) -> Any:
    """Return the value of a YAML text.

    Args:
        text: Text of one document.
        aliases: Whether ``*name`` is accepted, which makes small texts large.

    Raises:
        yaml.YAMLError: If it is invalid YAML, calls for a Python object, or a mapping at any depth has a key twice.
        ValueError: If a date is invalid.
    """
    return yaml.load(text, _Loader if aliases else _PlainLoader)  # noqa: S506 - both derive from SafeLoader


def dump_yaml(value: Any) -> str:
    """Return plain values as YAML that :func:`parse_yaml`, and any other reader, reads back to the same values."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


def compose_yaml(text: str) -> yaml.Node | None:
    """Return the nodes of a YAML text without aliases, which know their places in it; None for an empty text.

    Raises:
        yaml.YAMLError: If it is invalid YAML.
    """
    return yaml.compose(text, _PlainLoader)


def dump_inline(value: Any) -> str:
    """Return a plain value as YAML in one line, to stand behind a key."""
    listed = yaml.dump(
        [value], Dumper=_InlineDumper, sort_keys=False, default_flow_style=True, allow_unicode=True, width=10**6
    )
    return listed.rstrip("\n")[1:-1]


def explain_yaml(error: yaml.YAMLError) -> str:
    """Return the fault of a YAML text and its place, in one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return one_line(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def read_value(read: Callable[[], Any], source: str, language: str = "YAML") -> Any:
    """Return what ``read`` returns.

    Raises:
        DefinitionError: If ``read`` finds invalid text.
    """
    try:
        return read()
    except yaml.YAMLError as error:
        raise DefinitionError(f"{source}: not valid {language}: {explain_yaml(error)}") from None
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{source}: not valid {language}: not UTF-8 text (byte {error.start})") from None
    except ValueError as error:  # includes an invalid date in YAML, such as 2026-13-01
        raise DefinitionError(f"{source}: not valid {language}: {error}") from None
    except RecursionError:
        raise DefinitionError(f"{source}: nested too deeply") from None
