"""The injection of `make faults`, a kill of each kind; all of them take minutes."""

from __future__ import annotations

import pytest

from tests.faults.__main__ import spread_kills
from tests.faults.injection import TARGETS, inject
from tests.faults.studies import small_study


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(3600)
def test_no_kill_costs_more_than_an_epoch() -> None:
    found = inject(small_study(), dict.fromkeys(TARGETS, 1), 0, print)
    assert [one.target for one in found] == list(TARGETS)
    assert [one for one in found if not one.harmless] == []


def test_kills_are_spread_over_targets_and_studies() -> None:
    assert spread_kills(["a", "b"], 9) == [{"a": 3, "b": 3}, {"a": 2, "b": 1}]
    assert spread_kills(["a", "b", "c"], 1) == [{"a": 1}]
