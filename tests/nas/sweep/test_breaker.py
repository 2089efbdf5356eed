"""Faults that concern all trials: recognised by their kind, or by equal failures in a row."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import CommonFault, DefinitionError, StoreError
from nas.sweep.breaker import EQUAL_FAILURES, Breaker, Failure, Scope, failure_of, fault_of
from partialnet.errors import BudgetError, DataError, TrainingDiverged


@pytest.mark.parametrize(
    ("error", "scope"),
    [
        (TrainingDiverged(3, float("nan")), Scope.OWN),
        (DefinitionError("too deep"), Scope.OWN),
        (BudgetError("too small"), Scope.OWN),
        (DataError("a.png: cannot be read as an image"), Scope.COMMON),
        (CommonFault("no room"), Scope.COMMON),
        (OSError(errno.ENOSPC, "No space left on device"), Scope.COMMON),
        (OSError(errno.EROFS, "Read-only file system"), Scope.COMMON),
        (RuntimeError("I/O error: No space left on device (os error 28)"), Scope.COMMON),
        (StoreError("weights cannot be written"), Scope.UNKNOWN),
        (RuntimeError("CUDA error: unspecified launch failure"), Scope.UNKNOWN),
        (KeyError("x"), Scope.UNKNOWN),
    ],
)
def test_an_error_tells_whom_it_concerns(error: Exception, scope: Scope, tmp_path: Path) -> None:
    failure = failure_of(error, str(tmp_path))
    assert failure.scope is scope
    assert str(error).strip("'") in failure.reason


def test_causes_below_an_error_count(tmp_path: Path) -> None:
    error = StoreError("storage: weights cannot be written")
    error.__cause__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert failure_of(error, str(tmp_path)) == Failure("storage: weights cannot be written", Scope.COMMON)


def test_any_error_beside_an_unusable_storage_is_the_storages(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    failure = failure_of(RuntimeError("PytorchStreamWriter failed writing file"), str(tmp_path / "file" / "storage"))
    assert failure.scope is Scope.COMMON
    assert "cannot be written" in failure.reason


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (StoreError("the database does not answer"), True),
        (CommonFault("checkpoint cannot be written ([Errno 28] No space left on device)"), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (CommonFault("a.png: cannot be read as an image"), False),
    ],
)
def test_a_fault_of_the_search_may_pass(error: Exception, passing: bool, tmp_path: Path) -> None:
    fault = fault_of(error, str(tmp_path))
    assert fault is not None
    assert fault.passing is passing
    assert str(error) in fault.reason


def test_an_error_of_the_search_itself_is_no_fault(tmp_path: Path) -> None:
    assert fault_of(KeyError("x"), str(tmp_path)) is None
    (tmp_path / "file").touch()
    beside = fault_of(KeyError("x"), str(tmp_path / "file" / "storage"))
    assert beside is not None
    assert beside.passing
    assert "cannot be written" in beside.reason


@given(st.lists(st.sampled_from(["a 1", "a 2", "b 1", "own", "good"]), max_size=30))
def test_the_breaker_trips_at_equal_failures_without_a_success_between(history: list[str]) -> None:
    """Against a plain definition: the last failures that are not the trials' own are equal, up to numbers."""
    breaker = Breaker()
    row: list[tuple[int, str]] = []
    for number, kind in enumerate(history):
        if kind == "good":
            breaker.succeeded()
            row = []
            continue
        cost = breaker.failed(number, Failure(kind, Scope.OWN if kind == "own" else Scope.UNKNOWN))
        if kind == "own":
            assert cost == []
            continue
        row = [(n, k) for n, k in row if k == kind[0]] if all(k == kind[0] for _, k in row) else []
        row.append((number, kind[0]))
        if len(row) == EQUAL_FAILURES:
            assert cost == [n for n, _ in row]
            assert breaker.fault is not None
            row = []
        else:
            assert cost == []
