"""The client that waits for each answer: made from ``asynchronous.py``; edit that, see ``twin.py``."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from nas.client import calls
from nas.client.calls import MOST_LINES, Body, Call
from nas.client.events import ClientEvent, EventReader
from nas.client.transport import (
    Progress,
    Retries,
    base_of,
    error_from,
    finished,
    options_of,
    read_answer,
    request_of,
    unreachable,
)
from nas.definition.requested_training import RequestedTraining
from nas.definition.study import StudyDefinition
from nas.errors import NasError
from nas.metrics import EvaluationKind
from nas.tokens import Scope
from nas.trainings import TrainingState
from nas.wire.architectures import ArchitectureBody, ExportBody, ExportList
from nas.wire.bodies import (
    ControlBody,
    JobBody,
    LaunchBody,
    ParetoBody,
    StudyBody,
    StudyDetail,
    StudyList,
    TrialBody,
    TrialDetail,
    TrialList,
)
from nas.wire.checks import CheckBody
from nas.wire.side_by_side import ImportancesBody, SideBySideBody
from nas.wire.tokens import NewTokenBody, TokenBody, TokenList
from nas.wire.trainings import (
    CheckpointList,
    DeletedTraining,
    PackageBody,
    TrainingBody,
    TrainingDetail,
    TrainingHistoryBody,
    TrainingList,
)
from partialnet.files import whole_file


class Client:
    """A client of one service.

    Args:
        url: Address of the service, such as ``http://127.0.0.1:8000``.
        token: Token of the service (``nas token create``, or its ``NAS_TOKEN``).
        timeout: Longest time in seconds to wait for an answer.
        retries: Repetition of requests that failed for a reason that may pass.

    Raises:
        InputError: If ``url`` is not an HTTP address, or one that signs in a browser.
    """

    def __init__(
        self, url: str, token: str | None = None, *, timeout: float = 30.0, retries: Retries | None = None
    ) -> None:
        self.url = base_of(url)
        self._retries = retries or Retries()
        self._http = httpx.Client(**options_of(self.url, token, timeout))

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def launch(self, definition: StudyDefinition | Mapping[str, Any] | str) -> LaunchBody:
        """Launch a study from a definition, its JSON form, or YAML text.

        Raises:
            DefinitionError: If there are faults, with one line for each.
        """
        return self._ask(calls.launch(definition))

    def check(self, text: str, *, data: bool = False) -> CheckBody:
        """Check a definition without launching it: its faults with their lines, and what it would cost.

        Args:
            text: Definition as YAML.
            data: Whether the data and the targets are checked as well, which takes seconds.
        """
        return self._ask(calls.check(text, data))

    def studies(self) -> StudyList:
        """Return all studies, newest first."""
        found: list[StudyBody] = []
        after: str | None = None
        while True:
            page = self._ask(calls.studies(after))
            found += page.studies
            after = page.after
            if after is None:
                return StudyList(studies=tuple(found), count=len(found))

    def study(self, study: str) -> StudyDetail:
        """Return one study, by its id, by the first 6 or more characters of its id, or by its name."""
        return self._ask(calls.study(study))

    def trials(self, study: str, *, evaluation: EvaluationKind | None = None) -> TrialList:
        """Return the trials of a study with their scores: of one evaluation kind, or of each trial's best trained
        weights.
        """
        found: list[TrialBody] = []
        after: str | None = None
        while True:
            page = self._ask(calls.trial_page(study, MOST_LINES, after, None, False, evaluation))
            found += page.trials
            after = page.after
            if after is None:
                return TrialList(trials=tuple(found), count=len(found), evaluation=evaluation)

    def trial_page(
        self,
        study: str,
        *,
        limit: int = 100,
        after: str | None = None,
        sort: str | None = None,
        descending: bool = False,
        evaluation: EvaluationKind | None = None,
    ) -> TrialList:
        """Return a page of a study's trials, by number, or of its networks in the order of a metric.

        Args:
            study: Id or name of the study.
            limit: Largest number of lines.
            after: Mark of the previous page's end, its ``after``; None for the first page.
            sort: Metric of the order, such as ``top1``; None for the order of numbers.
            descending: Whether the order is descending.
            evaluation: Evaluation kind of the scores; None for the one that most networks have.
        """
        return self._ask(calls.trial_page(study, limit, after, sort, descending, evaluation))

    def trial(self, study: str, number: int) -> TrialDetail:
        """Return one trial with the splits of its layers, scores and history."""
        return self._ask(calls.trial(study, number))

    def pareto(
        self,
        study: str,
        *,
        x: str = "macs",
        y: str = "top1",
        z: str | None = None,
        evaluation: EvaluationKind | None = None,
        dominated: bool = True,
        infeasible: bool = False,
        most: int | None = None,
    ) -> ParetoBody:
        """Return the scored networks in the plane or space of two or three metrics, with marks on the front.

        All scores are of one evaluation kind: ``evaluation``, or the best trained kind with scores.

        Args:
            study: Id or name of the study.
            x: First metric, a cost.
            y: Second metric, a score.
            z: Third metric, if the front has three objectives.
            evaluation: Evaluation kind of the scores.
            dominated: Whether dominated networks are among the points; baselines always are.
            infeasible: Whether networks that break a constraint may be on the front.
            most: Largest number of dominated networks; of more, the service selects some.
        """
        choice = {"dominated": dominated, "infeasible": infeasible, "most": most}
        return self._ask(calls.pareto(study, x=x, y=y, z=z, evaluation=evaluation, **choice))

    def importances(self, study: str) -> ImportancesBody:
        """Return how important each sampled parameter of a study is for each objective, or why it is not computed."""
        return self._ask(calls.importances(study))

    def compare(self, *trials: str) -> SideBySideBody:
        """Return trials of one study or several side by side: settings, scores with intervals, splits.

        Args:
            trials: 2 to 8 of ``STUDY:NUMBER``, or ``STUDY:NUMBER.NETWORK`` for one of several networks.
        """
        return self._ask(calls.compare(trials))

    def pause(self, study: str) -> ControlBody:
        """Request the search of a study to pause; :meth:`resume` continues it."""
        return self._ask(calls.pause(study))

    def stop(self, study: str) -> ControlBody:
        """Request the search of a study to end for good."""
        return self._ask(calls.stop(study))

    def resume(self, study: str, *, retry_failed: bool = False) -> LaunchBody:
        """Resume a paused or failed study.

        Args:
            study: Id or name of the study.
            retry_failed: Whether its failed trials run again; this resumes a finished study, too.
        """
        return self._ask(calls.resume(study, retry_failed))

    def extend(self, study: str, trials: int) -> LaunchBody:
        """Add search trials to the plan of a finished, paused or failed study, and resume it."""
        return self._ask(calls.extend(study, trials))

    def export(
        self,
        study: str,
        number: int,
        candidate: str | int | None = None,
        *,
        onnx: bool = False,
        program: bool = False,
        int8_max_drop: float | None = None,
    ) -> JobBody:
        """Queue the export of a trial's network; see :meth:`wait` and :meth:`download`.

        Args:
            study: Id or name of the study.
            number: Number of the trial.
            candidate: Index of the network, or the beginning of its architecture's id; needed if the trial has several.
            onnx: Whether the inference form is also written as ONNX.
            program: Whether it is also written as a program of ``torch.export``.
            int8_max_drop: Largest fall of top-1 by the form with 8-bit integers, in points; None for no such form.
        """
        return self._ask(calls.export(study, number, candidate, onnx, program, int8_max_drop))

    def train(self, wanted: RequestedTraining | Mapping[str, Any] | str) -> TrainingDetail:
        """Launch a training of a trial's network, an architecture or a package, from JSON values or YAML text.

        Raises:
            DefinitionError: If there are faults, with one line for each.
        """
        return self._ask(calls.train(wanted))

    def trainings(
        self, *, study: str | None = None, architecture: str | None = None, state: TrainingState | None = None
    ) -> TrainingList:
        """Return the trainings, newest first: all, or those of a study, of an architecture, or in a state."""
        found: list[TrainingBody] = []
        after: str | None = None
        while True:
            page = self._ask(calls.trainings(after, study=study, architecture=architecture, state=state))
            found += page.trainings
            after = page.after
            if after is None:
                return TrainingList(trainings=tuple(found), count=len(found))

    def training(self, training: str) -> TrainingDetail:
        """Return one training, by its id or the first 6 or more characters of it."""
        return self._ask(calls.training(training))

    def training_history(self, training: str) -> TrainingHistoryBody:
        """Return the epochs of a training."""
        return self._ask(calls.training_history(training))

    def training_checkpoints(self, training: str) -> CheckpointList:
        """Return the checkpoints of a training."""
        return self._ask(calls.training_checkpoints(training))

    def stop_training(self, training: str) -> TrainingDetail:
        """Request a training to write a checkpoint and end; :meth:`resume_training` continues it."""
        return self._ask(calls.stop_training(training))

    def resume_training(self, training: str) -> TrainingDetail:
        """Queue a stopped or failed training again."""
        return self._ask(calls.resume_training(training))

    def delete_training(self, training: str) -> DeletedTraining:
        """Delete a training that has ended, with its checkpoints and packages."""
        return self._ask(calls.delete_training(training))

    def architectures(self, *, study: str | None = None) -> ExportList:
        """Return the exported architectures, newest first: all, or those of a study."""
        found: list[ExportBody] = []
        after: str | None = None
        while True:
            page = self._ask(calls.architectures(after, study))
            found += page.architectures
            after = page.after
            if after is None:
                return ExportList(architectures=tuple(found), count=len(found))

    def architecture(self, architecture: str) -> ArchitectureBody:
        """Return one architecture, by its id or the first 6 or more characters of it."""
        return self._ask(calls.architecture(architecture))

    def job(self, job_id: str) -> JobBody:
        """Return the present state of a job."""
        return self._ask(calls.job(job_id))

    def wait(self, job_id: str, *, seconds: float = 600.0, pause: float = 0.5) -> JobBody:
        """Wait until a job is finished, and return it.

        Raises:
            JobError: If it failed, was cancelled, or has not ended after ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while True:
            job = self.job(job_id)
            if finished(job, seconds, deadline - time.monotonic()):
                return job
            time.sleep(pause)

    def tokens(self, *, everything: bool = False) -> TokenList:
        """Return the tokens of the service, newest first; with ``everything``, sessions and unused links as well."""
        return self._ask(calls.tokens(everything))

    def create_token(self, name: str, scope: Scope, *, days: float | None = None) -> NewTokenBody:
        """Create a token that expires after ``days``, and return it with its secret, which cannot be read again."""
        return self._ask(calls.create_token(name, scope, days))

    def revoke_token(self, token: str) -> TokenBody:
        """Revoke a token, a session or a link, by its name, its id or the beginning of its id."""
        return self._ask(calls.revoke_token(token))

    def last_event(self, study: str) -> int:
        """Return the number of the newest event of a study, after which :meth:`events` yields what is to come."""
        found = self._ask(calls.newest_event(study))
        return found.newest

    def events(self, study: str, *, after: int = 0) -> Iterator[ClientEvent]:
        """Yield the events of a study as they happen, for ever; a broken connection resumes where it was.

        Args:
            study: Id or name of the study.
            after: Number of the last known event; 0 for all events from the first.

        Raises:
            NotFoundError: If there is no such study.
        """
        attempt = 0
        while True:
            try:
                for event in self._stream(study, after):
                    after, attempt = event.number, 0
                    yield event
                time.sleep(self._retries.first_pause)  # the service ended the stream, perhaps to restart
            except httpx.HTTPError as error:
                attempt += 1
                pause = self._retries.after(calls.study(study), attempt, error)
                if pause is None:
                    raise unreachable(self.url, error) from error
                time.sleep(pause)

    def _stream(self, study: str, after: int) -> Iterator[ClientEvent]:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        timeout = httpx.Timeout(self._http.timeout.connect, read=60.0)  # longer than pauses between signs of life
        path, reader = calls.path_of("studies", study, "events"), EventReader()
        with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
            if response.status_code != 200:
                response.read()
                raise error_from(response)
            for line in response.iter_lines():
                if (event := reader.feed(line)) is not None:
                    yield event

    def download(self, job: JobBody, into: Path, *, progress: Progress | None = None) -> Path:
        """Save the zip file of a finished export as ``into``: whole and with the right checksum, or not at all.

        Args:
            job: Finished job.
            into: File to write.
            progress: Function that receives the bytes so far, and those of the whole file, after each piece.

        Raises:
            ConflictError: If the job has no file.
            NasError: If the received file differs from the one that the service recorded.
        """
        return self._save(calls.path_of("jobs", job.id, "download"), job.sha256, f"job {job.id}", into, progress)

    def download_package(
        self, package: PackageBody, into: Path, *, progress: Progress | None = None
    ) -> Path:
        """Save the package of a finished training (its ``download``) as ``into``; see :meth:`download`."""
        return self._save(package.path, package.sha256, package.path, into, progress)

    def _save(
        self, path: str, sha256: str | None, name: str, into: Path, progress: Progress | None
    ) -> Path:
        digest, received = hashlib.sha256(), 0
        try:
            with self._http.stream("GET", path) as response:
                if response.status_code != 200:
                    response.read()
                    raise error_from(response)
                with whole_file(into) as fresh:
                    with fresh.open("wb") as file:
                        for chunk in response.iter_bytes():
                            digest.update(chunk)
                            file.write(chunk)
                        received += len(chunk)
                        if progress is not None:
                            progress(received, int(response.headers.get("content-length", received)))
                    if sha256 is not None and digest.hexdigest() != sha256:
                        raise NasError(f"the download of {name} is damaged: its SHA-256 is not {sha256}")
        except httpx.HTTPError as error:
            raise unreachable(self.url, error) from error
        return into

    def _ask(self, call: Call[Body]) -> Body:
        for attempt in range(1, self._retries.attempts + 1):
            outcome: httpx.Response | httpx.HTTPError
            try:
                outcome = self._http.request(**request_of(call))
            except httpx.HTTPError as error:
                outcome = error
            pause = self._retries.after(call, attempt, outcome)
            if pause is None:
                break
            time.sleep(pause)
        if isinstance(outcome, httpx.HTTPError):
            raise unreachable(self.url, outcome) from outcome
        return read_answer(self.url, call.body, outcome)
