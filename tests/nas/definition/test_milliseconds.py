"""A budget in milliseconds: one section that says it all, and what it means for the others."""

from __future__ import annotations

from typing import Any

import pytest

from nas.definition.space import Uniform
from nas.definition.study import StudyDefinition, parse_study
from nas.errors import DefinitionError
from tests.nas.tiny import tiny

WHOLE = {"unit": "latency", "target": 12, "runtime": "onnx", "threads": 2, "batch": 4}


def study(budget: dict[str, Any], **changes: Any) -> StudyDefinition:
    return tiny(**{"latency": {}, "budget": budget, **changes})


@pytest.mark.parametrize("method", ["gates", "fractional", "supernet"])
def test_one_section_says_it_all(method: str) -> None:
    made = study(WHOLE, method=method, training={"epochs": 2})
    assert made.latency is not None
    assert made.latency.model_dump(include={*WHOLE, "table"}) == {
        "runtime": "onnx", "threads": 2, "batch": 4, "table": "auto",
    }  # fmt: skip
    assert made.space["target"] == 12
    assert made.targets == (12,)
    assert made.objectives == ("top1", "predicted_ms")
    assert made.constraints == ()
    assert parse_study(made.to_dict()) == made


def test_it_equals_the_sections_written_apart() -> None:
    apart = study(
        {"unit": "latency"},
        latency={"runtime": "onnx", "threads": 2, "batch": 4, "table": "auto"},
        space={"target": 12.0, **{key: entry for key, entry in tiny().space.items() if key != "target"}},
        objectives=["top1", "latency"],
    )
    assert study(WHOLE) == apart


def test_a_hard_limit_clears_the_front_and_steers_the_searcher() -> None:
    made = study({"unit": "latency", "at_most": 12})
    assert made.budget.at_most == made.space["target"] == 12
    assert [str(limit) for limit in made.constraints] == ["latency_ms <= 12.0"]
    assert [str(limit) for limit in made.told_constraints] == ["predicted_ms <= 12.0"]
    assert parse_study(made.to_dict()) == made


def test_a_hard_limit_of_a_front_is_its_highest_target() -> None:
    made = study({"unit": "latency", "at_most": 12}, method="supernet", training={"epochs": 2})
    assert isinstance(made.space["target"], Uniform)
    assert (len(made.targets), made.targets[-1]) == (8, 12)
    assert made.targets[0] > 10


def test_a_written_limit_is_not_repeated() -> None:
    made = study({"unit": "latency", "at_most": 12}, constraints=["latency <= 12 ms", "predicted <= 12 ms"])
    assert [str(limit) for limit in made.constraints] == ["latency_ms <= 12.0", "predicted_ms <= 12.0"]
    assert [str(limit) for limit in made.told_constraints] == ["predicted_ms <= 12.0"]


@pytest.mark.parametrize(
    ("budget", "changes", "expected"),
    [
        ({"at_most": 12, "target": 3}, {}, "budget: give target (3) or at_most (12), not both"),
        ({"target": "12 ms"}, {}, "budget.target is '12 ms', but must be a positive number of milliseconds"),
        ({"at_most": -1}, {}, "budget.at_most is -1, but must be a positive number"),
        ({"target": True}, {}, "budget.target is True, but must be a positive number"),
        ({"target": 3, "runtime": "tflite"}, {}, "latency.runtime: must be 'torch', 'compile' or 'onnx'"),
        ({"target": 3, "thread": 1}, {}, "budget.thread: unknown key"),
        ({"target": 3, "threads": 2}, {"latency": {"threads": 1}}, "budget.threads is 2, but latency.threads is 1"),
        ({"target": 3}, {"space": {"target": 4}}, "budget.target is 3, but space.target is 4; give one of them"),
        ({"at_most": 3}, {"space": {"target": {"uniform": [2, 4]}}}, "targets go up to 4 ms, but budget.at_most is 3"),
        ({"target": 3}, {"latency": None}, "budget: unit 'latency' needs a latency table"),
        ({"unit": "macs", "target": 3}, {}, "budget: target works only with unit 'latency'; targets of other units"),
        ({"unit": "params", "at_most": 3}, {}, "budget: at_most works only with unit 'latency'"),
        ({"unit": "macs"}, {"objectives": ["top1", "latency"]}, "'predicted_ms' needs a latency table"),
    ],
)
def test_what_is_refused(budget: dict[str, Any], changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        study({"unit": "latency", **budget}, **changes)
    assert expected in str(caught.value)
