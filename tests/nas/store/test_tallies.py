"""Counts, best scores and versions in the row of a study follow each change of its trials."""

from __future__ import annotations

from dataclasses import replace

from nas.metrics import Evaluation, EvaluationKind
from nas.store import Store
from nas.store.study_lists import StudyOrder, StudyQuery
from nas.store.tables import StudyTable
from nas.store.tallies import recount
from nas.study import StudyState
from nas.trial import EpochRecord, Fidelity, Placement, TrialKind, TrialState
from tests.nas.store.makers import complete, study


def check(store: Store, study_id: str) -> None:
    """Compare the row of a study with its tables."""
    with store._database.write() as session:
        row = session.get_one(StudyTable, study_id)
        before = (row.counts, row.best)
        recount(session, row)
        assert before == (row.counts, row.best)


def test_counts_and_best_scores_are_those_of_the_tables(store: Store) -> None:
    made = study(store)
    for active in (3, 4):
        complete(store, made.id, active, top1=active / 10)
        check(store, made.id)
    assert store.study_row(made.id).best_top1 == 0.4
    store.add_trials(made.id, [(TrialKind.SEARCH, {})] * 6)
    for number, state in ((2, TrialState.FAILED), (3, TrialState.PRUNED), (4, TrialState.CANCELLED)):
        store.start_trial(made.id, number)
        fidelity = Fidelity(1, 3) if state is TrialState.PRUNED else None
        store.end_trial(made.id, number, state, fidelity=fidelity)
        check(store, made.id)
    store.start_trial(made.id, 5)
    store.requeue_trial(made.id, 5)
    store.start_trial(made.id, 6)
    store.requeue_unfinished(made.id)
    store.revive_trials(made.id, [2])
    check(store, made.id)
    name = store.trial(made.id, 0).candidates[0].architecture.id
    store.add_evaluations(made.id, 0, name, [Evaluation(EvaluationKind.RETRAINED, "top1", 0.2)])
    check(store, made.id)
    assert store.study_row(made.id).best_top1 == 0.2  # of the best trained weights
    store.set_study_state(made.id, StudyState.PAUSED)
    store.stop(made.id)
    check(store, made.id)
    counts = {state.value: count for state, count in store.study_row(made.id).counts.items() if count}
    assert counts == {"complete": 2, "pruned": 1, "cancelled": 5}


def test_pages_in_the_order_of_the_best_score_end_with_studies_without_one(store: Store) -> None:
    scores = {"a": 0.1, "b": 0.7, "c": 1 / 3, "none": None, "d": 0.1 + 0.2, "other": None, "e": 0.7}
    for name, top1 in scores.items():
        made = study(store, name)
        if top1 is not None:
            complete(store, made.id, 3, top1=top1)
    chosen = store.study("b").id
    trained = store.trial(chosen, 0).candidates[0].architecture.id
    store.add_evaluations(chosen, 0, trained, [Evaluation(EvaluationKind.RETRAINED, "top1", 0.2)])
    for descending in (True, False):
        whole = store.study_list(StudyQuery(sort=StudyOrder.BEST, descending=descending)).rows
        best = [row.best_top1 for row in whole]
        known = [value for value in best if value is not None]
        assert known == sorted([0.1, 0.2, 1 / 3, 0.1 + 0.2, 0.7], reverse=descending)
        assert best[-2:] == [None, None]
        seen, after = [], None
        while len(seen) < len(whole):
            page = store.study_list(StudyQuery(1, after, StudyOrder.BEST, descending))
            seen += [row.study.id for row in page.rows]
            after = page.after
        assert (seen, after) == ([row.study.id for row in whole], None)


def test_a_version_tells_epochs_from_results(store: Store) -> None:
    made = study(store)
    store.add_trials(made.id, [(TrialKind.SEARCH, {})])
    store.start_trial(made.id, 0)
    before, listed = store.study_version(made.name), store.list_version()
    store.record_epoch(made.id, 0, EpochRecord(1, "gates", {"loss": 1.0}, {}))
    after = store.study_version(made.id[:8])
    assert store.list_version() == replace(listed, event=listed.event + 1)
    assert (after.event, after.result) == (before.event + 1, before.result)
    store.place_trial(made.id, 0, Placement("here", 1, 1.0, 0.0))
    assert store.study_version(made.id).result == after.event + 1
    assert store.list_version().result != listed.result


def test_an_end_that_moves_the_front_is_an_event(store: Store) -> None:
    made = study(store, objectives=["top1", "macs"])
    complete(store, made.id, 3, top1=0.5)
    complete(store, made.id, 9, top1=0.1)  # dominated
    fronts = [event.payload for event in store.events_after(made.id, 0) if event.kind == "front"]
    assert [payload["number"] for payload in fronts] == [0]
    assert fronts[0]["hypervolume"] == store.growths(made.id)[-1].value
