"""Trials and what was observed of them: one contract, run over every database."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, select, update

from nas.candidate import Artifact, Candidate, Split
from nas.errors import ConflictError, InputError, NotFoundError, StoreError
from nas.finalist import Finalist, Role
from nas.metrics import Evaluation, EvaluationKind, Measurement
from nas.store import LayerRatio, Store
from nas.store.tables import TrialTable
from nas.trial import Compute, EpochRecord, Fidelity, Placement, Rung, TrialKind, TrialState, trial_seed
from partialnet.architecture import Architecture
from tests.nas.store.makers import candidate, complete, epoch, study
from tests.samples import examples

SEARCH = (TrialKind.SEARCH, {"target": 4.0, "optimizer": "sgd", "batch_size": 32})


class TestLife:
    def test_numbers_and_seeds(self, store: Store) -> None:
        made = study(store, sweep={"seed": 7})
        first = store.add_trials(made.id, [(TrialKind.BASELINE, {"ratio": 0.25}), SEARCH])
        second = store.add_trials(made.id, [SEARCH])
        assert [spec.number for spec in first + second] == [0, 1, 2]
        assert [spec.seed for spec in first + second] == [trial_seed(7, number) for number in range(3)]
        assert [trial.spec for trial in store.trials(made.id)] == first + second
        assert store.add_trials(made.id, []) == []

    def test_finalists_stand_among_the_parameters_of_their_trials(self, store: Store) -> None:
        made = study(store, sweep={"seed": 7})
        finalist = Finalist(Role.UNIFORM, 0, 3, 1250.5, (3, 4), ratio=0.125)
        trainings = [replace(finalist, seed_index=index) for index in (0, 1)]
        specs = store.add_finalists(made.id, trainings, {"batch_size": 32})
        found = store.trials(made.id)
        assert [trial.spec for trial in found] == specs == store.requeue_unfinished(made.id)
        assert [(trial.finalist, trial.finalist.seed_index) for trial in found] == [(finalist, 0), (finalist, 1)]
        assert len({spec.seed for spec in specs}) == 2
        assert [spec.seed for spec in store.add_finalists(made.id, trainings)] == [spec.seed for spec in specs]
        assert (found[0].kind, found[0].parameters) == (TrialKind.RETRAIN, {"batch_size": 32})
        with store._database.engine.connect() as connection:
            row = connection.execute(select(TrialTable.parameters).where(TrialTable.number == 1)).scalar_one()
        assert row == {
            "batch_size": 32, "role": "uniform", "of": 0, "target": 1250.5, "active_channels": "3,4",
            "seed_index": 1, "position": 3, "ratio": 0.125,
        }  # fmt: skip
        with pytest.raises(InputError, match="'retrain' needs the network"):
            store.add_trials(made.id, [(TrialKind.RETRAIN, row)])

    def test_damaged_finalists_are_named(self, store: Store) -> None:
        made = study(store)
        store.add_finalists(made.id, [Finalist(Role.LEARNED, 0, None, 9.0, (3,))])
        with store._database.write() as session:
            session.execute(update(TrialTable).values(parameters={"role": "oracle"}))
        with pytest.raises(StoreError, match=r"a stored trial cannot be read: trial 0: the parameters of .* damaged"):
            store.trials(made.id)

    def test_from_queued_to_complete(self, store: Store) -> None:
        made = study(store)
        store.add_trials(made.id, [SEARCH])
        assert store.trial(made.id, 0).state is TrialState.QUEUED
        store.start_trial(made.id, 0)
        records = [epoch(1), epoch(2, "frozen")]
        for record in records:
            store.record_epoch(made.id, 0, record)
        assert [row.epoch for row in store.trial_rows(made.id).rows] == [2]
        running = store.trial(made.id, 0)
        assert (running.state, running.history, running.ended_at) == (TrialState.RUNNING, tuple(records), None)
        store.end_trial(made.id, 0, TrialState.COMPLETE, candidates=[candidate()])
        ended = store.trial(made.id, 0)
        assert ended.candidates == (candidate(),)
        assert ended.candidates[0].architecture.id == candidate().architecture.id
        assert (ended.state, ended.history, ended.parameters) == (TrialState.COMPLETE, tuple(records), SEARCH[1])
        assert ended.started_at is not None
        assert ended.ended_at is not None
        assert ended.started_at <= ended.ended_at
        assert store.trials(made.id) == [replace(ended, history=())]
        assert store.trials(made.id, history=True) == [ended]
        assert [row.epoch for row in store.trial_rows(made.id).rows] == [None]

    def test_where_it_ran(self, store: Store) -> None:
        made = study(store)
        store.add_trials(made.id, [SEARCH, SEARCH])
        assert store.trial(made.id, 0).placement is None
        compute = Compute("NVIDIA H100", "float32", "tf32", "ieee", 19.8, {"torch": "2.14.1", "driver": "580.1"})
        first, second = (Placement(node, 7, 2.0, 0.25, ("0",), "0", compute) for node in ("one", "two"))
        for placement in (first, second):  # it moved
            store.place_trial(made.id, 1, placement)
        assert [trial.placement for trial in store.trials(made.id)] == [None, second]
        with pytest.raises(NotFoundError):
            store.place_trial(made.id, 9, first)

    def test_a_reason(self, store: Store) -> None:
        made = study(store)
        store.add_trials(made.id, [SEARCH, SEARCH])
        store.start_trial(made.id, 0)
        store.end_trial(made.id, 0, TrialState.FAILED, reason="the training diverged at step 3")
        store.end_trial(made.id, 1, TrialState.CANCELLED, reason="x" * 100_000)
        failed, cancelled = store.trials(made.id)
        assert (failed.state, failed.reason) == (TrialState.FAILED, "the training diverged at step 3")
        assert cancelled.state is TrialState.CANCELLED
        assert len(cancelled.reason or "") < 25_000

    def test_a_reason_that_names_a_file_whose_name_is_no_text(self, store: Store) -> None:
        made = study(store)
        store.add_trials(made.id, [SEARCH])
        store.end_trial(made.id, 0, TrialState.FAILED, reason="cat-\udcff.png: cannot be read")
        assert store.trial(made.id, 0).reason == r"cat-\udcff.png: cannot be read"

    def test_many_candidates(self, store: Store) -> None:
        made = study(store)
        store.add_trials(made.id, [SEARCH])
        store.start_trial(made.id, 0)
        front = [candidate(active, top1=active / 10) for active in (8, 2, 5)]
        store.end_trial(made.id, 0, TrialState.COMPLETE, candidates=front)
        assert store.trial(made.id, 0).candidates == tuple(front)

    def test_an_early_stopped_trial_has_a_fidelity_and_no_network(self, store: Store) -> None:
        """Its scores are those of fewer epochs, which no front may hold."""
        made = study(store)
        store.add_trials(made.id, [SEARCH])
        store.start_trial(made.id, 0)
        done = Fidelity(4, 14)
        for wrong in ({"candidates": [candidate()], "fidelity": done}, {}):
            with pytest.raises(InputError, match="end it with its fidelity, and without a candidate"):
                store.end_trial(made.id, 0, TrialState.PRUNED, **wrong)
        store.end_trial(made.id, 0, TrialState.PRUNED, reason="stopped early", fidelity=done)
        ended = store.trial(made.id, 0)
        assert (ended.state, ended.fidelity, str(ended.fidelity)) == (TrialState.PRUNED, done, "4 of 14 epochs")

    def test_the_first_decision_at_a_rung_stays(self, store: Store) -> None:
        made = study(store)
        store.add_trials(made.id, [SEARCH])
        store.start_trial(made.id, 0)
        kept = Rung(0, 2, (0.5, 1e6), kept=True)
        store.record_epoch(made.id, 0, epoch(2), kept)
        store.record_epoch(made.id, 0, epoch(2), replace(kept, kept=False))
        store.record_epoch(made.id, 0, epoch(3))
        assert store.rungs(made.id) == [kept]

    def test_the_same_epoch_again(self, store: Store) -> None:
        made = study(store)
        store.add_trials(made.id, [SEARCH])
        store.start_trial(made.id, 0)
        for record in (epoch(1), epoch(1), epoch(1, loss=0.5)):
            store.record_epoch(made.id, 0, record)
        assert store.trial(made.id, 0).history == (epoch(1, loss=0.5),)
        assert [entry.kind for entry in store.events_after(made.id, 3)] == ["epoch", "epoch"]


class TestDoors:
    @pytest.mark.parametrize("state", [state for state in TrialState if state.ended])
    def test_an_ended_trial_stays_as_it_is(self, store: Store, state: TrialState) -> None:
        made = study(store)
        store.add_trials(made.id, [SEARCH])
        store.start_trial(made.id, 0)
        early = state is TrialState.PRUNED
        found = {"fidelity": Fidelity(1, 2)} if early else {"candidates": [candidate()]}
        store.end_trial(made.id, 0, state, **found)
        before = store.trial(made.id, 0)
        with pytest.raises(ConflictError, match=state.value):
            store.end_trial(made.id, 0, TrialState.FAILED, reason="late")
        with pytest.raises(ConflictError, match=state.value):
            store.start_trial(made.id, 0)
        with pytest.raises(ConflictError, match=state.value):
            store.record_epoch(made.id, 0, epoch(9))
        store.requeue_unfinished(made.id)
        assert store.trial(made.id, 0) == before

    def test_what_never_started_has_nothing_to_show(self, store: Store) -> None:
        made = study(store)
        store.add_trials(made.id, [SEARCH])
        with pytest.raises(ConflictError, match="queued"):
            store.end_trial(made.id, 0, TrialState.COMPLETE, candidates=[candidate()])
        with pytest.raises(ConflictError, match="queued"):
            store.record_epoch(made.id, 0, epoch(1))

    @pytest.mark.parametrize("state", [TrialState.QUEUED, TrialState.RUNNING])
    def test_only_an_end_is_an_end(self, store: Store, state: TrialState) -> None:
        with pytest.raises(InputError, match=state.value):
            store.end_trial(study(store).id, 0, state)

    def test_complete_needs_a_candidate(self, store: Store) -> None:
        made = study(store)
        store.add_trials(made.id, [SEARCH])
        store.start_trial(made.id, 0)
        with pytest.raises(InputError, match="candidate"):
            store.end_trial(made.id, 0, TrialState.COMPLETE)

    def test_nothing_half_written(self, store: Store) -> None:
        made = study(store)
        store.add_trials(made.id, [SEARCH])
        store.start_trial(made.id, 0)
        before, events = store.trial(made.id, 0), store.events_after(made.id, 0)
        broken = candidate(4, measurements=(Measurement("macs", 1.0, {"p90": float("nan")}),))
        with pytest.raises(StoreError, match="refused a value"):
            store.end_trial(made.id, 0, TrialState.COMPLETE, candidates=[candidate(), broken])
        assert store.trial(made.id, 0) == before
        assert store.events_after(made.id, 0) == events
        assert store.split_rows(made.id) == []

    def test_unknown_trials(self, store: Store) -> None:
        made = study(store)
        for call in (store.start_trial, store.trial):
            with pytest.raises(NotFoundError, match="study digits has no trial 5"):
                call(made.id, 5)
        with pytest.raises(NotFoundError):
            store.trials("nope")


class TestInterruption:
    def test_running_trials_wait_again_with_their_epochs(self, store: Store) -> None:
        made = study(store)
        complete(store, made.id)
        specs = store.add_trials(made.id, [SEARCH, SEARCH])
        store.start_trial(made.id, 1)
        store.record_epoch(made.id, 1, epoch(1))
        assert store.requeue_unfinished(made.id) == specs
        done, aborted, waiting = store.trials(made.id, history=True)
        assert (done.state, len(done.history)) == (TrialState.COMPLETE, 1)
        assert (aborted.state, aborted.history, aborted.started_at) == (TrialState.QUEUED, (epoch(1),), None)
        assert waiting.state is TrialState.QUEUED

    def test_an_epoch_that_comes_again_is_recorded_once(self, store: Store) -> None:
        made = study(store)
        store.add_trials(made.id, [SEARCH])
        for _ in range(2):
            store.start_trial(made.id, 0)
            store.record_epoch(made.id, 0, epoch(1))
            store.requeue_trial(made.id, 0)
        assert store.trial(made.id, 0).history == (epoch(1),)
        assert [entry.kind for entry in store.events_after(made.id, 0)].count("epoch") == 1

    def test_a_trial_that_starts_anew_drops_what_was_behind(self, store: Store) -> None:
        made = study(store)
        store.add_trials(made.id, [SEARCH])
        store.start_trial(made.id, 0)
        for number in (1, 2, 3):
            store.record_epoch(made.id, 0, epoch(number))
        store.requeue_trial(made.id, 0)
        store.start_trial(made.id, 0)
        store.record_epoch(made.id, 0, epoch(1))  # as it was: it goes on
        assert len(store.trial(made.id, 0).history) == 3
        store.record_epoch(made.id, 0, epoch(2, loss=9.0))
        assert store.trial(made.id, 0).history == (epoch(1), epoch(2, loss=9.0))

    def test_a_trial_alone_is_put_back(self, store: Store) -> None:
        made = study(store)
        complete(store, made.id)
        store.add_trials(made.id, [SEARCH, SEARCH])
        store.start_trial(made.id, 1)
        store.requeue_trial(made.id, 1)
        store.requeue_trial(made.id, 2)  # it never started
        assert [trial.state.value for trial in store.trials(made.id)] == ["complete", "queued", "queued"]
        with pytest.raises(ConflictError, match="complete"):
            store.requeue_trial(made.id, 0)


class TestObservations:
    def test_equal_networks_share_measurements(self, store: Store) -> None:
        made, other = study(store, "one"), study(store, "two")
        complete(store, made.id), complete(store, made.id), complete(store, other.id)
        latency = Measurement("latency_ms", 3.5, {"n": 50, "interval": [3.4, 3.6]}, "cpu-1")
        store.add_measurements(candidate().architecture.id, [latency])
        for owner in (made, other):
            for trial in store.trials(owner.id):
                assert trial.candidates[0].measurements == (*candidate().measurements, latency)
            assert store.events_after(owner.id, 0)[-1].payload["values"] == {"latency_ms": 3.5}

    def test_measured_again(self, store: Store) -> None:
        made = study(store)
        complete(store, made.id)
        for value in (3.5, 3.5, 3.25):
            store.add_measurements(candidate().architecture.id, [Measurement("latency_ms", value)])
        found = store.trial(made.id, 0).candidates[0]
        assert [entry.value for entry in found.measurements if entry.metric == "latency_ms"] == [3.5, 3.25]
        assert found.score("latency_ms") == 3.25

    def test_one_network_at_two_sizes(self, store: Store) -> None:
        """Multiply-adds belong to a network at an input size: studies of two sizes must not read each other's."""
        small = study(store, "small")
        large = study(store, "large", data={"name": "digits", "image_size": 16})
        complete(store, small.id)
        number = store.add_trials(large.id, [SEARCH])[0].number
        store.start_trial(large.id, number)
        splits = tuple(replace(split, macs=4 * split.macs) for split in candidate().splits)
        wanted = candidate(splits=splits, measurements=(Measurement("macs", 4936.0),))
        store.end_trial(large.id, number, TrialState.COMPLETE, candidates=[wanted])
        assert store.trial(large.id, 0).candidates == (wanted,)
        assert store.trial(small.id, 0).candidates == (candidate(),)
        assert [row.macs for row in store.split_rows(large.id)] == [split.macs for split in splits]
        architecture = candidate().architecture.id
        with pytest.raises(InputError, match="1x16x16, 1x8x8"):
            store.add_measurements(architecture, [Measurement("latency_ms", 1.0)])
        store.add_measurements(architecture, [Measurement("latency_ms", 1.0)], input_shape=(1, 16, 16))
        assert store.trial(large.id, 0).candidates[0].score("latency_ms") == 1.0
        assert store.trial(small.id, 0).candidates[0].score("latency_ms") is None

    def test_evaluations_later(self, store: Store) -> None:
        made = study(store)
        complete(store, made.id)
        retrained = Evaluation(EvaluationKind.RETRAINED, "top1", 0.97, data_split="test", epochs=90)
        store.add_evaluations(made.id, 0, candidate().architecture.id, [retrained])
        assert store.trial(made.id, 0).candidates[0].evaluations == (*candidate().evaluations, retrained)
        assert store.events_after(made.id, 0)[-1].payload["values"] == {"retrained.top1": 0.97}

    def test_of_what_does_not_exist(self, store: Store) -> None:
        made = study(store)
        complete(store, made.id)
        with pytest.raises(NotFoundError, match="'nope'"):
            store.add_measurements("nope", [Measurement("latency_ms", 1.0)])
        with pytest.raises(NotFoundError, match="'nope'"):
            store.add_evaluations(made.id, 0, "nope", [])

    def test_artifacts(self, store: Store) -> None:
        for size in (3, 4):
            store.add_artifact(Artifact("exports/a.zip", "00" * 32, size, "export"))
        assert store.artifact("exports/a.zip") == Artifact("exports/a.zip", "00" * 32, 4, "export")
        with pytest.raises(NotFoundError, match=r"b\.zip"):
            store.artifact("exports/b.zip")


