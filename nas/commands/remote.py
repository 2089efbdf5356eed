"""The studies of a service as the commands read those of a database: ``--server`` changes nothing else about them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.commands.options import COMMON, open_store, settings_from
from nas.errors import InputError
from nas.findings.scores import usual_fingerprints
from nas.settings import Settings
from nas.trial import Trial, TrialKind

if TYPE_CHECKING:
    from nas.client import Client
    from nas.findings.growth import Growth
    from nas.metrics import EvaluationKind
    from nas.store import Front, Store, StudyRow
    from nas.study import Study
    from nas.wire.bodies import StudyBody

_MOST_POINTS = 100_000

Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Ask a service instead of the database; the token is in NAS_TOKEN \\[NAS_SERVER]",
        rich_help_panel=COMMON,
    ),
]


class RemoteStore:
    """What the commands use of a store, answered by a service.

    Args:
        client: Client of the service.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self._candidates: list[Any] = []

    def study_bodies(self) -> list[StudyBody]:
        """Return all studies, newest first."""
        return list(self.client.studies().studies)

    def study(self, ref: str) -> Study:
        """Find a study."""
        return self.study_row(ref).study

    def study_row(self, ref: str) -> StudyRow:
        """Find a study, with its counts."""
        from nas.wire.readers import study_row_from

        return study_row_from(self.client.study(ref))

    def growths(self, study_id: str) -> list[Growth]:
        """Return how the hypervolume of a study grew."""
        from nas.wire.readers import growths_of

        return growths_of(self.client.study(study_id))

    def trial(self, study_id: str, number: int) -> Trial:
        """Return a trial with its history."""
        from nas.wire.readers import trial_of

        found = trial_of(self.client.trial(study_id, number))
        self._candidates += found.candidates
        return found

    def trials(self, study_id: str) -> list[Trial]:
        """Return all trials of a study, by one request for each."""
        return [self.trial(study_id, body.number) for body in self.client.trials(study_id).trials]

    def usual_fingerprints(self, _study_id: str) -> dict[str, str]:
        """Return the circumstances of most measurements of the requested trials."""
        return usual_fingerprints(self._candidates)

    def front(
        self,
        study_id: str,
        objectives: Sequence[str],
        evaluation: EvaluationKind | None = None,
        *,
        dominated: Collection[TrialKind] = (),
        infeasible: bool = False,
    ) -> Front:
        """Return the front of a study."""
        from nas.wire.readers import front_of

        y, x, *others = objectives
        body = self.client.pareto(
            study_id,
            x=x,
            y=y,
            z=others[0] if others else None,
            evaluation=evaluation,
            dominated=TrialKind.SEARCH in dominated,
            infeasible=infeasible,
            most=_MOST_POINTS,
        )
        return front_of(body)

    def pause(self, study_id: str) -> None:
        """Request a search to pause."""
        self.client.pause(study_id)

    def stop(self, study_id: str) -> None:
        """Request a search to end for good."""
        self.client.stop(study_id)

    def extend(self, study_id: str, trials: int) -> None:
        """Add search trials to a study."""
        self.client.extend(study_id, trials)

    def resume(self, study_id: str) -> None:
        """Resume a study."""
        self.client.resume(study_id)

    def resume_with_failed(self, study_id: str) -> None:
        """Run the failed trials of a study again."""
        self.client.resume(study_id, retry_failed=True)


@contextmanager
def open_source(server: str | None, database: str | None) -> Iterator[Store | RemoteStore]:
    """Open the database, or the service if one is given, inside the block.

    Raises:
        InputError: If both are given, or one cannot be opened.
    """
    settings = settings_from(database)
    url = server_of(server, database, settings)
    if url is None:
        with open_store(settings) as store:
            yield store
        return
    with open_client(url, settings) as client:
        yield RemoteStore(client)


def server_of(server: str | None, database: str | None, settings: Settings) -> str | None:
    """Return the address of the service to ask; None for the database.

    Raises:
        InputError: If the flags name both.
    """
    if server is not None and database is not None:
        raise InputError("--server and --database exclude each other: the service has a database of its own")
    return server or (settings.server if database is None else None)


@contextmanager
def open_client(url: str, settings: Settings) -> Iterator[Client]:
    """Open a client of a service, with the token of the environment, inside the block."""
    from nas.client import Client

    with Client(url, settings.checked_token()) as client:
        yield client


def study_bodies(source: Store | RemoteStore) -> list[StudyBody]:
    """Return all studies, newest first."""
    if isinstance(source, RemoteStore):
        return source.study_bodies()
    from nas.wire.builders import study_from

    return [study_from(row.study, row.counts, row.best_top1) for row in source.studies()]
