"""Plans of the queries: a list of a large study reads ranges of indexes, never a whole table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import event, text

from nas.jobs import JobKind
from nas.metrics import EvaluationKind
from nas.store import PageQuery, Store
from nas.trial import EpochRecord, TrialKind, TrialState
from tests.benchmarks.bench_store import measure
from tests.nas.store.large import large_study
from tests.nas.store.makers import complete, study

TRIALS, EPOCHS = 300, 4  # what is planned does not depend on the number of rows
READS: dict[str, Callable[[Store, str], object]] = {
    "whole trials": lambda store, study: store.trials(study, history=True),
    "trial": lambda store, study: store.trial(study, 7),
    "ratios": lambda store, study: store.split_rows(study),
    "events": lambda store, study: store.events_after(study, 100, limit=10),
    "studies": lambda store, _: store.studies(),
    "study": lambda store, study: store.study_row(study),
    "jobs": lambda store, study: store.jobs(study),
    "list": lambda store, study: store.trial_rows(study),
    "page": lambda store, study: store.trial_page(study, PageQuery(limit=10)),
    "page of a state": lambda store, study: store.trial_page(study, PageQuery(states=(TrialState.FAILED,))),
    "page by a metric": lambda store, study: store.trial_page(study, PageQuery(limit=10, sort="macs")),
    "page by a parameter": lambda store, study: store.trial_page(study, PageQuery(limit=10, sort="parameters.target")),
    "holdings": lambda store, study: store.holdings(study),
    "front": lambda store, study: store.front(study),
    "front with baselines": lambda store, study: store.front(
        study, ("top1", "params"), EvaluationKind.INHERITED, dominated=(TrialKind.BASELINE,)
    ),
    "whole front": lambda store, study: store.front(study, dominated=tuple(TrialKind)),
    "growths": lambda store, study: store.growths(study),
    "report of an epoch": lambda store, study: store.record_epoch(
        study, TRIALS - 1, EpochRecord(EPOCHS + 1, "gates", {"loss": 1.0}, {})
    ),
    "end of a trial": lambda store, study: store.end_trial(study, TRIALS - 1, TrialState.FAILED, reason="stopped"),
}
# The list of studies is a list of all of them; their trials are counted from an index. The array is a parameter.
ALLOWED = ("SCAN CONSTANT ROW", "SCAN studies", "SCAN trials USING COVERING INDEX", "SCAN given VIRTUAL TABLE")


def statements_of(store: Store, call: Callable[[], object]) -> list[str]:
    """Return the statements that ``call`` runs, without the beginnings of transactions."""
    return [statement for statement, _ in sent_by(store, call)]


def sent_by(store: Store, call: Callable[[], object]) -> list[tuple[str, int]]:
    """Return the statements that ``call`` runs with the numbers of their parameters, as :func:`statements_of`."""
    found: list[tuple[str, int]] = []

    def note(_connection, _cursor, statement, parameters, *_) -> None:
        if not statement.startswith("BEGIN"):
            found.append((statement, len(parameters)))

    event.listen(store._database.engine, "before_cursor_execute", note)
    try:
        call()
    finally:
        event.remove(store._database.engine, "before_cursor_execute", note)
    return found


def test_lists_and_fronts_take_four_statements(store: Store) -> None:
    """To a server each costs a round trip; SQLite has none, and reads a front's metrics one by one."""
    made = study(store)
    for active in (3, 4):
        complete(store, made.id, active)
    columns = 1 if store.url.startswith("postgresql") else len(made.definition.objectives)
    for call, most in (
        (lambda: store.trial_page(made.id, PageQuery()), 4),
        (lambda: store.trial_page(made.id, PageQuery(limit=1, sort="macs")), 4),
        (lambda: store.front(made.id), 3 + columns),
    ):
        call()  # counts the usual evaluation kind once for each new result
        assert len(statements_of(store, call)) == most


