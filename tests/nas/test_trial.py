from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.candidate import Candidate, Split
from nas.finalist import Finalist, Role
from nas.metrics import Evaluation, EvaluationKind, Measurement
from nas.trial import EpochRecord, Trial, TrialKind, TrialState, seed_for, trial_seed
from partialnet.architecture import Architecture


@given(st.integers(0, 2**31 - 1), st.integers(0, 10_000))
def test_trial_seeds_are_stable_and_in_range(seed: int, number: int) -> None:
    assert trial_seed(seed, number) == trial_seed(seed, number)
    assert 0 <= trial_seed(seed, number) < 2**31


def test_trial_seeds_differ_between_trials_and_studies() -> None:
    seeds = {trial_seed(study, number) for study in range(20) for number in range(200)}
    assert len(seeds) == 4000


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_figures_are_finite(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Evaluation(EvaluationKind.FINETUNED, "top1", value)
    with pytest.raises(ValueError, match="finite"):
        Measurement("macs", value)
    with pytest.raises(ValueError, match="finite"):
        EpochRecord(1, "gates", {"loss": value}, {})


def test_evaluations_and_measurements_do_not_mix() -> None:
    with pytest.raises(ValueError, match="metric is 'macs'"):
        Evaluation(EvaluationKind.FINETUNED, "macs", 1.0)
    with pytest.raises(ValueError, match="metric is 'top1'"):
        Measurement("top1", 1.0)


def test_a_split_knows_its_ratio_and_its_bounds() -> None:
    assert Split("m", 0, 32, 8, 100).ratio == 0.25
    with pytest.raises(ValueError, match=r"active_channels=33 must be in 1\.\.32"):
        Split("m", 0, 32, 33, 100)


def test_a_score_is_of_one_kind_and_one_split() -> None:
    candidate = Candidate(
        Architecture("partialnet_micro"),
        evaluations=(
            Evaluation(EvaluationKind.INHERITED, "top1", 0.3),
            Evaluation(EvaluationKind.FINETUNED, "top1", 0.5),
            Evaluation(EvaluationKind.RETRAINED, "top1", 0.6, data_split="test"),
        ),
        measurements=(Measurement("macs", 10), Measurement("macs", 12)),
    )
    assert candidate.score("top1", EvaluationKind.FINETUNED) == 0.5
    assert candidate.score("top1", EvaluationKind.RETRAINED) is None
    assert candidate.score("top1", EvaluationKind.RETRAINED, "test") == 0.6
    assert candidate.score("macs") == 12


def test_labels_and_states() -> None:
    trial = Trial(0, TrialKind.BASELINE, TrialState.QUEUED, {"ratio": 0.125}, 1)
    assert trial.label == "uniform 1/8"


@pytest.mark.parametrize(
    ("finalist", "label"),
    [
        (Finalist(Role.LEARNED, 5, None, 9.0, (3,)), "trial 5, retrained"),
        (Finalist(Role.LEARNED, 5, 0, 9.0, (3,)), "trial 5.0, retrained"),
        (Finalist(Role.UNIFORM, 5, None, 9.0, (3,), ratio=0.25), "uniform 1/4, retrained"),
        (Finalist(Role.UNIFORM, 5, None, 9.0, (3,), ratio=0.2421875), "uniform 0.242, retrained"),
        (Finalist(Role.RANDOM, 5, None, 9.0, (3,), draw=1), "random split 2, retrained"),
        (None, "retrain"),
    ],
)
def test_labels_of_the_final_comparison(finalist, label) -> None:
    assert Trial(7, TrialKind.RETRAIN, TrialState.QUEUED, {}, 1, finalist=finalist).label == label


@given(st.integers(0, 2**31 - 1), st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 50))
def test_networks_that_are_compared_share_their_seeds(study_seed, one, two, index) -> None:
    first, second = (Finalist(Role.LEARNED, 0, None, 9.0, (3,), seed_index=index + k) for k in range(2))
    seeds = {seed_for(study_seed, number, first) for number in (one, two)}
    assert len(seeds) == 1
    assert seeds != {seed_for(study_seed, one, second)}
    assert seed_for(study_seed, one) == trial_seed(study_seed, one)
    assert [s for s in TrialState if not s.ended] == [TrialState.QUEUED, TrialState.RUNNING, TrialState.INTERRUPTED]
