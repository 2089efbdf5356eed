"""Results of an earlier study: which hold in a new one, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nas.errors import InputError, NotFoundError
from nas.findings.milliseconds import own_fingerprints
from nas.findings.warm_start import prior_trials
from nas.metrics import Measurement
from nas.store import Store
from nas.study import PriorTrial, Study, StudyState
from nas.trial import Fidelity, TrialKind, TrialState
from tests.nas.store.makers import candidate, complete, study
from tests.nas.strategies import make_definition, make_trial

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SPACE = {"target": {"log_uniform": [2, 8]}, "penalty": {"uniform": [0.0, 2.0]}}


def earlier(**changes) -> Study:
    return Study("id", "before", StudyState.FINISHED, make_definition(**{"space": SPACE, **changes}), {}, NOW, NOW)


def trial(number: int = 1, scores=(0.5, 100.0), **parameters):
    return make_trial(number, scores, parameters={"target": 4.0, "penalty": 0.9, **parameters})


def known(definition, source: Study, *trials) -> list[int]:
    return [found.number for found in prior_trials(definition, source, trials, {})]


def test_a_complete_trial_is_known_by_what_is_swept_now() -> None:
    [found] = prior_trials(make_definition(space={**SPACE, "penalty": 0.9}), earlier(), [trial()], {})
    assert found == PriorTrial("before", 1, {"target": 4.0}, {"top1": 0.5, "macs": 100.0})
    assert PriorTrial.from_dict(found.to_dict()) == found


def test_only_complete_search_trials_count() -> None:
    others = [
        make_trial(2, (0.5, 1.0), kind=TrialKind.BASELINE, parameters={"ratio": 0.25}),
        make_trial(3, parameters={"target": 4.0, "penalty": 0.9}),
        replace(trial(4, None), state=TrialState.PRUNED, fidelity=Fidelity(1, 4)),
        replace(trial(5), state=TrialState.RUNNING),
    ]
    assert known(make_definition(space=SPACE), earlier(), *others, trial()) == [1]


def test_trials_outside_of_the_new_space_are_left_out() -> None:
    space = {"target": {"log_uniform": [3, 5]}, "penalty": {"uniform": [0.0, 2.0]}}
    trials = [trial(1, target=2.5), trial(2, target=3.5), trial(3, target=5.5)]
    assert known(make_definition(space=space), earlier(), *trials) == [2]


def test_a_constant_counts_as_the_value_of_each_trial() -> None:
    source = earlier(space={**SPACE, "penalty": 0.9})
    assert known(make_definition(space=SPACE), source, trial()) == [1]
    swept = make_definition(space={**SPACE, "batch_size": {"int": [64, 256]}})
    assert prior_trials(swept, earlier(), [trial()], {})[0].parameters["batch_size"] == 128
    fixed = make_definition(space={**SPACE, "penalty": 0.5})
    with pytest.raises(InputError, match="none lies within the new space"):
        known(fixed, source, trial())


def test_a_constrained_metric_must_be_known() -> None:
    with pytest.raises(InputError, match="none lies within the new space"):
        known(make_definition(space=SPACE, constraints=["params <= 1 M"]), earlier(), trial())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"name": "digits", "train_limit": 200}}, "its data differs"),
        ({"model": {"name": "micro", "embed_dim": 8}}, "its model differs"),
        ({"method": "fractional"}, "its method differs"),
        ({"budget": {"unit": "params", "scope": "conv"}}, "its budget differs"),
        ({"training": {"epochs": 3}}, "its training.epochs is 20 instead of 3"),
    ],
)
def test_scores_of_another_kind_are_refused(changes, said) -> None:
    with pytest.raises(InputError, match=f"study before has scores of another kind: .*{said}"):
        prior_trials(make_definition(**{"space": SPACE, **changes}), earlier(), [trial()], {})


MILLISECONDS = {"budget": {"unit": "latency", "target": 4, "runtime": "onnx"}, "space": {}}


def test_latencies_of_another_table_are_refused() -> None:
    slower = {**MILLISECONDS, "latency": {"threads": 4}}
    with pytest.raises(InputError, match=r"study before has scores of another kind: its latency.threads is 4 instead"):
        prior_trials(make_definition(**MILLISECONDS), earlier(**slower), [trial()], {})


def test_a_study_in_milliseconds_begins_with_the_table_of_the_earlier_one(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        where = {"runtime": "onnx 1.31", "threads": 1, "batch": 1, "device": "here"}
        table = {"fingerprint": "here", "table": {"circumstances": where}}
        own = own_fingerprints(table, (1, 8, 8))["predicted_ms"]
        first = study(store, "first", **MILLISECONDS)
        store.record_latency_table(first.id, table)
        times = [Measurement("predicted_ms", ms, {}, where) for ms, where in ((4.5, own), (9.0, "another"))]
        found = candidate(measurements=tuple(times))
        complete(store, first.id, found=found)
        second = study(store, "second", sweep={"from": "first"}, **MILLISECONDS)
        assert [known.values["predicted_ms"] for known in store.prior(second.id)] == [4.5]
        assert store.latency_table(second.id) == table


def test_what_was_neither_swept_nor_given_is_refused() -> None:
    swept = {**SPACE, "complexity_exponent": {"uniform": [0.1, 2.0]}}
    with pytest.raises(InputError, match="has no 'complexity_exponent', which is swept now"):
        prior_trials(make_definition(space=swept), earlier(), [trial()], {})


def test_an_empty_study_is_refused() -> None:
    with pytest.raises(InputError, match="has no complete search trial"):
        prior_trials(make_definition(space=SPACE), earlier(), [], {})


def test_a_study_keeps_the_results_that_it_began_with(tmp_path: Path) -> None:
    space = {"target": {"log_uniform": [2, 8]}}
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        first = study(store, "first")
        complete(store, first.id)
        second = study(store, "second", sweep={"from": "latest"}, space=space)
        complete(store, first.id)
        assert [found.number for found in store.prior(second.id)] == [0]
        assert store.prior(first.id) == ()
        assert store.study("second").definition.sweep.warm_start == "first"  # not 'latest', which is another one now
        with pytest.raises(NotFoundError, match="nowhere"):
            study(store, sweep={"from": "nowhere"}, space=space)
        with pytest.raises(InputError, match="its method differs"):
            study(store, "third", sweep={"from": "first"}, method="fractional", space=space)
        assert [row.study.name for row in store.studies()] == ["second", "first"]
