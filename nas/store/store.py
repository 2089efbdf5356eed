"""The store, as the rest of the program uses it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from sqlalchemy import select

from nas.errors import StoreError
from nas.jobs import DesiredState
from nas.store.architectures import Architectures
from nas.store.base import Actor, Fence
from nas.store.curation import Curation
from nas.store.database import Database, parse_url
from nas.store.events import Events
from nas.store.fronts import Fronts
from nas.store.holdings import Holds
from nas.store.overviews import Overviews
from nas.store.paces import Paces
from nas.store.pages import Pages
from nas.store.pauses import Pauses
from nas.store.study_lists import StudyLists
from nas.store.tokens import Tokens
from nas.store.trainings import Trainings
from nas.store.transfer import Transfers
from nas.store.trial_reads import TrialReads
from nas.store.upgrade import Upgrade, ensure_current
from nas.store.versions import Versions


class Store(
    Pauses, Trainings, TrialReads, Events, Fronts, Holds, Pages, Transfers, Tokens, Curation, StudyLists, Versions,
    Architectures, Paces, Overviews,
):
    """Studies, trials, jobs and events in SQLite or PostgreSQL.

    All methods may be called from any thread and any number of processes. Each is one transaction, and its result does
    not change with the database. Each method raises ``StoreError`` if the database fails, ``NotFoundError`` if
    something does not exist, and ``ConflictError`` if the present state forbids the action.

    Attributes:
        upgrade: Change of the schema at the opening.
    """

    upgrade: Upgrade

    @classmethod
    def open(cls, url: str, *, upgrade: bool | None = None, create: bool = True) -> Store:
        """Open a database.

        Args:
            url: SQLAlchemy URL, for example ``sqlite:///nas.db`` or ``postgresql://user@host/database``.
            upgrade: Whether an older or empty schema is brought up to date. By default SQLite upgrades itself, after
                a backup copy beside the file, and PostgreSQL waits for ``nas db upgrade``.
            create: Whether a missing SQLite file is created.

        Raises:
            StoreError: If it cannot be opened; the message gives the reason and the URL without its password.
        """
        parsed = parse_url(url)
        database = Database(parsed)
        path = database.path
        # A missing folder gets a message of its own.
        if path is not None and not create and path.absolute().parent.is_dir() and not path.exists():
            raise StoreError(f"{database.shown}: the file {path} does not exist; is this the right folder?")
        try:
            done = ensure_current(database, upgrade=database.path is not None if upgrade is None else upgrade)
            database.check_file()
        except BaseException:
            database.close()
            raise
        store = cls(database)
        store.upgrade = done
        return store

    @property
    def url(self) -> str:
        """URL of the database, with a masked password."""
        return self._database.shown

    @property
    def read_only(self) -> bool:
        """Whether each write is refused: this user may only read the database's file."""
        return self._database.read_only

    def ping(self) -> None:
        """Check that the database answers.

        Raises:
            StoreError: If it does not.
        """
        self._database.look(select(1), {})

    def fenced(self, job_id: str, epoch: int) -> Store:
        """Return this store for the holder of a lease: its writes raise ``StaleLease`` once the lease is lost.

        A search that was cut off until another worker took it over can then do no harm.
        """
        return self._like(Fence(job_id, epoch), self._patience)

    def acting(self, name: str, *, searches: int | None = None, admin: bool = False) -> Store:
        """Return this store for the holder of a token: its new studies record who created them.

        Args:
            name: Name of the token.
            searches: Largest number of its studies whose search waits or runs, and of its trainings; None for no limit.
            admin: Whether it may change everything, whoever created it.
        """
        return self._like(self._fence, self._patience, Actor(name, searches, admin))

    def patient(self, seconds: float) -> Store:
        """Return this store for a process that can wait: a transaction waits for a database that does not answer.

        Args:
            seconds: Longest wait in seconds for the beginning of a transaction.
        """
        return self._like(self._fence, seconds)

    def _like(self, fence: Fence | None, patience: float, actor: Actor | None = None) -> Store:
        store = type(self)(self._database, fence, patience, actor or self._actor)
        store.upgrade = self.upgrade
        store._usual = self._usual
        return store

    @property
    def leased(self) -> bool:
        """Whether its writes are fenced by a lease."""
        return self._fence is not None

    def desired(self) -> DesiredState:
        """Return the state that is requested for the job of its lease; ``running`` without a lease."""
        return DesiredState.RUNNING if self._fence is None else self.job(self._fence.job_id).desired

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({self.url!r})"
