"""Changes of single values in a definition's text: all else stays as it was written, with comments and order.

The places of the values come from the YAML reader. A changed value is replaced where it stands, a new key comes at the
end of its section, and a removed key takes its line with it. Comments are lost in two cases only: inside a value of
several lines that is replaced, and on the line of a removed key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from nas.definition.text import compose_yaml, dump_inline
from nas.errors import InputError

_LONGEST_KEY = 200
_BEHIND = re.compile(r"[ \t]*,?[ \t]*")
_BEFORE = re.compile(r"\s*,\s*\Z|\s*\Z")


def edit_yaml(text: str, changes: Mapping[str, Any]) -> str:
    """Return a text with other values.

    Args:
        text: Definition as YAML.
        changes: New values by key, such as ``training.epochs``; None removes the key.

    Raises:
        yaml.YAMLError: If the text is invalid YAML.
        InputError: If the text is no mapping of keys, or a key is empty.
    """
    for key, value in changes.items():
        path = key.split(".")
        if not all(path) or len(key) > _LONGEST_KEY:
            raise InputError(f"changes: {key[:60]!r} is no key of a definition, such as training.epochs")
        text = _removed(text, path) if value is None else _changed(text, path, value)
    return text


def places_of(node: yaml.Node | None) -> dict[str, int]:
    """Return the lines of all keys and list entries below a node, counted from 1, by names with dots between them.

    What has a longer name than any key of a definition is left out: many entries below one would fill the memory.
    """
    found: dict[str, int] = {}
    waiting = [("", node)]
    while waiting:
        prefix, below = waiting.pop()
        entries: Sequence[tuple[object, yaml.Node, yaml.Node]] = ()
        if isinstance(below, yaml.MappingNode):
            entries = [(key.value, key, value) for key, value in below.value]
        elif isinstance(below, yaml.SequenceNode):
            entries = [(index, value, value) for index, value in enumerate(below.value)]
        for name, first, value in entries:
            if len(f"{prefix}{name}") > _LONGEST_KEY:
                continue
            found.setdefault(f"{prefix}{name}", first.start_mark.line + 1)
            waiting.append((f"{prefix}{name}.", value))
    return found


def _root(text: str) -> yaml.MappingNode | None:
    root = compose_yaml(text)
    if root is not None and not isinstance(root, yaml.MappingNode):
        raise InputError("the text is no mapping of keys; begin with a line such as name: my-search")
    return root


def _changed(text: str, path: Sequence[str], value: Any) -> str:
    mapping: yaml.Node | None = _root(text)
    if mapping is None:
        before = text if not text or text.endswith("\n") else f"{text}\n"
        return f"{before}{_entry(path, value)}\n"
    for depth, name in enumerate(path):
        assert isinstance(mapping, yaml.MappingNode)
        found = _find(mapping, name)
        if found is None:
            return _added(text, mapping, _entry(path[depth:], value))
        key, mapping = found
        if depth == len(path) - 1:
            return _replaced(text, key, mapping, dump_inline(value))
        if not isinstance(mapping, yaml.MappingNode):  # nothing, or what is no section
            return _replaced(text, key, mapping, f"{{{_entry(path[depth + 1 :], value)}}}")
    raise AssertionError("a path has a last name")


def _entry(path: Sequence[str], value: Any) -> str:
    """Return the text of a key and its value; the sections in between are written in one line."""
    name, *rest = path
    shown = f"{{{_entry(rest, value)}}}" if rest else dump_inline(value)
    return f"{dump_inline(name)}: {shown}"


def _find(mapping: yaml.MappingNode, name: str) -> tuple[yaml.Node, yaml.Node] | None:
    return next(((key, value) for key, value in mapping.value if key.value == name), None)


def _end(text: str, node: yaml.Node) -> int:
    """Return the end of what a node shows: without the space and the comments behind it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style:
        last = node.value[-1]
        return max(_end(text, part) for part in (last if isinstance(last, tuple) else (last,)))
    start, end = node.start_mark.index, node.end_mark.index
    return start + len(text[start:end].rstrip()) if isinstance(node, yaml.ScalarNode) else end


def _replaced(text: str, key: yaml.Node, value: yaml.Node, shown: str) -> str:
    start, end = value.start_mark.index, _end(text, value)
    if value.start_mark.line > key.start_mark.line and value.start_mark.column <= key.start_mark.column:
        # A list may stand as far to the left as its key; a value in one line may not.
        start = text.index(":", key.end_mark.index) + 1
    end = max(start, end)
    before = "" if text[start - 1 : start] in (" ", "\t", "\n") else " "
    behind = " " if text[end : end + 1] == "#" else ""
    return f"{text[:start]}{before}{shown}{behind}{text[end:]}"


def _added(text: str, mapping: yaml.MappingNode, entry: str) -> str:
    if not mapping.value:
        place = mapping.start_mark.index + text[mapping.start_mark.index :].index("{") + 1
        return f"{text[:place]}{entry}{text[place:]}"
    first, last = mapping.value[0][0], mapping.value[-1]
    place = max(_end(text, part) for part in last)
    if mapping.flow_style:
        return f"{text[:place]}, {entry}{text[place:]}"
    line_end = text.find("\n", place)
    place = len(text) if line_end < 0 else line_end
    return f"{text[:place]}\n{' ' * first.start_mark.column}{entry}{text[place:] or chr(10)}"


def _removed(text: str, path: Sequence[str]) -> str:
    mapping = _root(text)
    found: list[tuple[yaml.MappingNode, yaml.Node, yaml.Node]] = []
    for name in path:
        pair = _find(mapping, name) if isinstance(mapping, yaml.MappingNode) else None
        if pair is None:
            return text
        assert isinstance(mapping, yaml.MappingNode)
        found.append((mapping, *pair))
        mapping = pair[1] if isinstance(pair[1], yaml.MappingNode) else None
    # A section without keys would be nothing, which is no section: it leaves with its last key.
    while len(found) > 1 and len(found[-1][0].value) == 1:
        found.pop()
    section, key, value = found[-1]
    start, end = key.start_mark.index, max(_end(text, key), _end(text, value))
    if section.flow_style:
        return _without_entry(text, start, end, last=value is section.value[-1][1])
    start = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", end)
    return text[:start] + ("" if line_end < 0 else text[line_end + 1 :])


def _without_entry(text: str, start: int, end: int, *, last: bool) -> str:
    """Return a text without the entry of a section in braces, and without one comma beside it."""
    if last:
        found = _BEFORE.search(text, 0, start)
        return text[: found.start() if found else start] + text[end:]
    found = _BEHIND.match(text, end)
    return text[:start] + text[found.end() if found else end :]
