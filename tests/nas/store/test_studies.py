"""Studies and events: one contract, run over every database."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nas.definition.study import load_study
from nas.errors import ConflictError, InputError, NotFoundError, StoreError
from nas.finalist import Finalist, Role
from nas.jobs import JobKind
from nas.metrics import Evaluation, EvaluationKind
from nas.store import Store
from nas.store.study_lists import StudyQuery
from nas.study import ComparisonPlan, DataFingerprint, StudyState
from nas.trainings import TrainingQuery
from nas.trial import TrialKind, TrialState
from tests.nas.store.makers import REFERENCE, candidate, complete, definition, study


class TestCreate:
    def test_what_was_put_in_comes_out(self, store: Store) -> None:
        wanted = definition(
            space={"target": {"log_uniform": [2, 8]}, "learning_rate": {"choice": [1e-3, 2e-3]}}, baselines=["1/3"]
        )
        made = store.create_study(wanted, reference_point=REFERENCE)
        assert made == store.study(made.id)
        assert made.definition == wanted
        assert (made.name, made.state, made.reason, made.report) == ("digits", StudyState.QUEUED, None, ())
        assert made.reference_point == REFERENCE
        assert made.created_at.tzinfo == UTC
        assert abs(datetime.now(UTC) - made.created_at) < timedelta(minutes=1)

    def test_a_taken_name_gets_the_next_number(self, store: Store) -> None:
        names = [study(store, name).name for name in ("a", "a", "a-2", "a", "a_b", "ax", "latest")]
        assert names == ["a", "a-2", "a-2-2", "a-3", "a_b", "ax", "latest-2"]

    def test_the_spread_of_an_earlier_comparison_is_fixed_at_creation(self, store: Store) -> None:
        earlier = study(store, "earlier")
        with pytest.raises(InputError, match="study earlier has no final comparison with two seeds"):
            study(store, final={"pilot": "earlier"})
        trainings = [
            Finalist(role, 0, None, 9.0, (4, 3), seed_index=seed)
            for role in (Role.LEARNED, Role.UNIFORM)
            for seed in (0, 1)
        ]
        for spec, top1 in zip(store.add_finalists(earlier.id, trainings), (0.6, 0.8, 0.5, 0.5), strict=True):
            store.start_trial(earlier.id, spec.number)
            found = candidate(evaluations=(Evaluation(EvaluationKind.RETRAINED, "top1", top1, data_split="test"),))
            store.end_trial(earlier.id, spec.number, TrialState.COMPLETE, candidates=[found])
        made = study(store, final={"pilot": earlier.id})
        assert made.definition.final.pilot == "earlier"
        assert made.comparison_plan.spread == pytest.approx(0.02**0.5)
        assert store.study(made.id) == made
        plan = ComparisonPlan(("no shape",), 0.1, 3, "trainings")
        store.record_comparison_plan(made.id, plan)
        assert store.study(made.id).comparison_plan == plan
        assert earlier.comparison_plan is None

    def test_an_underscore_is_no_wildcard(self, store: Store) -> None:
        assert [study(store, name).name for name in ("axb-2", "a_b", "a_b")] == ["axb-2", "a_b", "a_b-2"]

    def test_a_name_of_one_s_own(self, store: Store) -> None:
        made = store.create_study(definition(), reference_point={}, name="mine")
        assert (made.name, made.definition.name) == ("mine", "digits")
        with pytest.raises(InputError, match=r"'\.\./x'"):
            store.create_study(definition(), reference_point={}, name="../x")


class TestFind:
    def test_by_id_name_prefix_and_latest(self, store: Store) -> None:
        first, second = study(store, "first"), study(store, "second")
        for ref in (first.id, "first", first.id[:6], first.id[:13]):
            assert store.study(ref) == first
        assert store.study("latest") == second

    def test_a_name_that_looks_like_a_prefix_wins(self, store: Store) -> None:
        first = study(store, "first")
        assert store.study(study(store, first.id[:8]).name).name == first.id[:8]

    @pytest.mark.parametrize("ref", ["digit", "", "%", "digits%", "../digits", "abcde", "0" * 36])
    def test_what_does_not_exist_is_said_with_what_does(self, store: Store, ref: str) -> None:
        study(store, "digits-small")
        with pytest.raises(NotFoundError, match="did you mean digits-small"):
            store.study(ref)

    def test_an_empty_store(self, store: Store) -> None:
        for ref in ("latest", "x"):
            with pytest.raises(NotFoundError, match="nas run"):
                store.study(ref)
        assert store.studies() == []

    def test_a_prefix_of_two(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        ids = iter(["abcdef00-0000-4000-8000-000000000001", "abcdef00-0000-4000-8000-000000000002"])
        monkeypatch.setattr("uuid.uuid4", lambda: next(ids))
        study(store), study(store)
        with pytest.raises(NotFoundError, match=r"several study ids: abcdef00.*, abcdef00"):
            store.study("abcdef00")


class TestState:
    def test_state_reason_and_report(self, store: Store) -> None:
        made = study(store)
        store.set_study_state(made.id, StudyState.FAILED, reason="out of \x00memory")
        assert (store.study(made.id).state, store.study(made.id).reason) == (StudyState.FAILED, "out of memory")
        store.set_study_state(made.id, StudyState.RUNNING)
        assert store.study(made.id).reason is None
        store.set_study_state(made.id, StudyState.FINISHED, report=["It does.", "By 2 %."])
        found = store.study(made.id)
        assert (found.state, found.report) == (StudyState.FINISHED, ("It does.", "By 2 %."))
        assert found.updated_at > made.updated_at
        store.set_study_state(made.id, StudyState.RUNNING)
        assert store.study(made.id).report == found.report

    def test_the_same_again_is_no_event(self, store: Store) -> None:
        made = study(store)
        for _ in range(2):
            store.set_study_state(made.id, StudyState.RUNNING)
        assert [event.kind for event in store.events_after(made.id, 0)] == ["study", "study"]

    def test_reference_point(self, store: Store) -> None:
        made = study(store)
        store.set_reference_point(made.id, {"top1": 0.0, "macs": 7.5})
        assert store.study(made.id).reference_point == {"top1": 0.0, "macs": 7.5}

    def test_no_such_study(self, store: Store) -> None:
        study(store)
        with pytest.raises(NotFoundError, match="'nope'"):
            store.set_study_state("nope", StudyState.RUNNING)

    def test_a_number_that_json_does_not_have_is_refused(self, store: Store) -> None:
        made = study(store)
        with pytest.raises(StoreError, match="refused a value"):
            store.set_reference_point(made.id, {"macs": float("nan")})
        assert store.study(made.id) == made


class TestRows:
    def test_counts_and_best_score(self, store: Store) -> None:
        first, second = study(store, "first"), study(store, "second")
        complete(store, first.id, top1=0.8), complete(store, first.id, active=5, top1=0.85)
        store.add_trials(first.id, [(TrialKind.SEARCH, {"target": 2.0})])
        rows = store.studies()
        assert [row.study.name for row in rows] == ["second", "first"]
        assert rows[1] == store.study_row("first")
        assert rows[1].counts == {
            **dict.fromkeys(TrialState, 0), TrialState.COMPLETE: 2, TrialState.QUEUED: 1
        }
        assert rows[1].best_top1 == 0.85
        assert rows[0].counts == dict.fromkeys(TrialState, 0)
        assert (rows[0].study, rows[0].best_top1) == (second, None)


class TestEvents:
    def test_each_change_is_an_event_in_order(self, store: Store) -> None:
        made = study(store)
        complete(store, made.id)
        events = store.events_after(made.id, 0)
        assert [event.number for event in events] == [1, 2, 3, 4, 5, 6]
        assert [event.kind for event in events] == ["study", "trial", "trial", "epoch", "trial", "front"]
        assert [event.payload["state"] for event in events if event.kind == "trial"] == [
            "queued", "running", "complete"
        ]
        assert events[3].payload == {
            "number": 0, "epoch": 1, "phase": "gates", "metrics": {"loss": 1.5, "top1": 0.5}
        }

    def test_after_a_number(self, store: Store) -> None:
        made = study(store)
        complete(store, made.id)
        assert [event.number for event in store.events_after(made.id, 3)] == [4, 5, 6]
        assert [event.number for event in store.events_after(made.id, 1, limit=2)] == [2, 3]
        assert store.events_after(made.id, 6) == []
        with pytest.raises(NotFoundError):
            store.events_after("nope", 0)

    def test_a_refused_change_leaves_no_event_and_no_gap(self, store: Store) -> None:
        made = study(store)
        with pytest.raises(NotFoundError):
            store.start_trial(made.id, 0)
        with pytest.raises(StoreError):
            store.set_reference_point(made.id, {"macs": float("inf")})
        store.set_study_state(made.id, StudyState.RUNNING)
        assert [event.number for event in store.events_after(made.id, 0)] == [1, 2]


def test_every_shipped_definition_survives(store: Store, request: pytest.FixtureRequest) -> None:
    files = sorted((request.config.rootpath / "studies").glob("*.yaml"))
    assert files
    for path in files:
        wanted = load_study(path)
        assert store.create_study(wanted, reference_point={}).definition == wanted


def test_a_study_from_before_the_final_comparison_has_none(tmp_path: Path) -> None:
    path = tmp_path / "nas.db"
    with Store.open(f"sqlite:///{path}") as store:
        made = study(store, "old")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE studies SET definition = json_remove(definition, '$.final')")
    with Store.open(f"sqlite:///{path}") as store:
        old = store.study(made.id).definition
    assert old.final.candidates == 0
    assert old.planned == old.sweep.trials + len(old.baselines) < made.definition.planned


def test_a_study_keeps_what_its_data_was(store: Store) -> None:
    made = study(store)
    assert made.data is None
    data = DataFingerprint(("a", "b"), {"train": 9, "validation": 1}, {"train": "00", "validation": "11"})
    store.record_data(made.id, data)
    store.record_data(made.id, data)  # the same again is no news
    assert store.study(made.id).data == data
    assert [event.payload["data"] for event in store.events_after(made.id, 1)] == [data.to_dict()]
    other = DataFingerprint(("a", "b", "c"), data.counts, data.content)
    with pytest.raises(ConflictError, match=r"the data of study digits has changed .*: with the new class 'c'\. Put"):
        store.record_data(made.id, other)
    assert store.study(made.id).data == data


def test_order_does_not_depend_on_the_clock(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = iter(range(1000, 0, -1))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(type(store._database), "now", lambda *_: start + timedelta(hours=next(hours)))
    studies = [study(store, name) for name in ("a", "b", "c")]
    assert store.study("latest").name == "c"
    assert [row.study.name for row in store.studies()] == ["c", "b", "a"]
    queued = [store.enqueue_job(JobKind.EXPORT, {"number": n}, study_id=studies[0].id) for n in range(3)]
    assert [job.id for job in store.jobs(studies[0].id)] == [job.id for job in reversed(queued)]
    leased = store.lease_job("w", seconds=30)
    assert leased is not None
    assert leased.id == queued[0].id


def test_the_first_latency_table_of_a_study_stays(store):
    made = store.create_study(definition(), reference_point=REFERENCE)
    assert store.latency_table(made.id) is None
    store.record_latency_table(made.id, {"fingerprint": "a", "rows": [1.5]})
    store.record_latency_table(made.id, {"fingerprint": "b", "rows": []})
    assert store.latency_table(made.id) == {"fingerprint": "a", "rows": [1.5]}


def test_a_name_with_a_character_that_no_database_keeps_is_a_fault_of_its_sender(store: Store) -> None:
    for read in (store.study, store.study_version, store.training, store.architecture, store.revoke_token):
        with pytest.raises(InputError):
            read("\0abcdefg")
    for asked in (TrainingQuery(recipe="\0"), TrainingQuery(architecture="\0abcdefg")):
        with suppress(InputError):  # SQLite finds none
            assert store.training_page(asked) == ([], None)
    with suppress(InputError):
        assert not store.study_list(StudyQuery(text="\0")).rows
