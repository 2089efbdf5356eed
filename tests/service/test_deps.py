"""What comes by HTTP is read as strictly as a file."""

from __future__ import annotations

import pytest

from nas.errors import DefinitionError
from service.deps import parse_definition


@pytest.mark.parametrize(
    ("text", "key"),
    [('{"name": "x", "name": "y"}', "name"), ('{"sweep": {"trials": 1, "seed": 0, "trials": 2}}', "trials"),
     ('{"space": [{"a": [{"b": 1, "b": 1}]}]}', "b")],
)  # fmt: skip
def test_a_key_that_stands_twice_in_json(text: str, key: str) -> None:
    with pytest.raises(DefinitionError, match=rf"not valid JSON: the key '{key}' stands twice in one object"):
        parse_definition(text, is_yaml=False)


def test_a_key_that_stands_twice_in_yaml() -> None:
    with pytest.raises(DefinitionError, match=r"not valid YAML: line 2, column 22: the key 'trials' stands twice"):
        parse_definition("name: x\nsweep: {trials: 100, trials: 2}", is_yaml=True)
