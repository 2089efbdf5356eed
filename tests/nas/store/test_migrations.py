"""Migrations, from each older schema to the newest and back, with data, on both databases."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from nas.definition.requested_training import parse_training
from nas.jobs import JobKind
from nas.metrics import Evaluation, EvaluationKind, Measurement
from nas.store import Store
from nas.store.tables import Base
from nas.store.upgrade import VERSION_TABLE, alembic_config, head, outdated
from nas.study import DataFingerprint
from nas.trial import Placement, Rung, TrialKind, TrialState
from partialnet.architecture import Architecture
from tests.nas.store.databases import BACKENDS
from tests.nas.store.makers import candidate, complete, definition, epoch, networks, study, supernet

# The oldest first: branches that were merged may have numbers out of order.
REVISIONS = [script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()][::-1]


# make test goes down to the oldest and the newest schema, by which each step is taken, and on SQLite to every fourth.
SAMPLE = {"sqlite": {*REVISIONS[:-1:4], REVISIONS[-2]}, "postgresql": {REVISIONS[0], REVISIONS[-2]}}
STEPS = [
    pytest.param(
        backend, revision,
        marks=[
            *([pytest.mark.postgres] if backend == "postgresql" else []),
            *([] if revision in sample else [pytest.mark.long]),
        ],
    )
    for backend, sample in SAMPLE.items() for revision in REVISIONS[:-1]
]  # fmt: skip


def test_the_newest_revision_is_read_without_alembic_as_alembic_reads_it() -> None:
    assert head() == REVISIONS[-1]
    assert head() == ScriptDirectory.from_config(alembic_config()).get_current_head()


@pytest.fixture(params=BACKENDS)
def own_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database of this test alone, with the newest schema; other tests share one of PostgreSQL's."""
    if request.param == "postgresql":
        database: Callable[..., str] = request.getfixturevalue("postgres")
        url = database(empty=True)
        Store.open(url, upgrade=True).close()
        return url
    shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "nas.db")
    return f"sqlite:///{tmp_path}/nas.db"


def fill(store: Store) -> None:
    """Write a row into each table."""
    made = study(store, objectives=["top1", "macs"])
    store.record_data(made.id, DataFingerprint(("x",), {"train": 1}, {"train": "00"}))
    for active in (3, 4, 5):
        complete(store, made.id, active, top1=active / 10)
    store.place_trial(made.id, 0, Placement("here", 1, 1.0, 0.0))
    name = store.trial(made.id, 1).candidates[0].architecture.id
    later = [Measurement("latency_ms", 2.5, {"n": 3}, "here"), Measurement("macs", 9.0, {}, "fvcore")]
    store.add_measurements(name, later)
    tested = Evaluation(EvaluationKind.RETRAINED, "top1", 0.6, data_split="test")
    store.add_evaluations(made.id, 1, name, [Evaluation(EvaluationKind.FINETUNED, "top1", 0.7), tested])
    store.add_trials(made.id, [(TrialKind.BASELINE, {"ratio": 0.5}), (TrialKind.SEARCH, {})])
    store.end_trial(made.id, 3, TrialState.FAILED, reason="it diverged")
    store.start_trial(made.id, 4)
    store.record_epoch(made.id, 4, epoch(1), Rung(4, 1, (0.5,), True))
    supernet(store)
    store.enqueue_job(JobKind.EXPORT, {"number": 0}, study_id=made.id)
    keyed, job = store.submit_study(definition("keyed"), {"top1": 0.0}, key="a request")
    assert store.submit_study(definition("keyed"), {"top1": 0.0}, key="a request") == (keyed, job)
    [spec] = store.add_trials(keyed.id, [(TrialKind.SEARCH, {"target": 4.0})])
    store.start_trial(keyed.id, spec.number)
    whole = {"depths": [1, 1, 1, 1], "embed_dim": 8, "mlp_ratio": 2.0, "num_classes": 10}  # its blocks become rows
    training = store.submit_training(parse_training({"study": made.id, "trial": 1}))
    store.record_training_epoch(training.id, epoch(1))
    shaped = Architecture("partialnet_micro", whole, {"stages.0.blocks.0.mixer": 4})
    store.end_trial(keyed.id, spec.number, TrialState.COMPLETE, candidates=[candidate(6, architecture=shaped)])


def reads(store: Store) -> list[object]:
    """Return what can be read, which no migration may change."""
    found: list[object] = []
    for row in store.studies():
        ref = row.study.id
        whole = [replace(t, placement=None, candidates=tuple(replace(c, target=None) for c in t.candidates))
                 for t in store.trials(ref, history=True)]  # fmt: skip
        pages = [replace(line.spec) for line in store.trial_rows(ref).rows]
        front = store.front(ref, dominated=tuple(TrialKind))
        growths = [(growth.number, growth.trials, growth.value) for growth in store.growths(ref)]
        name = replace(row.study, data=None)
        found += [name, row.counts, row.best_top1, whole, pages, front, growths, store.split_rows(ref)]
        found += [store.events_after(ref, 0), [job.id for job in store.jobs(ref) if job.kind is not JobKind.TRAIN]]
    return found


def migrate(store: Store, revision: str, *, down: bool) -> None:
    with store._database.engine.connect() as connection, connection.begin():
        (command.downgrade if down else command.upgrade)(alembic_config(connection=connection), revision)


@pytest.mark.parametrize(("own_url", "revision"), STEPS, indirect=["own_url"])
def test_down_to_an_older_schema_and_up_again_keeps_the_data(own_url: str, revision: str) -> None:
    with Store.open(own_url) as store:
        fill(store)
        before = reads(store)
        migrate(store, revision, down=True)
        with store._database.engine.connect() as connection:
            waiting = connection.scalar(text("SELECT count(*) FROM jobs WHERE kind = 'train'"))
        # A schema without trainings has no jobs of them, which its workers could not run.
        assert waiting == (REVISIONS.index(revision) >= REVISIONS.index("0018"))
    assert outdated(own_url) == revision
    with Store.open(own_url, upgrade=True) as store:
        assert (store.upgrade.before, store.upgrade.after) == (revision, head())
        assert reads(store) == before
        assert outdated(own_url) is None
        with store._database.engine.connect() as connection:
            options = {"compare_type": True, "version_table": VERSION_TABLE}
            assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []
        # What is written after it stands beside what was there.
        made = store.study("digits")
        complete(store, made.id, active=9, top1=0.95)
        assert [row.spec.number for row in store.trial_rows(made.id).rows] == [0, 1, 2, 3, 4, 5]
        assert store.growths(made.id)[-1].number == 5
        assert store.front(made.id).hypervolume == pytest.approx(store.growths(made.id)[-1].value)


def test_all_the_way_down_leaves_no_table_of_ours(own_url: str) -> None:
    with Store.open(own_url) as store:
        fill(store)
        migrate(store, "base", down=True)
        with store._database.engine.connect() as connection:
            tables = store._database.engine.dialect.get_table_names(connection)
    assert set(tables) <= {VERSION_TABLE}


def test_the_maker_of_data_reaches_each_table(own_url: str) -> None:
    with Store.open(own_url) as store:
        fill(store)
        with store._database.engine.connect() as connection:
            rows = {name: connection.execute(table.select()).first() for name, table in Base.metadata.tables.items()}
    empty = [name for name, row in rows.items() if row is None]
    assert empty == ["tokens"]
    assert len(networks()) == 3
