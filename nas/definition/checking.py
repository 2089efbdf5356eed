"""A definition's text as its writer sees it: the faults with their lines, and what is written. No torch, no ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from nas.definition.editing import places_of
from nas.definition.faults import Fault
from nas.definition.study import StudyDefinition, faults_of
from nas.definition.text import compose_yaml, explain_yaml, parse_yaml

_DEEPEST = 100
"""Largest depth of the values in an answer; writers of JSON refuse some deeper ones that YAML reads."""


@dataclass(frozen=True)
class CheckedText:
    """A text that was checked.

    Args:
        definition: Definition; None if there are faults.
        faults: All faults; one, if the text is not YAML.
        written: Values that the text holds, as plain types of JSON.
        lines: Lines of keys and list entries, counted from 1, by names with dots between them.
        broken_line: Line at which the text stops to be YAML; None if it is YAML.
    """

    definition: StudyDefinition | None
    faults: tuple[Fault, ...] = ()
    written: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)
    broken_line: int | None = None

    def line_of(self, fault: Fault) -> int | None:
        """Return the line of a fault: that of its key, or of the section that lacks it; None if it has no place."""
        key = fault.key
        while key:
            if key in self.lines:
                return self.lines[key]
            key = key.rpartition(".")[0]
        return self.broken_line


def check_text(text: str) -> CheckedText:
    """Check the text of a definition, as YAML without aliases."""
    try:
        lines, data = places_of(compose_yaml(text)), parse_yaml(text, aliases=False)
        written = _plain(data)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = None if mark is None else mark.line + 1
        return CheckedText(None, (Fault("", f"not valid YAML: {explain_yaml(error)}"),), broken_line=line)
    except ValueError as error:  # a date such as 2026-13-01
        return CheckedText(None, (Fault("", f"not valid YAML: {error}"),))
    except RecursionError:
        return CheckedText(None, (Fault("", "nested too deeply"),))
    definition, faults = faults_of(data)
    faults = [Fault(_clean(fault.key), _clean(fault.text)) for fault in faults]
    return CheckedText(definition, tuple(faults), written if isinstance(written, dict) else {}, lines)


def _clean(text: str) -> str:
    """Return a text that UTF-8 can hold: YAML can write half a pair of surrogates."""
    return text.encode("utf-8", "replace").decode()


def _plain(value: Any, depth: int = 0) -> Any:
    """Return a value of YAML in types of JSON; what JSON does not have becomes its text.

    Raises:
        RecursionError: If it is nested too deeply.
    """
    if depth > _DEEPEST:
        raise RecursionError
    if isinstance(value, Mapping):
        return {_clean(str(key)): _plain(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry, depth + 1) for entry in value]
    if isinstance(value, str):
        return _clean(value)
    finite = not isinstance(value, float) or value - value == 0
    return value if isinstance(value, (int, float, type(None))) and finite else str(value)
