"""The importance of parameters where the truth is known."""

from __future__ import annotations

import random
import warnings

import pytest

from nas.definition.study import parse_study
from nas.findings.importance import Observed
from nas.sweep import importance
from nas.sweep.importance import importances

DEFINITION = parse_study(
    {
        "name": "x",
        "data": {"name": "digits"},
        "model": {"name": "micro", "patch_size": 1},
        "space": {
            "target": {"log_uniform": [2, 16]},
            "penalty": {"uniform": [0, 1]},
            "complexity_exponent": {"choice": [0.01, 0.1, 1.0]},
        },
    }
)


def trials(count: int, seed: int) -> list[Observed]:
    """Return trials whose top-1 depends on the penalty alone, and whose cost depends on the target alone."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        target, penalty = 2 * 8 ** draw.random(), draw.random()
        parameters = {"target": target, "penalty": penalty, "complexity_exponent": draw.choice([0.01, 0.1, 1.0])}
        values = {"top1": 0.5 + 0.4 * penalty, "macs": 1e6 / target}
        found.append(Observed(parameters, tuple(values[name] for name in DEFINITION.objectives)))
    return found


@pytest.mark.parametrize("count", [20, 200])
def test_the_parameter_that_decides_an_objective_is_first_and_beyond_chance(count: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing of Optuna's reaches the log of a service
        found = importances(trials(count, seed=1), DEFINITION)
    assert found.trials == found.used == count
    for objective, decider in (("top1", "penalty"), ("macs", "target")):
        shares = found.shares[objective]
        assert next(iter(shares)) == decider
        assert shares[decider].clear
        assert shares[decider].value > 0.6
        assert sum(share.value for share in shares.values()) == pytest.approx(1)


def test_equal_trials_give_equal_shares_and_more_than_the_most_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "MOST", 30)
    some = trials(40, seed=2)
    found = importances(some, DEFINITION)
    assert (found.trials, found.used) == (40, 30)
    assert found == importances(some, DEFINITION)


def test_an_objective_without_any_spread_has_no_clear_parameter() -> None:
    flat = [Observed(trial.parameters, (0.5,) * len(DEFINITION.objectives)) for trial in trials(25, seed=3)]
    assert not any(share.clear for shares in importances(flat, DEFINITION).shares.values() for share in shares.values())
