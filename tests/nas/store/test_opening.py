"""Opening a store: what is wrong is said, and no password is."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from nas.errors import StoreError
from nas.jobs import JobKind
from nas.settings import mask
from nas.store import Store
from nas.store.database import Database, parse_url
from nas.store.tables import Base
from nas.store.upgrade import MIGRATIONS, VERSION_TABLE, alembic_config, ensure_current, head
from nas.study import DataFingerprint, StudyState
from nas.trial import Fidelity, Placement, Rung, TrialKind, TrialState
from tests.nas.store.makers import complete, epoch, study

SECRET = "s3cr3t-w0rd"
PLACES = (
    "postgresql://user:{}@localhost:1/nas",
    "postgresql://:{}@localhost:1/nas",
    "postgresql://user@localhost:1/nas?password={}",
    "postgresql://localhost:1/nas?connect_timeout=1&password={}",
    "mysql://user:{}@localhost:1/nas",
    "user:{}@localhost/nas",
)


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("nas.db", "is no database URL; for example sqlite:///nas.db"),
            ("", "is no database URL"),
            (f"not a url://user:{SECRET}@host", "is no database URL"),
            (f"mysql://user:{SECRET}@host/nas", "must be SQLite or PostgreSQL"),
            (f"oracle+nope://user:{SECRET}@host/nas", "must be SQLite or PostgreSQL"),
            (f"postgresql+nope://user:{SECRET}@host/nas", "no such database driver"),
            (f"postgresql://user:{SECRET}@localhost:1/nas", "cannot connect"),
            (f"postgres://user:{SECRET}@localhost:1/nas", "cannot connect"),
            (f"postgresql://user@localhost:1/nas?password={SECRET}", "cannot connect"),
            (f"postgresql://user:{SECRET}@localhost:1/nas?{SECRET}={SECRET}", "cannot connect"),
            ("sqlite://", "needs a file"),
            ("sqlite:///:memory:", "needs a file"),
        ],
    )
    def test_refused(self, url: str, said: str) -> None:
        with pytest.raises(StoreError, match=said) as caught:
            Store.open(url)
        if not url.endswith(f"={SECRET}") or "password=" in url:
            assert SECRET not in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_masked(self) -> None:
        assert mask(f"postgresql://user:{SECRET}@host/nas") == "postgresql://user:***@host/nas"
        assert SECRET not in mask(f"postgresql://host/nas?password={SECRET}")
        assert SECRET not in mask(f"::://user:{SECRET}@host")
        assert mask("sqlite:////data/me@work/nas.db") == "sqlite:////data/me@work/nas.db"
        assert mask("postgresql://user@host/nas") == "postgresql://user@host/nas"

    @given(st.lists(st.sampled_from([*"@/:?#%&=[] ", "%4", "://"]), min_size=1, max_size=4), st.sampled_from(PLACES))
    def test_a_mask_does_not_rely_on_parsing(self, separators: list[str], place: str) -> None:
        parts = [f"s3cr3t{number}" for number in range(len(separators) + 1)]
        password = parts[0] + "".join(f"{between}{part}" for between, part in zip(separators, parts[1:], strict=True))
        assert "s3cr3t" not in mask(place.format(password))
        with pytest.raises(StoreError) as caught:
            ensure_current(Database(parse_url(place.format(password))), upgrade=False)
        assert "s3cr3t" not in str(caught.value)

    @pytest.mark.parametrize("password", ["p@ss/w%rd", "p@ss", "p@s?s=1", "p@s:s"])
    def test_a_password_that_is_torn_apart_is_never_connected_with(self, password: str) -> None:
        with pytest.raises(StoreError, match=r"must be escaped: write @ as %40|is no database URL") as caught:
            parse_url(f"postgresql://user:{password}@localhost:1/nas")
        assert "ss" not in str(caught.value).replace("password", "").replace("passfile", "")


class TestFiles:
    def test_a_new_file(self, tmp_path: Path) -> None:
        path = tmp_path / "with space" / "nas.db"
        path.parent.mkdir()
        with Store.open(f"sqlite:///{path}") as store:
            assert (store.upgrade.before, store.upgrade.after, store.upgrade.backup) == (None, head(), None)
            made = study(store)
        with Store.open(f"sqlite:///{path}", upgrade=False) as store:
            assert store.study("latest") == made
        assert [entry.name for entry in path.parent.iterdir()] == ["nas.db"]

    def test_relative_to_the_working_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Store.open("sqlite:///nas.db").close()
        assert (tmp_path / "nas.db").exists()

    def test_without_creating(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"nas\.db does not exist"):
            Store.open(f"sqlite:///{tmp_path}/nas.db", create=False)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"the folder .*/gone does not exist; create it first"):
            Store.open(f"sqlite:///{tmp_path}/gone/nas.db")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="is a folder"):
            Store.open(f"sqlite:///{tmp_path}")

    def test_no_database(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("not a database, but long enough to have a header" * 10)
        before = path.read_bytes()
        with pytest.raises(StoreError, match="is not an SQLite database"):
            Store.open(f"sqlite:///{path}")
        assert path.read_bytes() == before

    def test_another_program_s_database(self, tmp_path: Path) -> None:
        path = tmp_path / "other.db"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE bookmarks (url TEXT)")
        with pytest.raises(StoreError, match=r"another program's database .*bookmarks"):
            Store.open(f"sqlite:///{path}")

    @pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs a folder that not even root can write")
    def test_no_permission(self) -> None:
        with pytest.raises(StoreError, match="may this user write"):
            Store.open("sqlite:////proc/nas.db")


class TestVersions:
    def test_a_newer_schema(self, store: Store, store_url: str) -> None:
        with store._database.write() as session:
            session.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
        for upgrade in (None, True, False):
            with pytest.raises(StoreError, match=r"schema 9999, which is newer .* install a newer"):
                Store.open(store_url, upgrade=upgrade)

    def test_sqlite_upgrades_itself_after_a_backup(
        self, migrated_file: Path, tmp_path: Path, next_migrations: Path
    ) -> None:
        path = tmp_path / "nas.db"
        shutil.copy(migrated_file, path)
        url = f"sqlite:///{path}"
        with Store.open(url) as store:
            made = study(store)
        with pytest.raises(StoreError, match="needs 9000; run `nas db upgrade`"):
            _ensure(url, upgrade=False, migrations=next_migrations)
        done = _ensure(url, upgrade=True, migrations=next_migrations)
        assert (done.before, done.after) == (head(), "9000")
        assert done.backup is not None
        assert done.backup.parent == tmp_path
        with Store.open(f"sqlite:///{done.backup}") as backup:
            assert backup.study("latest") == made
        assert _columns(path) >= {"mood"}
        assert _ensure(url, upgrade=True, migrations=next_migrations).backup is None

    def test_an_upgrade_that_fails_changes_nothing(
        self, migrated_file: Path, tmp_path: Path, next_migrations: Path
    ) -> None:
        path = tmp_path / "nas.db"
        shutil.copy(migrated_file, path)
        script = next_migrations / "versions" / "9000_next.py"
        script.write_text(script.read_text() + '    op.execute("SELECT nonsense FROM nowhere")\n')
        with pytest.raises(StoreError, match="the upgrade to 9000 failed and changed nothing: no such table"):
            _ensure(f"sqlite:///{path}", upgrade=True, migrations=next_migrations)
        assert "mood" not in _columns(path)
        Store.open(f"sqlite:///{path}", upgrade=False).close()

    @pytest.mark.postgres
    def test_postgresql_waits_for_the_command(self, postgres) -> None:
        url = postgres(empty=True)
        with pytest.raises(StoreError, match="is empty; run `nas db upgrade`"):
            Store.open(url)
        with Store.open(url, upgrade=True) as store:
            assert (store.upgrade.before, store.upgrade.after) == (None, head())
        Store.open(url).close()

    @pytest.mark.postgres
    def test_a_wrong_database_name(self, postgres) -> None:
        url = postgres().replace("/shared?", "/nope?")
        with pytest.raises(StoreError, match="cannot connect"):
            Store.open(url)

    @pytest.mark.postgres
    def test_other_tables_in_postgresql_do_no_harm(self, postgres) -> None:
        url = postgres(empty=True)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
            connection.execute("INSERT INTO alembic_version VALUES ('of another program')")
        with Store.open(url, upgrade=True) as store:
            made = study(store)
            assert store.study(made.id) == made
        with psycopg.connect(url, autocommit=True) as connection:
            assert connection.execute("SELECT * FROM alembic_version").fetchall() == [("of another program",)]


def test_models_and_migrations_agree(store: Store) -> None:
    with store._database.engine.connect() as connection:
        options = {"compare_type": True, "version_table": VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_candidates_of_the_first_schema_have_no_target(migrated_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "nas.db"
    shutil.copy(migrated_file, path)
    with Store.open(f"sqlite:///{path}") as store:
        made = study(store)
        complete(store, made.id)
        before = store.trial(made.id, 0)
        with store._database.engine.connect() as connection, connection.begin():
            command.downgrade(alembic_config(connection=connection), "0001")
    assert "target" not in _columns(path, "candidates")
    with Store.open(f"sqlite:///{path}") as store:
        assert (store.upgrade.before, store.upgrade.after) == ("0001", head())
        [kept] = store.trial(made.id, 0).candidates
    assert kept == replace(before.candidates[0], target=None)


def test_trials_of_an_older_schema_have_no_placement(migrated_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "nas.db"
    shutil.copy(migrated_file, path)
    with Store.open(f"sqlite:///{path}") as store:
        made = study(store)
        complete(store, made.id)
        store.place_trial(made.id, 0, Placement("here", 1, 1.0, 0.0))
        before = store.trial(made.id, 0)
        with store._database.engine.connect() as connection, connection.begin():
            command.downgrade(alembic_config(connection=connection), "0002")
    assert "placement" not in _columns(path, "trials")
    with Store.open(f"sqlite:///{path}") as store:
        assert store.trial(made.id, 0) == replace(before, placement=None)


def test_studies_and_jobs_of_an_older_schema_are_ordered_by_time_and_know_no_data(
    migrated_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "nas.db"
    shutil.copy(migrated_file, path)
    with Store.open(f"sqlite:///{path}") as store:
        made = [study(store, name) for name in ("a", "b", "c")]
        queued = [store.enqueue_job(JobKind.EXPORT, {"number": n}, study_id=made[0].id) for n in range(3)]
        with store._database.engine.connect() as connection, connection.begin():
            command.downgrade(alembic_config(connection=connection), "0003")
    assert not {"sequence", "data"} & (_columns(path, "studies") | _columns(path, "jobs"))
    with Store.open(f"sqlite:///{path}") as store:
        assert store.study("a").data is None
        store.record_data(made[0].id, DataFingerprint(("x",), {"train": 1}, {"train": "00"}))
        assert [row.study.name for row in store.studies()] == ["c", "b", "a"]
        assert [job.id for job in store.jobs()] == [job.id for job in reversed(queued)]
        assert study(store, "d") == store.study("latest")


def test_a_stopped_study_of_an_older_schema_can_be_resumed_and_was_not_extended(
    migrated_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "nas.db"
    shutil.copy(migrated_file, path)
    with Store.open(f"sqlite:///{path}") as store:
        made = {state: study(store, state.value).id for state in (StudyState.STOPPED, StudyState.FINISHED)}
        for state, study_id in made.items():
            store.set_study_state(study_id, state)
        store.extend(made[StudyState.FINISHED], 3)
        with store._database.engine.connect() as connection, connection.begin():
            command.downgrade(alembic_config(connection=connection), "0004")
    assert "extended" not in _columns(path, "studies")
    with Store.open(f"sqlite:///{path}") as store:
        assert {row.study.name: row.study.state for row in store.studies()} == {
            "stopped": StudyState.PAUSED, "finished": StudyState.QUEUED
        }  # fmt: skip
        assert {row.study.extended for row in store.studies()} == {0}


def test_an_older_schema_knows_no_early_stopping_and_no_earlier_study(migrated_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "nas.db"
    shutil.copy(migrated_file, path)
    with Store.open(f"sqlite:///{path}") as store:
        before = study(store, "before")
        complete(store, before.id)
        made = study(store, sweep={"from": "before"}, space={"target": {"log_uniform": [2, 8]}})
        store.add_trials(made.id, [(TrialKind.SEARCH, {"target": 3.0})])
        store.start_trial(made.id, 0)
        store.record_epoch(made.id, 0, epoch(1), Rung(0, 1, (0.5,), kept=False))
        store.end_trial(made.id, 0, TrialState.PRUNED, reason="stopped early", fidelity=Fidelity(1, 30))
        assert len(store.prior(made.id)) == 1
        with store._database.engine.connect() as connection, connection.begin():
            command.downgrade(alembic_config(connection=connection), "0009")
    assert not {"prior", "epochs_trained"} & (_columns(path, "studies") | _columns(path, "trials"))
    with Store.open(f"sqlite:///{path}") as store:
        assert store.prior(made.id) == ()
        assert store.rungs(made.id) == []
        old = store.trial(made.id, 0)
        assert (old.state, old.fidelity, old.reason) == (TrialState.PRUNED, None, "stopped early")


def test_every_constraint_has_a_name(store: Store) -> None:
    for table in Base.metadata.tables.values():
        assert all(constraint.name for constraint in table.constraints)


@pytest.fixture
def next_migrations(tmp_path: Path) -> Path:
    """The migrations, and one more that a later version might have."""
    folder = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "9000_next.py").write_text(
        f'''
import sqlalchemy as sa
from alembic import op

revision = "9000"
down_revision = "{head()}"


def upgrade():
    op.add_column("studies", sa.Column("mood", sa.String(8)))
'''
    )
    return folder


def _ensure(url: str, **options):
    database = Database(parse_url(url))
    try:
        return ensure_current(database, **options)
    finally:
        database.close()


def _columns(path: Path, table: str = "studies") -> set[str]:
    with sqlite3.connect(path) as connection:
        return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