def test_a_query_does_not_grow_with_the_trials_that_it_names(large: tuple[Store, str]) -> None:
    """To build a query with a parameter for each trial, and to parse it, took longer than to run it."""
    store, study = large
    reads = READS | {
        "some trials": lambda store, study: store.trials(study, numbers=range(TRIALS)),
        "long page": lambda store, study: store.trial_page(study, PageQuery(limit=TRIALS)),
    }
    sent = {name: sent_by(store, lambda call=call: call(store, study)) for name, call in reads.items()}
    assert [(name, count) for name, found in sent.items() for _, count in found if count > TRIALS / 3] == []
    assert len(store.front(study, dominated=tuple(TrialKind)).points) > 200


def test_a_server_keeps_the_plans_of_frequent_reads(store: Store) -> None:
    if store.url.startswith("sqlite"):
        pytest.skip("SQLite plans in this process")
    made = study(store)
    for _ in range(8):
        store.study_row(made.id)
    with store._database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM pg_prepared_statements")) > 0


def test_a_report_of_an_epoch_takes_six_statements(store: Store) -> None:
    """Three rows are read under locks (job, study, trial with its epoch) and three are written."""
    running = study(store).id
    store.start_trial(running, store.add_trials(running, [(TrialKind.SEARCH, {"target": 4.0})])[0].number)
    job = store.hold_search(running, "this test", seconds=60)
    fenced = store.fenced(job.id, job.epoch)
    active = {f"blocks.{n}.mixer": 8 for n in range(14)}
    record = EpochRecord(1, "gates", {"loss": 1.0}, active)
    statements = statements_of(store, lambda: fenced.record_epoch(running, 0, record))
    assert len(statements) == 6, statements
    assert not any("definition" in statement for statement in statements)


@pytest.fixture
def large(store: Store) -> tuple[Store, str]:
    made = large_study(store, TRIALS, epochs=EPOCHS)
    store.set_reference_point(made.id, made.reference_point)
    store.enqueue_job(JobKind.EXPORT, {"number": 3}, study_id=made.id)
    return store, made.id


def plans_of(store: Store, call: Callable[[], object]) -> list[tuple[str, str]]:
    """Return (statement, what it scans) of the statements that ``call`` runs and that scan a table."""
    found: list[tuple[str, str]] = []
    lite = store.url.startswith("sqlite")

    def explain(connection, cursor, statement, parameters, *_) -> None:
        if not statement.startswith(("SELECT", "UPDATE", "DELETE")):
            return
        own = connection.connection.cursor()
        if lite:
            rows = own.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            found.extend((statement, row[3]) for row in rows if row[3].startswith("SCAN"))
            return
        # One study fills the tables of a test; with several, the planner would take the indexes by itself.
        own.execute("SET LOCAL enable_seqscan = off")
        [[plan]] = own.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters).fetchall()
        found.extend((statement, node) for node in _scanned(plan if isinstance(plan, list) else json.loads(plan)))

    event.listen(store._database.engine, "before_cursor_execute", explain)
    try:
        call()
    finally:
        event.remove(store._database.engine, "before_cursor_execute", explain)
    return found


def _scanned(node: object) -> Iterator[str]:
    if isinstance(node, list):
        for entry in node:
            yield from _scanned(entry)
    elif isinstance(node, dict):
        if node.get("Node Type") == "Seq Scan":
            yield f"SCAN {node['Relation Name']}"
        for entry in node.values():
            yield from _scanned(entry)


def test_no_read_and_no_frequent_write_scans_a_table(large: tuple[Store, str]) -> None:
    store, study = large
    scans = {name: plans_of(store, lambda call=call: call(store, study)) for name, call in READS.items()}
    wrong = [(name, *entry) for name, found in scans.items() for entry in found if not entry[1].startswith(ALLOWED)]
    assert wrong == []


def test_the_check_sees_a_scan(store: Store) -> None:
    def scan() -> None:
        with store._database.read() as session:
            session.connection().exec_driver_sql("SELECT number FROM history WHERE phase = 'gates'").all()

    assert [what.split()[1] for _, what in plans_of(store, scan)] == ["history"]


def test_the_benchmark_measures_every_operation(store: Store) -> None:
    lines = measure(store, 60, rounds=1)
    assert [line.bound for line in lines] == [50.0] * (len(lines) - 1) + [5.0]
    assert all(time > 0 for line in lines for time in line.times)
    study = store.study("latest")
    assert len(store.trial(study.id, 59).history) == 230
    assert store.study_row(study.id).counts[TrialState.COMPLETE] == 59
