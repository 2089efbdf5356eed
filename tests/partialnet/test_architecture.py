from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partialnet.architecture import Architecture
from partialnet.errors import ArchitectureError
from partialnet.variants import VARIANTS, model_name

scalars = st.one_of(
    st.integers(-5, 2000), st.booleans(), st.text(max_size=8), st.floats(allow_nan=False, allow_infinity=False)
)
architectures = st.builds(
    Architecture,
    st.sampled_from([model_name(v) for v in VARIANTS]),
    st.dictionaries(
        st.text(min_size=1, max_size=8), st.one_of(scalars, st.lists(st.integers(1, 9), max_size=4)), max_size=4
    ),
    st.dictionaries(st.text(min_size=1, max_size=12), st.integers(1, 1280), max_size=5),
)


@given(architectures)
def test_json_round_trip_keeps_value_and_id(architecture: Architecture) -> None:
    again = Architecture.from_dict(json.loads(json.dumps(architecture.to_dict())))
    assert again == architecture
    assert again.id == architecture.id
    assert hash(again) == hash(architecture)
    assert pickle.loads(pickle.dumps(architecture)) == architecture


def test_the_id_depends_on_content_not_on_order() -> None:
    one = Architecture("partialnet_t0", {"a": 1, "b": (2, 3)}, {"x": 4, "y": 8})
    two = Architecture("partialnet_t0", {"b": [2, 3], "a": 1}, {"y": 8, "x": 4})
    assert one.id == two.id
    assert one.id != Architecture("partialnet_t0", {"a": 1, "b": (2, 3)}, {"x": 8, "y": 4}).id


def test_it_cannot_be_changed() -> None:
    architecture = Architecture("partialnet_t0", {}, {"x": 4})
    with pytest.raises(TypeError):
        architecture.active_channels["x"] = 8  # type: ignore[index]


@pytest.mark.parametrize("count", [0, -1, 2.0, True, "4"])
def test_active_channels_are_positive_integers(count: object) -> None:
    with pytest.raises(ArchitectureError, match="must be an integer of at least 1"):
        Architecture("partialnet_t0", {}, {"x": count})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "JSON object"),
        ({"schema": 1, "model": "m", "options": {}, "active_channels": {}, "ratio": 4}, "unknown keys.*ratio"),
        ({"schema": 3, "model": "m", "options": {}, "active_channels": {}}, "schema is 3"),
        ({"schema": True, "model": "m", "options": {}, "active_channels": {}}, "schema is True"),
        ({"schema": 2, "model": "timm/m", "options": {}, "active_channels": {}}, "conversion has NoneType"),
        ({"schema": 2, "model": "m", "options": {}, "active_channels": {}, "conversion": {}}, "has a source"),
        ({"schema": 1, "model": "timm/m", "options": {}, "active_channels": {}}, "and a conversion"),
        ({"schema": 1, "model": "m", "options": []}, "options"),
        ({"schema": 1, "options": {}, "active_channels": {}}, "'model' is None"),
    ],
)
def test_a_wrong_form_is_explained(data: object, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        Architecture.from_dict(data)  # type: ignore[arg-type]


def test_files_round_trip_and_name_themselves_in_errors(tmp_path: Path) -> None:
    architecture = Architecture("partialnet_micro", {"patch_size": 1}, {"stages.0.blocks.0.mixer": 4})
    architecture.save(tmp_path / "a.json")
    assert Architecture.load(tmp_path / "a.json") == architecture
    (tmp_path / "b.json").write_text("{")
    for name in ("b.json", "missing.json"):
        with pytest.raises(ArchitectureError, match=name):
            Architecture.load(tmp_path / name)


def test_variant_names() -> None:
    assert model_name("T0") == model_name("partialnet_t0") == "partialnet_t0"
    with pytest.raises(ArchitectureError, match="unknown variant 't9'; known: micro, t0"):
        model_name("t9")
