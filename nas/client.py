"""A client of the service's API for scripts and notebooks; its answers are types of :mod:`nas.wire.bodies`. No torch.

An error of the service is raised as the class that it names (``NotFoundError``, ``ConflictError``, ...). Code that uses
the client and code that uses the store therefore handle failures alike.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from nas.definition.study import StudyDefinition
from nas.definition.words import first_in_words
from nas.errors import (
    ConflictError,
    DefinitionError,
    InputError,
    JobError,
    NasError,
    NotFoundError,
    StoreError,
)
from nas.jobs import JobState
from nas.metrics import EvaluationKind
from nas.wire.bodies import (
    ControlBody,
    ErrorBody,
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
from partialnet.files import whole_file

Body = TypeVar("Body", bound=BaseModel)

_ERRORS: Mapping[str, type[NasError]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (ConflictError, DefinitionError, InputError, JobError, NotFoundError, StoreError)
    }
)
_BY_STATUS: Mapping[int, type[NasError]] = MappingProxyType(
    {404: NotFoundError, 409: ConflictError, 503: StoreError}
)


_STUDIES_AT_ONCE = 500
_TRIALS_AT_ONCE = 1000


class Client:
    """A client of one service.

    Args:
        url: Address of the service, such as ``http://127.0.0.1:8000``; it may contain ``?token=...``.
        token: Access token of the service; None for the one in ``url``.
        timeout: Longest time in seconds to wait for an answer.

    Raises:
        InputError: If ``url`` is not an HTTP address.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 30.0) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise InputError(f"{url!r} is not an address: {error}") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise InputError(f"{url!r} is not an address such as http://127.0.0.1:8000")
        token = token or parsed.params.get("token")
        self.url = str(parsed.copy_with(query=None, fragment=None)).rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # Without trust_env=False, requests to this machine's own service would go through a configured proxy.
        self._http = httpx.Client(
            base_url=self.url + "/api/v1", headers=headers, timeout=timeout, trust_env=False, follow_redirects=False
        )

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
        if isinstance(definition, str):
            kind, content = "application/yaml", definition.encode()
            return self._ask(LaunchBody, "POST", "/studies", content=content, headers={"Content-Type": kind})
        data = definition.to_dict() if isinstance(definition, StudyDefinition) else dict(definition)
        return self._ask(LaunchBody, "POST", "/studies", json=data)

    def studies(self) -> StudyList:
        """Return all studies, newest first."""
        found: list[StudyBody] = []
        after: str | None = None
        while True:
            page = self._ask(StudyList, "GET", "/studies", params=_given(limit=_STUDIES_AT_ONCE, after=after))
            found += page.studies
            after = page.after
            if after is None:
                return StudyList(studies=tuple(found), count=len(found))

    def study(self, study: str) -> StudyDetail:
        """Return one study, by its id, by the first 6 or more characters of its id, or by its name."""
        return self._ask(StudyDetail, "GET", _path("studies", study))

    def trials(self, study: str, *, evaluation: EvaluationKind | None = None) -> TrialList:
        """Return the trials of a study with their scores: of one evaluation kind, or of each trial's best trained
        weights.
        """
        found: list[TrialBody] = []
        after: str | None = None
        while True:
            page = self.trial_page(study, limit=_TRIALS_AT_ONCE, after=after, evaluation=evaluation)
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
        params = _given(limit=limit, after=after, sort=sort, descending=descending or None, evaluation=evaluation)
        return self._ask(TrialList, "GET", _path("studies", study, "trials"), params=params)

    def trial(self, study: str, number: int) -> TrialDetail:
        """Return one trial with the splits of its layers, scores and history."""
        return self._ask(TrialDetail, "GET", _path("studies", study, "trials", number))

    def pareto(
        self,
        study: str,
        *,
        x: str = "macs",
        y: str = "top1",
        evaluation: EvaluationKind | None = None,
    ) -> ParetoBody:
        """Return the scored networks in the plane of two metrics, with marks on the front.

        All scores are of one evaluation kind: ``evaluation``, or the best trained kind with scores.
        """
        params = {"x": x, "y": y, **_given(evaluation=evaluation)}
        return self._ask(ParetoBody, "GET", _path("studies", study, "pareto"), params=params)

    def pause(self, study: str) -> ControlBody:
        """Request the search of a study to pause; :meth:`resume` continues it."""
        return self._ask(ControlBody, "POST", _path("studies", study, "pause"))

    def stop(self, study: str) -> ControlBody:
        """Request the search of a study to end for good."""
        return self._ask(ControlBody, "POST", _path("studies", study, "stop"))

    def resume(self, study: str, *, retry_failed: bool = False) -> LaunchBody:
        """Resume a paused or failed study.

        Args:
            study: Id or name of the study.
            retry_failed: Whether its failed trials run again; this resumes a finished study, too.
        """
        path = _path("studies", study, "resume") + ("?retry_failed=true" if retry_failed else "")
        return self._ask(LaunchBody, "POST", path)

    def extend(self, study: str, trials: int) -> LaunchBody:
        """Add search trials to the plan of a finished, paused or failed study, and resume it."""
        return self._ask(LaunchBody, "POST", _path("studies", study, "extend"), params={"trials": trials})

    def export(self, study: str, number: int, candidate: str | int | None = None) -> JobBody:
        """Queue the export of a trial's network; see :meth:`wait` and :meth:`download`.

        Args:
            study: Id or name of the study.
            number: Number of the trial.
            candidate: Index of the network, or the beginning of its architecture's id; needed if the trial has several.
        """
        path = _path("studies", study, "trials", number, "exports")
        return self._ask(JobBody, "POST", path, params=_given(candidate=candidate))

    def job(self, job_id: str) -> JobBody:
        """Return the present state of a job."""
        return self._ask(JobBody, "GET", _path("jobs", job_id))

    def wait(self, job_id: str, *, seconds: float = 600.0, pause: float = 0.5) -> JobBody:
        """Wait until a job is finished, and return it.

        Raises:
            JobError: If it failed, was cancelled, or has not ended after ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while True:
            job = self.job(job_id)
            if job.state is JobState.FINISHED:
                return job
            if job.state.ended:
                raise JobError(f"job {job.id} is {job.state.value}: {job.error or 'no reason was given'}")
            if time.monotonic() >= deadline:
                state = "interrupted, because its worker died," if job.expired else job.state.value
                raise JobError(f"job {job.id} is still {state} after {seconds:g} s; is a worker running?")
            time.sleep(pause)

    def download(self, job: JobBody, into: Path) -> Path:
        """Save the zip file of a finished export as ``into``: whole and with the right checksum, or not at all.

        Raises:
            ConflictError: If the job has no file.
            NasError: If the received file differs from the one that the service recorded.
        """
        digest = hashlib.sha256()
        try:
            with self._http.stream("GET", _path("jobs", job.id, "download")) as response, whole_file(into) as fresh:
                if response.status_code != 200:
                    response.read()
                    raise _error_from(response)
                with fresh.open("wb") as file:
                    for chunk in response.iter_bytes():
                        digest.update(chunk)
                        file.write(chunk)
                if job.sha256 is not None and digest.hexdigest() != job.sha256:
                    raise NasError(f"the download of job {job.id} is damaged: its SHA-256 is not {job.sha256}")
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        return into

    def _ask(self, body: type[Body], method: str, path: str, **request: Any) -> Body:
        try:
            response = self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if not response.is_success:
            raise _error_from(response)
        try:
            return body.model_validate_json(response.content)
        except ValidationError as error:
            fault = first_in_words(error)
            raise NasError(f"{self.url} gave an answer that this version cannot read ({fault})") from error

    def _unreachable(self, error: httpx.HTTPError) -> NasError:
        return NasError(f"{self.url} cannot be reached: {error or type(error).__name__}; is `nas serve` running?")


def _given(**params: object) -> dict[str, str]:
    return {name: str(value) for name, value in params.items() if value is not None}


def _path(*parts: str | int) -> str:
    for part in parts:
        if part in ("", ".", ".."):
            raise InputError(f"{part!r} is neither an id nor a name")
    return "".join(f"/{quote(str(part), safe='')}" for part in parts)


def _error_from(response: httpx.Response) -> NasError:
    try:
        body = ErrorBody.model_validate_json(response.content)
    except ValidationError:
        return NasError(f"{response.url} answered {response.status_code} without a reason")
    fallback = InputError if response.status_code < 500 else NasError
    kind = _ERRORS.get(body.error) or _BY_STATUS.get(response.status_code, fallback)
    return kind(body.detail)