class TestSplitRows:
    def test_rows_by_trial_and_layer(self, store: Store) -> None:
        made = study(store)
        complete(store, made.id, active=3), complete(store, made.id, active=6)
        rows = store.split_rows(made.id)
        assert [(row.number, row.index, row.active_channels) for row in rows] == [
            (0, 0, 4), (0, 1, 3), (1, 0, 7), (1, 1, 6)
        ]
        assert rows[1] == LayerRatio(
            number=0,
            kind=TrialKind.SEARCH,
            architecture_id=candidate(3).architecture.id,
            layer="stages.1.blocks.0.mixer",
            index=1,
            stage=1,
            block=0,
            channels=48,
            active_channels=3,
            ratio=3 / 48,
            macs=2**40,
        )


class TestQueries:
    def test_reading_trials_takes_as_many_queries_for_one_as_for_many(self, store: Store) -> None:
        made = study(store)
        complete(store, made.id)
        few = _count_queries(store, lambda: store.trials(made.id, history=True))
        for active in range(4, 24):
            complete(store, made.id, active=active)
        assert len(store.trials(made.id)) == 21
        assert _count_queries(store, lambda: store.trials(made.id, history=True)) == few <= 7

    def test_listing_studies_takes_one(self, store: Store) -> None:
        for _ in range(5):
            complete(store, study(store).id)
        assert _count_queries(store, store.studies) == 1


