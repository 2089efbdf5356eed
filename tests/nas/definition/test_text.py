"""Definitions as text: no key twice, at any depth, in YAML and in JSON; numbers mean the same everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nas.definition.space import Choice, Uniform
from nas.definition.study import load_study, parse_study
from nas.definition.text import dump_yaml, parse_yaml
from nas.errors import DefinitionError
from partialnet.architecture import Architecture
from partialnet.errors import ArchitectureError
from partialnet.json_text import parse_json

STUDY = "name: x\ndata: {name: digits}\n"


class TestKeysThatStandTwice:
    @pytest.mark.parametrize(
        ("text", "place", "key"),
        [
            ("sweep: {trials: 100}\nsweep: {trials: 2}\n", "line 4, column 1", "sweep"),
            ("sweep: {trials: 100, trials: 2}\n", "line 3, column 22", "trials"),
            ("space:\n  target:\n    uniform: [2, 8]\n    uniform: [2, 4]\n", "line 6, column 5", "uniform"),
            ('"name": y\n', "line 3, column 1", "name"),
        ],
        ids=["section", "within", "deep", "quoted"],
    )
    def test_of_yaml(self, tmp_path: Path, text: str, place: str, key: str) -> None:
        (tmp_path / "study.yaml").write_text(STUDY + text, encoding="utf-8")
        message = rf"not valid YAML: {place}: the key '{key}' stands twice, first in line \d; keep one of them"
        with pytest.raises(DefinitionError, match=rf"study\.yaml: {message}"):
            load_study(tmp_path / "study.yaml")

    def test_of_an_architecture(self, tmp_path: Path) -> None:
        path = tmp_path / "architecture.json"
        Architecture("partialnet_t0", {}, {"stages.0.blocks.0.mixer": 8}).save(path)
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('0.mixer": 8', '0.mixer": 8, "stages.0.blocks.0.mixer": 4'), encoding="utf-8")
        with pytest.raises(ArchitectureError, match=r"not valid JSON: the key 'stages\..*mixer' stands"):
            Architecture.load(path)

    @pytest.mark.parametrize("value", [{"a": {"b": [1, {"c": None}]}, "d": "e"}, [], 1.5, {"a": {"a": {"a": 1}}}])
    def test_all_else_is_read_as_ever(self, value: Any) -> None:
        assert parse_json(json.dumps(value)) == value
        assert parse_yaml(yaml.safe_dump(value)) == value

    def test_merged_keys_may_be_replaced(self) -> None:
        assert parse_yaml("base: &b {x: 1, y: 2}\nnew: {<<: *b, x: 3}")["new"] == {"x": 3, "y": 2}


numbers = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))


class TestNumbers:
    @given(numbers)
    def test_yaml_reads_what_json_writes(self, value: float) -> None:
        read = parse_yaml(json.dumps(value))
        assert (read, type(read)) == (value, type(value))

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1e-1", 0.1), ("1E5", 1e5), ("-2.5e+3", -2500.0), ("1.", 1.0), (".5", 0.5), ("+3", 3), ("0", 0), ("-0", 0),
            ("0.1", 0.1), ("0e0", 0.0), ("010", "010"), ("0o10", "0o10"), ("0x10", "0x10"), ("0b1", "0b1"),
            ("1_000", "1_000"), ("1:30", "1:30"), ("1e", "1e"), ("e1", "e1"), (".", "."), ("01.5", "01.5"),
        ],
    )  # fmt: skip
    def test_what_is_a_number(self, text: str, value: float | str) -> None:
        for place in ("{}", "[{}]", "a: {}", "a: {{b: [1, {}]}}"):
            read = parse_yaml(place.format(text))
            while isinstance(read, (dict, list)):
                read = list(read.values())[-1] if isinstance(read, dict) else read[-1]
            assert (read, type(read)) == (value, type(value))

    @pytest.mark.parametrize("text", ["1e-1", "0.1", "1.0e-1", ".1"])
    def test_a_number_is_the_same_in_every_place(self, text: str) -> None:
        text = f"""
            name: x
            data: {{name: digits, validation_fraction: {text}}}
            baselines: [{text}]
            space:
              target: 4
              penalty: {text}
              weight_decay: {{uniform: [{text}, 1]}}
              learning_rate: {{choice: [{text}]}}
        """
        study = parse_study(parse_yaml(text))
        assert study.data.validation_fraction == study.space["penalty"] == study.baselines[0] == 0.1
        assert study.space["weight_decay"] == Uniform(uniform=(0.1, 1.0))
        assert study.space["learning_rate"] == Choice(choice=(0.1,))

    @pytest.mark.parametrize("value", ["yes", "true", "010", "'5'", "0x10", "1_0", "1.5", "5.0", "1e1", "''", "[5]"])
    @pytest.mark.parametrize(
        "place",
        [
            "sweep: {trials: %s}",
            "training: {epochs: %s}",
            "model: {depths: [1, 1, 1, %s]}",
            "space: {target: 4, epochs: {int: [2, %s]}}",
            "space: {target: 4, epochs: {choice: [%s]}}",
            "space: {target: 4, epochs: %s}",
        ],
    )
    def test_what_is_no_whole_number_is_refused(self, place: str, value: str) -> None:
        with pytest.raises(DefinitionError, match=r"integer|number|give a value or one of"):
            parse_study(parse_yaml(f"{STUDY}{place % value}"))

    @pytest.mark.parametrize("value", ["yes", "'0.1'", "01.5", "ten"])
    @pytest.mark.parametrize(
        "place",
        [
            "training: {learning_rate: %s}",
            "sweep: {seconds: %s}",
            "space: {target: %s}",
            "space: {target: {uniform: [2, %s]}}",
        ],
    )
    def test_what_is_no_number_is_refused(self, place: str, value: str) -> None:
        with pytest.raises(DefinitionError, match=r"number|give a value or one of"):
            parse_study(parse_yaml(f"{STUDY}{place % value}"))

    @given(st.text() | numbers | st.sampled_from(["1e-1", "010", "yes", "1e5", "0x1", "1:30", "2026-01-01", "~"]))
    def test_what_is_written_is_read(self, value: Any) -> None:
        text = dump_yaml({"a": [value]})
        assert parse_yaml(text) == yaml.safe_load(text) == {"a": [value]}

    def test_a_name_that_looks_like_a_number(self) -> None:
        study = parse_study({"name": "1e-1", "data": {"name": "digits"}})
        assert parse_study(parse_yaml(study.to_yaml())) == study
