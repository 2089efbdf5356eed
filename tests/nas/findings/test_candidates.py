"""Which of a trial's networks is meant."""

from __future__ import annotations

import pytest

from nas.errors import ConflictError, InputError, NasError, NotFoundError
from nas.findings.candidates import choose_candidate, describe_candidate, describe_candidates
from nas.trial import Trial, TrialKind, TrialState
from tests.nas.store.makers import networks


def trial(count: int = 3, state: TrialState = TrialState.COMPLETE, reason: str | None = None) -> Trial:
    return Trial(7, TrialKind.SEARCH, state, {}, 1, reason, tuple(networks(count)))


def test_by_place_and_by_the_beginning_of_the_id() -> None:
    several = trial()
    for position, candidate in enumerate(several.candidates):
        for wanted in (str(position), candidate.architecture.id[:6], candidate.architecture.id.upper()):
            assert choose_candidate(several, "s", wanted) == (position, candidate)


def test_a_single_network_need_not_be_named() -> None:
    assert choose_candidate(trial(1), "s")[0] == 0
    assert choose_candidate(trial(1), "s", "0")[0] == 0


@pytest.mark.parametrize(
    ("of", "wanted", "error", "message"),
    [
        (trial(), None, InputError, "trial 7 of s has 3 networks: choose one by its place or the beginning of its id"),
        (trial(), "3", NotFoundError, "trial 7 of s has no network '3'"),
        (trial(), "", NotFoundError, "has no network ''"),
        (trial(), "-1", NotFoundError, "has no network '-1'"),
        (trial(), "ffffffffffff", NotFoundError, "has no network 'ffffffffffff'"),
        (trial(0, TrialState.FAILED, "why"), None, ConflictError, r"trial 7 of s is failed \(why\) and has no network"),
        (trial(0, TrialState.RUNNING), "0", ConflictError, "trial 7 of s is running and has no network"),
    ],
)
def test_what_is_not_there(of: Trial, wanted: str | None, error: type[NasError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        choose_candidate(of, "s", wanted)
    for position, candidate in enumerate(of.candidates):
        assert f"{position}: {candidate.architecture.id[:12]} ({describe_candidate(candidate)})" in str(caught.value)


def test_in_a_few_words() -> None:
    assert describe_candidates(networks(1)) == "top-1 50.00 %, 1.00 k multiply-adds"
    assert describe_candidates(networks(3)) == "3 networks, top-1 50.00 to 70.00 %, 1.00 k to 3.00 k multiply-adds"