def _count_queries(store: Store, call) -> int:
    statements: list[str] = []

    def note(_connection, _cursor, statement, *_) -> None:
        if not statement.startswith(("BEGIN", "SHOW")):
            statements.append(statement)

    event.listen(store._database.engine, "before_cursor_execute", note)
    call()
    event.remove(store._database.engine, "before_cursor_execute", note)
    return len(statements)


words = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12)
finite = st.floats(allow_nan=False, allow_infinity=False)
jsons = st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | words, st.lists, max_leaves=5)
parameters = st.dictionaries(words, st.integers() | finite | words | st.booleans(), max_size=4)
epochs = st.builds(
    EpochRecord,
    epoch=st.integers(1, 999),
    phase=st.just("gates"),
    metrics=st.dictionaries(words, finite),
    active_channels=st.dictionaries(words, st.integers()),
)
splits = st.lists(st.integers(1, 48), max_size=4).map(
    lambda widths: tuple(Split(f"layer.{i}", i, 48, n, n * n, None, i) for i, n in enumerate(widths))
)
measurements = st.lists(
    st.builds(
        Measurement, st.just("latency_ms"), st.floats(0, 1e300), st.dictionaries(words, jsons, max_size=3), words
    ),
    unique_by=lambda entry: entry.value,
    max_size=3,
).map(tuple)
evaluations = st.lists(
    st.builds(Evaluation, st.sampled_from(EvaluationKind), st.just("loss"), finite, st.none() | st.floats(0, 1e9)),
    max_size=3,
).map(tuple)


@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parameters, st.lists(epochs, unique_by=lambda record: record.epoch, max_size=3), splits, evaluations,
       measurements, st.none() | words)
def test_round_trip(store: Store, sampled, records, split, evaluated, measured, note) -> None:
    made = study(store)
    store.add_trials(made.id, [(TrialKind.SEARCH, sampled)])
    store.start_trial(made.id, 0)
    for record in records:
        store.record_epoch(made.id, 0, record)
    # Another number of classes for each study, so that none inherits the measurements of the one before.
    architecture = Architecture("partialnet_micro", {"feature_dim": int(made.id[:8], 16)}, {"layer.0": 3})
    wanted = Candidate(architecture, split, evaluated, measured, None, True, note)
    store.end_trial(made.id, 0, TrialState.COMPLETE, candidates=[wanted])
    found = store.trial(made.id, 0)
    assert found.parameters == sampled
    assert found.history == tuple(sorted(records, key=lambda record: record.epoch))
    assert found.candidates == (wanted,)
