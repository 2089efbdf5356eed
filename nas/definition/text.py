"""Definitions as text. YAML and JSON are read so that no key stands twice. No torch, no ray."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Safe, and refuses a key that stands twice, where YAML keeps the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            before = first.setdefault((key.tag, key.value), key)
            if before is not key:
                line = before.start_mark.line + 1
                problem = f"the key {key.value!r} stands twice, first in line {line}; keep one of them"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)


class _PlainLoader(_Loader):
    """Without aliases as well: a few lines of nested ones would unfold to gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "aliases are not accepted here", event.start_mark)
        return super().compose_node(parent, index)


def parse_yaml(text: str, *, aliases: bool = True) -> Any:
    """Return the value of a YAML text.

    Args:
        text: One document.
        aliases: Whether ``*name`` is accepted, which makes small texts large.

    Raises:
        yaml.YAMLError: If it is not YAML, asks for a Python object, or a mapping at any depth has a key twice.
        ValueError: If a date is invalid.
    """
    return yaml.load(text, _Loader if aliases else _PlainLoader)  # noqa: S506 - both derive from SafeLoader
