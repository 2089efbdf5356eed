"""A text of a definition is checked at once: each fault has its key and its line."""

from __future__ import annotations

import json

import pytest

from nas.definition.checking import check_text
from nas.definition.example import EXAMPLE
from nas.definition.study import parse_study
from nas.definition.text import parse_yaml

FAULTY = """\
name: my search
data: {name: mnist}
space:
  target: 0.5
training:
  epochs: 0
  sweeep: 3
objectives: [top1, macss]
"""


def test_a_valid_text_has_its_definition_and_what_is_written() -> None:
    checked = check_text(EXAMPLE)
    assert checked.definition == parse_study(parse_yaml(EXAMPLE))
    assert checked.faults == ()
    assert checked.written == parse_yaml(EXAMPLE)


def test_all_faults_have_their_keys_and_lines() -> None:
    checked = check_text(FAULTY)
    assert checked.definition is None
    found = {fault.key: checked.line_of(fault) for fault in checked.faults}
    assert found == {"name": 1, "data": 2, "training.epochs": 6, "training.sweeep": 7, "objectives": 8}


def test_a_missing_key_stands_at_its_section() -> None:
    checked = check_text("name: x\ndata: {augment: none}\n")
    assert [(fault.key, checked.line_of(fault)) for fault in checked.faults] == [("data.name", 2)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: x\ndata: [", 2),
        ("name: x\nname: y", 2),
        ("a: &b 1\nc: *b", 2),
        ("a: 2026-13-01", None),
        ("[" * 400, None),
    ],
)
def test_a_text_that_is_no_yaml_has_one_fault(text: str, line: int | None) -> None:
    checked = check_text(text)
    [fault] = checked.faults
    assert checked.line_of(fault) == line


@pytest.mark.parametrize("text", ["a: 2026-01-01", "b: .nan", "c: !!binary aGk=", "d: !!set {x}", "1: {2: y}", "- x"])
def test_what_is_written_is_json(text: str) -> None:
    json.dumps(check_text(text).written, allow_nan=False)


@pytest.mark.parametrize("depth", [150, 300, 1000])
def test_what_json_cannot_nest_is_a_fault(depth: int) -> None:
    checked = check_text(f"name: x\nspace: {'[' * depth}{']' * depth}")
    assert ([fault.text for fault in checked.faults], checked.written) == (["nested too deeply"], {})


def test_names_longer_than_any_key_take_no_memory() -> None:
    checked = check_text(f"name: x\n? {'A' * 2000}\n: [{'1, ' * 50}1]\n")
    assert checked.lines == {"name": 1}
    assert any("A" * 60 in fault.key or "A" * 60 in fault.text for fault in checked.faults)
