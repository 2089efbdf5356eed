"""``nas run --server``: launches or resumes a search at a service, and follows it by the stream of its events."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

import typer

from nas.commands.display import SweepDisplay
from nas.commands.options import console, note
from nas.commands.remote import RemoteStore, open_client
from nas.commands.run_end import conclude
from nas.definition.study import StudyDefinition
from nas.settings import Settings
from nas.study import StudyState
from nas.sweep.progress import EpochDone, SearchStarted, SweepEvent, TrialEnded, TrialStarted
from nas.trial import EpochRecord, TrialSpec, TrialState

if TYPE_CHECKING:
    from nas.client import Client
    from nas.client.events import ClientEvent

_ENDS = frozenset({StudyState.FINISHED, StudyState.PAUSED, StudyState.STOPPED, StudyState.FAILED})


def launch_there(url: str, settings: Settings, definition: StudyDefinition, *, quiet: bool) -> None:
    """Launch a study at the service ``url``, follow it to its end, and print its results."""
    with open_client(url, settings) as client:
        study = client.launch(definition).study
        note(f"study {study.name} was launched at {client.url}; Ctrl-C ends the following, not the search")
        _follow(client, url, study.id, 0, quiet=quiet)


def resume_there(
    url: str, settings: Settings, reference: str, extend: int | None, *, retry_failed: bool, quiet: bool
) -> None:
    """Resume a study at the service ``url``; otherwise as :func:`launch_there`."""
    with open_client(url, settings) as client:
        study = client.study(reference)
        last = client.last_event(study.id)
        if extend is not None:
            client.extend(study.id, extend)
        else:
            client.resume(study.id, retry_failed=retry_failed)
        note(f"study {study.name} was resumed at {client.url}; Ctrl-C ends the following, not the search")
        _follow(client, url, study.id, last, quiet=quiet)


def _follow(client: Client, url: str, study_id: str, after: int, *, quiet: bool) -> None:
    store = RemoteStore(client)
    try:
        with nullcontext() if quiet else SweepDisplay(console()) as display:
            progress = _Progress(store, study_id, display or (lambda _event: None))
            for event in client.events(study_id, after=after):
                if progress.ends_with(event):
                    break
    except KeyboardInterrupt:
        name = store.study(study_id).name
        note(f"the search of {name} continues there; to pause it: nas pause {name} --server {url}")
        raise typer.Exit(130) from None
    conclude(store, store.study(study_id), quiet, url)


class _Progress:
    """Turns the events of a service into those of a sweep.

    Args:
        store: Answers of the service.
        study_id: Id of the study.
        tell: Function that receives the events.
    """

    def __init__(self, store: RemoteStore, study_id: str, tell: Callable[[SweepEvent], None]) -> None:
        self._store = store
        self._id = study_id
        self._tell = tell
        self._specs: dict[int, TrialSpec] = {}
        self._count()
        definition = self._row.study.definition
        tell(SearchStarted(definition, ended=self._ended, total=self._total))

    def _count(self) -> None:
        self._row = self._store.study_row(self._id)
        self._ended = sum(count for state, count in self._row.counts.items() if state.ended)
        # The service plans a final comparison that its definition does not count yet.
        self._total = max(self._row.study.definition.planned, sum(self._row.counts.values()))

    def ends_with(self, event: ClientEvent) -> bool:
        """Take in an event, and return whether it is the end of the search."""
        facts = event.payload
        if event.kind == "study":
            return facts.get("state") in _ENDS
        if event.kind == "trial":
            self._trial(int(facts["number"]), TrialState(facts["state"]))
        elif event.kind == "epoch" and (spec := self._specs.get(int(facts["number"]))) is not None:
            record = EpochRecord(int(facts["epoch"]), facts["phase"], facts["metrics"], {})
            self._tell(EpochDone(spec, record, ended=self._ended, total=self._total))
        return False

    def _trial(self, number: int, state: TrialState) -> None:
        if state is TrialState.RUNNING:
            spec = self._specs[number] = self._store.trial(self._id, number).spec
            self._tell(TrialStarted(spec, ended=self._ended, total=self._total))
        elif state.ended:
            trial = self._store.trial(self._id, number)
            self._specs.pop(number, None)
            self._count()
            ended = TrialEnded(
                trial.spec, state, tuple(trial.candidates), trial.reason, ended=self._ended, total=self._total
            )
            self._tell(ended)
