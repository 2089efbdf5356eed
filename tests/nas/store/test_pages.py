"""Pages in the order of a sampled number, what a study holds, and lists over all studies, on both databases."""

from __future__ import annotations

import math
import random

import pytest

from nas.errors import InputError
from nas.metrics import EvaluationKind, Measurement
from nas.store import PageQuery, Store
from nas.trial import Placement, TrialKind, TrialState
from tests.nas.store.makers import candidate, complete, study


def _numbers(store: Store, study_id: str, query: PageQuery) -> list[int]:
    """Return the numbers of all lines, page by page."""
    found: list[int] = []
    after = None
    while True:
        page = store.trial_page(study_id, PageQuery(**{**vars(query), "after": after}))
        found += [row.spec.number for row in page.rows]
        after = page.after
        if after is None:
            return found


def test_pages_in_the_order_of_a_sampled_number(store: Store) -> None:
    made = study(store)
    draw = random.Random(0)
    targets = [draw.choice([1.5, 2.0, 2.25, 10.0, 1e-3]) for _ in range(12)]
    store.add_trials(made.id, [(TrialKind.SEARCH, {"target": target}) for target in targets])
    store.add_trials(made.id, [(TrialKind.BASELINE, {"ratio": "1/4"})] * 2)  # without the number: last in any order
    rising = sorted(range(12), key=lambda number: (targets[number], number))
    for limit in (1, 5, 100):
        query = PageQuery(limit=limit, sort="parameters.target")
        assert _numbers(store, made.id, query) == [*rising, 12, 13]
        falling = PageQuery(limit=limit, sort="parameters.target", descending=True)
        assert _numbers(store, made.id, falling) == [*rising[::-1], 12, 13]
    only = PageQuery(limit=5, sort="parameters.target", kinds=(TrialKind.SEARCH,))
    assert _numbers(store, made.id, only) == rising


@pytest.mark.parametrize("name", ["parameters.", "parameters.targt", "parameters.ratio'; --", "parameters.target "])
def test_an_order_by_what_is_not_sampled_is_refused(store: Store, name: str) -> None:
    made = study(store)
    with pytest.raises(InputError, match=r"no sampled number of this study; known: .*parameters\.target"):
        store.trial_page(made.id, PageQuery(sort=name))


def test_holdings_are_what_there_is(store: Store) -> None:
    made, other = study(store), study(store, "other")
    empty = store.holdings(made.id)
    assert (dict(empty.trials), empty.metrics, empty.evaluations) == ({}, (), ())
    complete(store, made.id)
    store.add_trials(made.id, [(TrialKind.BASELINE, {"ratio": "1/4"}), (TrialKind.SEARCH, {"target": 2.0})])
    store.start_trial(made.id, 2)
    held = store.holdings(made.id)
    assert dict(held.trials) == {
        (TrialKind.SEARCH, TrialState.COMPLETE): 1,
        (TrialKind.BASELINE, TrialState.QUEUED): 1,
        (TrialKind.SEARCH, TrialState.RUNNING): 1,
    }
    assert held.metrics == ("top1", "macs")
    assert held.evaluations == (EvaluationKind.INHERITED, EvaluationKind.FINETUNED)
    assert store.holdings(other.id) == empty


def test_devices_tables_and_what_running_trials_hold(store: Store) -> None:
    made, other = study(store), study(store, "other")
    for active, device in ((3, "a"), (4, "a"), (5, "b")):
        store.add_trials(made.id, [(TrialKind.SEARCH, {"target": 4.0})])
        number = store.study_row(made.id).counts[TrialState.COMPLETE] if active > 3 else 0
        store.start_trial(made.id, number)
        latency = Measurement("latency_ms", float(active), {"device": device, "n": active}, device)
        network = candidate(active, measurements=(latency,))
        store.end_trial(made.id, number, TrialState.COMPLETE, candidates=[network])
    assert [(row.fingerprint, row.count, row.figures["n"]) for row in store.devices()] == [("a", 2, 4), ("b", 1, 5)]
    table = {"fingerprint": "f", "network": "n", "title": "t", "reference_ms": 2.5, "table": {}}
    store.record_latency_table(made.id, table)
    store.record_latency_table(other.id, table)
    [row] = store.latency_tables()
    assert (row.fingerprint, row.title, row.studies) == ("f", "t", ("digits", "other"))
    assert math.isclose(row.reference_ms, 2.5)
    store.add_trials(other.id, [(TrialKind.SEARCH, {"target": 4.0})] * 3)
    for number, cpus in ((0, 1.0), (1, 0.5)):
        store.start_trial(other.id, number)
        store.place_trial(other.id, number, Placement(f"node-{number}", 1, cpus, 0.25))
    held = store.held([made.id, other.id])
    assert list(held) == [other.id]
    row_held = held[other.id]
    assert (row_held.trials, row_held.cpus, row_held.gpus) == (2, 1.5, 0.5)
    assert row_held.nodes == ("node-0", "node-1")
    assert {name.name for name in store.study_names([made.id, other.id, "none"]).values()} == {"digits", "other"}
    assert not store.held([])
    assert not store.study_names([])
