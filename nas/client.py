"""A client of the service's API, for scripts and notebooks; answers are those of :mod:`nas.wire.bodies`. No torch.

Errors of the service are raised as the error that they name (``NotFoundError``, ``ConflictError``, ...), so that code
over the client and code over the store handle failures alike.
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
from nas.wire.bodies import ErrorBody, JobBody, LaunchBody, ParetoBody, StudyDetail, StudyList, TrialDetail, TrialList
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


class Client:
    """Speaks to one service.

    Args:
        url: Where it is, for example ``http://127.0.0.1:8000``; the one with ``?token=...`` in it will do as well.
        token: Its access token; that of ``url`` if absent.
        timeout: Seconds that an answer may take.

    Raises:
        InputError: If ``url`` is no HTTP address.
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
        # Without trust_env=False a configured proxy would be asked for this machine's own service.
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
            DefinitionError: One line for each fault.
        """
        if isinstance(definition, str):
            kind, content = "application/yaml", definition.encode()
            return self._ask(LaunchBody, "POST", "/studies", content=content, headers={"Content-Type": kind})
        data = definition.to_dict() if isinstance(definition, StudyDefinition) else dict(definition)
        return self._ask(LaunchBody, "POST", "/studies", json=data)

    def studies(self) -> StudyList:
        """Return all studies, newest first."""
        return self._ask(StudyList, "GET", "/studies")

    def study(self, study: str) -> StudyDetail:
        """Return one study, by id, by the first 6 or more characters of it, or by name."""
        return self._ask(StudyDetail, "GET", _path("studies", study))

    def trials(self, study: str, *, evaluation: EvaluationKind | None = None) -> TrialList:
        """Return the trials of a study with their scores: of one kind, or each of the best trained weights it has."""
        return self._ask(TrialList, "GET", _path("studies", study, "trials"), params=_given(evaluation=evaluation))

    def trial(self, study: str, number: int) -> TrialDetail:
        """Return one trial with per-layer splits, scores and history."""
        return self._ask(TrialDetail, "GET", _path("studies", study, "trials", number))

    def pareto(
        self,
        study: str,
        *,
        x: str = "macs",
        y: str = "top1",
        evaluation: EvaluationKind | None = None,
    ) -> ParetoBody:
        """Return the scored networks in the plane of two metrics, and which of them are on the front.

        All are of one kind of evaluation: ``evaluation``, or the best trained one that there is.
        """
        params = {"x": x, "y": y, **_given(evaluation=evaluation)}
        return self._ask(ParetoBody, "GET", _path("studies", study, "pareto"), params=params)

    def stop(self, study: str) -> JobBody:
        """Ask the search of a study to stop."""
        return self._ask(JobBody, "POST", _path("studies", study, "stop"))

    def resume(self, study: str) -> LaunchBody:
        """Let a stopped or failed study go on."""
        return self._ask(LaunchBody, "POST", _path("studies", study, "resume"))

    def export(self, study: str, number: int, candidate: str | int | None = None) -> JobBody:
        """Queue the export of a trial's network; see :meth:`wait` and :meth:`download`.

        Args:
            study: Its id or name.
            number: Of the trial.
            candidate: Which network, if the trial has several: its place, or the beginning of its architecture's id.
        """
        path = _path("studies", study, "trials", number, "exports")
        return self._ask(JobBody, "POST", path, params=_given(candidate=candidate))

    def job(self, job_id: str) -> JobBody:
        """Return where a job stands."""
        return self._ask(JobBody, "GET", _path("jobs", job_id))

    def wait(self, job_id: str, *, seconds: float = 600.0, pause: float = 0.5) -> JobBody:
        """Return a job once it is finished.

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
        """Save the zip of a finished export as ``into``; it appears whole, with the right checksum, or not at all.

        Raises:
            ConflictError: If the job has no file.
            NasError: If what arrived is not what the service recorded.
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
            raise NasError(f"{self.url} did not answer as a service of this version would ({fault})") from error

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
        return NasError(f"{response.url} answered {response.status_code} without saying why")
    fallback = InputError if response.status_code < 500 else NasError
    kind = _ERRORS.get(body.error) or _BY_STATUS.get(response.status_code, fallback)
    return kind(body.detail)
