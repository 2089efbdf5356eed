"""The injection of `make faults`, a kill of each kind; all of them take minutes."""

from __future__ import annotations

import pytest

from tests.faults.__main__ import spread_kills
from tests.faults.injection import inject, moments_of
from tests.faults.kinds import FAULTS, missing


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_costs_more_than_an_epoch(fault: str) -> None:
    lacks = missing(fault)
    if lacks is not None:
        pytest.skip(lacks)
    [damage] = inject({fault: 1}, 0, print)
    assert damage.harmless, damage


def test_kills_are_spread_over_targets_and_studies() -> None:
    assert spread_kills(["a", "b"], 11) == [{"a": 4, "b": 4}, {"a": 2, "b": 1}]
    assert spread_kills(["a", "b", "c"], 1) == [{"a": 1}]


def test_moments_are_random_and_lie_in_different_epochs() -> None:
    moments = moments_of("0:worker", 4, 18)
    assert list(moments) == sorted(moments)
    assert len({int(moment) for moment in moments}) == 4
    assert 0 <= moments[0] <= moments[-1] < 17
    assert moments_of("1:worker", 4, 18) != moments
