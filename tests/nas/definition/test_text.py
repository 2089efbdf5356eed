"""Definitions as text: no key twice, at any depth, in YAML and in JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from nas.definition.study import load_study
from nas.definition.text import parse_yaml
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
