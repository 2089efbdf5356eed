"""Changes of values in the text of a definition: the values change, and all else stays as it was written."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.definition.editing import edit_yaml, places_of
from nas.definition.example import EXAMPLE
from nas.definition.text import compose_yaml, dump_inline, dump_yaml, parse_yaml
from nas.errors import InputError

COMMENTED = """\
# What this study is for.
name: mine   # the name
question: >-
  Do learned ratios
  win?
data: {name: digits, augment: none}   # small
training:   # short
  epochs: 8       # gates
  # before fine-tuning
  finetune_epochs: 6
space:
  target:
    log_uniform: [1.6, 8]
baselines:
- 1/2     # half
- 1/4
final:
"""

names = st.sampled_from(["a", "b", "c", "key", "1", "yes"])
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))
given_values = values.filter(lambda value: value is not None)


def with_value(data: dict[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """Return plain data with another value, by hand."""
    changed = copy.deepcopy(data)
    place = changed
    for name in path[:-1]:
        if not isinstance(place.get(name), dict):
            place[name] = {}
        place = place[name]
    place[path[-1]] = value
    return changed


def without(data: dict[str, Any], path: list[str]) -> dict[str, Any]:
    """Return plain data without a key, and without the sections that it leaves empty, by hand."""
    changed = copy.deepcopy(data)
    places = [changed]
    for name in path[:-1]:
        if not isinstance(places[-1].get(name), dict):
            return changed
        places.append(places[-1][name])
    if path[-1] not in places[-1]:
        return changed
    del places[-1][path[-1]]
    for above, name in zip(reversed(places[:-1]), reversed(path[:-1]), strict=True):
        if not above[name]:
            del above[name]
    return changed


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(names, values, max_size=4), st.lists(names, min_size=1, max_size=3), given_values, st.booleans())
def test_a_changed_text_holds_the_changed_value_and_all_others(
    data: dict[str, Any], path: list[str], value: Any, flow: bool
) -> None:
    text = yaml.dump(data, Dumper=_plain_dumper(), default_flow_style=True) if flow else dump_yaml(data)
    assert parse_yaml(edit_yaml(text, {".".join(path): value})) == with_value(data, path, value)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(names, values, max_size=4), st.lists(names, min_size=1, max_size=3), st.booleans())
def test_a_removed_key_takes_nothing_else_with_it(data: dict[str, Any], path: list[str], flow: bool) -> None:
    text = yaml.dump(data, Dumper=_plain_dumper(), default_flow_style=True) if flow else dump_yaml(data)
    assert (parse_yaml(edit_yaml(text, {".".join(path): None})) or {}) == without(data, path)


@pytest.mark.parametrize("broken", ["\n", "a\nb", "\x85", "a\u2028b", "\u2029", "\r", "\x1c"])
def test_no_line_break_of_a_value_breaks_the_line(broken: str) -> None:
    for value in (broken, [broken], {"a": broken}, {broken: [1]}):
        text = dump_inline(value)
        assert len(text.splitlines()) == 1
        assert parse_yaml(f"key: {text}  # a comment") == {"key": value}


def _plain_dumper() -> Any:
    from nas.definition.text import _Dumper

    return _Dumper


@pytest.mark.parametrize(
    ("changes", "before", "after"),
    [
        ({"training.epochs": 12}, "epochs: 8       # gates", "epochs: 12       # gates"),
        ({"name": "yours"}, "name: mine   # the name", "name: yours   # the name"),
        ({"data.name": "cifar10"}, "{name: digits, augment: none}   #", "{name: cifar10, augment: none}   #"),
        ({"data.augment": None}, "{name: digits, augment: none}   # small", "{name: digits}   # small"),
        ({"data.train_limit": 100}, "augment: none}", "augment: none, train_limit: 100}"),
        ({"training.batch_size": 64}, "finetune_epochs: 6\n", "finetune_epochs: 6\n  batch_size: 64\n"),
        ({"space.target": {"uniform": [2, 3]}}, "    log_uniform: [1.6, 8]\n", "    {uniform: [2, 3]}\n"),
        ({"baselines": ["1/8"]}, "baselines:\n- 1/2     # half\n- 1/4\n", "baselines: [1/8]\n"),
        ({"final.seeds": 2}, "final:\n", "final: {seeds: 2}\n"),
        ({"question": "Why"}, "question: >-\n  Do learned ratios\n  win?\n", "question: Why\n"),
        ({"sweep.trials": 4}, "final:\n", "final:\nsweep: {trials: 4}\n"),
        ({"training.epochs": None, "training.finetune_epochs": None}, COMMENTED[COMMENTED.index("training"):
          COMMENTED.index("space")], ""),
    ],
)  # fmt: skip
def test_comments_and_order_stay(changes: dict[str, Any], before: str, after: str) -> None:
    assert before in COMMENTED
    assert edit_yaml(COMMENTED, changes) == COMMENTED.replace(before, after)


def test_the_example_changes_in_one_line_only() -> None:
    changed = edit_yaml(EXAMPLE, {"sweep.trials": 3})
    pairs = zip(EXAMPLE.splitlines(), changed.splitlines(), strict=True)
    assert [(old, new) for old, new in pairs if old != new] == [
        ("sweep: {trials: 8, seed: 0}", "sweep: {trials: 3, seed: 0}")
    ]


def test_a_text_begins_empty_and_ends_without_a_line_break() -> None:
    assert edit_yaml("", {"name": "x"}) == "name: x\n"
    assert edit_yaml("# only this", {"data.name": "digits"}) == "# only this\ndata: {name: digits}\n"
    assert edit_yaml("name: x", {"sweep.seed": 1}) == "name: x\nsweep: {seed: 1}\n"


def test_what_cannot_be_changed_is_refused() -> None:
    with pytest.raises(InputError, match="no mapping of keys"):
        edit_yaml("- 1", {"name": "x"})
    with pytest.raises(InputError, match="is no key"):
        edit_yaml("name: x", {"a..b": 1})
    with pytest.raises(yaml.YAMLError):
        edit_yaml("name: [", {"name": "x"})


def test_keys_and_entries_know_their_lines() -> None:
    lines = places_of(compose_yaml(COMMENTED))
    assert (lines["name"], lines["training.finetune_epochs"], lines["baselines.1"]) == (2, 10, 16)
