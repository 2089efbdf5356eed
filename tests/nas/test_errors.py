"""Errors in one line: ours as they are, others with their type and place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import InputError, StoreError, explain, failure_reason, one_line
from partialnet.errors import ArchitectureError, TrainingDiverged


@given(st.text())
def test_an_error_is_one_line_and_says_something(text: str) -> None:
    line = one_line(ValueError(text))
    assert line.splitlines() == [line]
    assert line == (" ".join(text.split()) or "ValueError")


@pytest.mark.parametrize("kind", [InputError, StoreError, ArchitectureError])
def test_errors_raised_on_purpose_stand_as_they_are(kind: type[Exception]) -> None:
    assert explain(kind("depth is 3, but must be 4")) == "depth is 3, but must be 4"
    assert explain(kind("")) == f"{kind.__name__}: "


def test_other_errors_stand_with_their_type() -> None:
    assert explain(TrainingDiverged(7, float("nan"))).startswith("the training diverged: loss is nan at step 7")
    assert explain(KeyError("x")) == "KeyError: 'x'"
    assert explain(None) == ""


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as found:
        return found


def test_an_unexpected_error_says_where_it_was_raised() -> None:
    assert failure_reason(raised(ValueError("two\nlines"))).startswith("ValueError: two lines (test_errors.py:")
    assert failure_reason(raised(ValueError())).startswith("ValueError (test_errors.py:")
    assert failure_reason(ValueError("never raised")) == "ValueError: never raised"
