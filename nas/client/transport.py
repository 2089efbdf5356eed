"""What both clients share besides their requests: the address, retries, and errors of the service as our own."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from nas.client.calls import Call
from nas.definition.words import first_in_words
from nas.errors import (
    ConflictError,
    DefinitionError,
    ForbiddenError,
    InputError,
    JobError,
    LimitError,
    NasError,
    NotFoundError,
    StoreError,
)
from nas.jobs import JobState
from nas.wire.bodies import ErrorBody, JobBody

Body = TypeVar("Body", bound=BaseModel)

Progress = Callable[[int, int], None]
"""Function that receives the bytes of a download so far, and those of the whole."""

_KINDS = (ConflictError, DefinitionError, ForbiddenError, InputError, JobError, LimitError, NotFoundError, StoreError)
_ERRORS: Mapping[str, type[NasError]] = MappingProxyType({kind.__name__: kind for kind in _KINDS})
_BY_STATUS: Mapping[int, type[NasError]] = MappingProxyType(
    {403: ForbiddenError, 404: NotFoundError, 409: ConflictError, 429: LimitError, 503: StoreError}
)
_PASSING = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Retries:
    """How a client repeats requests that failed for a reason that may pass.

    Repeated are requests that read, creations (they carry a key, so that they create once), and requests that were
    never processed: the service refused them as too many, or no connection came about.

    Args:
        attempts: Largest number of attempts; 1 for no repetition.
        first_pause: Mean pause in seconds before the second attempt; it doubles with each further one.
        longest_pause: Longest pause in seconds, also where the service asks for a longer one.
    """

    attempts: int = 4
    first_pause: float = 0.25
    longest_pause: float = 10.0

    def after(self, call: Call[Any], attempt: int, outcome: httpx.Response | httpx.HTTPError) -> float | None:
        """Return the pause in seconds before the next attempt; None if there is none.

        Args:
            call: Request that failed.
            attempt: Number of the failed attempt, from 1.
            outcome: Answer or error of the attempt.
        """
        if attempt >= self.attempts or not self._may_repeat(call, outcome):
            return None
        told = outcome.headers.get("retry-after", "") if isinstance(outcome, httpx.Response) else ""
        if told.isdecimal():
            return min(float(told), self.longest_pause)
        # At random, so that many clients do not come back together.
        mean = self.first_pause * 2.0 ** (attempt - 1)
        return min(self.longest_pause, mean * random.uniform(0.5, 1.5))

    def _may_repeat(self, call: Call[Any], outcome: httpx.Response | httpx.HTTPError) -> bool:
        if isinstance(outcome, httpx.Response):
            return outcome.status_code in _PASSING and (call.repeatable or outcome.status_code == 429)
        unsent = isinstance(outcome, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
        return unsent or (call.repeatable and isinstance(outcome, httpx.TransportError))


def base_of(url: str) -> str:
    """Return the address of a service without a slash at its end.

    Raises:
        InputError: If it is not an address, or one that signs in a browser.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InputError(f"{url!r} is not an address: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InputError(f"{url!r} is not an address such as http://127.0.0.1:8000")
    if "link" in parsed.params:
        raise InputError("the address holds a one-time link for a browser; a client needs a token: nas token create")
    return str(parsed.copy_with(query=None, fragment=None)).rstrip("/")


def options_of(base: str, token: str | None, timeout: float) -> dict[str, Any]:
    """Return the options of httpx's clients."""
    # Without trust_env=False, requests to this machine's own service would go through a configured proxy.
    return {
        "base_url": f"{base}/api/v1",
        "headers": {"Authorization": f"Bearer {token}"} if token else {},
        "timeout": timeout,
        "trust_env": False,
        "follow_redirects": False,
    }


def request_of(call: Call[Any]) -> dict[str, Any]:
    """Return the arguments of httpx's ``request``."""
    return {
        "method": call.method,
        "url": call.path,
        "params": dict(call.params),
        "content": call.content,
        "headers": dict(call.headers),
    }


def read_answer(base: str, body: type[Body], response: httpx.Response) -> Body:
    """Return the answer of the service.

    Raises:
        NasError: If it is an error, as the class that it names, or cannot be read.
    """
    if not response.is_success:
        raise error_from(response)
    try:
        return body.model_validate_json(response.content)
    except ValidationError as error:
        fault = first_in_words(error)
        raise NasError(f"{base} gave an answer that this version cannot read ({fault})") from error


def error_from(response: httpx.Response) -> NasError:
    """Return the error of an answer as the class that it names."""
    try:
        body = ErrorBody.model_validate_json(response.content)
    except ValidationError:
        return NasError(f"{response.url} answered {response.status_code} without a reason")
    fallback = InputError if response.status_code < 500 else NasError
    kind = _ERRORS.get(body.error) or _BY_STATUS.get(response.status_code, fallback)
    return kind(body.detail)


def unreachable(base: str, error: httpx.HTTPError) -> NasError:
    """Return the error of a service that does not answer."""
    return NasError(f"{base} cannot be reached: {error or type(error).__name__}; is `nas serve` running?")


def finished(job: JobBody, seconds: float, left: float) -> bool:
    """Return whether a job is finished.

    Args:
        job: Present state of the job.
        seconds: Time in seconds that the caller wanted to wait.
        left: Remaining time in seconds.

    Raises:
        JobError: If it ended otherwise, or no time is left.
    """
    if job.state is JobState.FINISHED:
        return True
    if job.state.ended:
        raise JobError(f"job {job.id} is {job.state.value}: {job.error or 'no reason was given'}")
    if left <= 0:
        state = "interrupted, because its worker died," if job.expired else job.state.value
        raise JobError(f"job {job.id} is still {state} after {seconds:g} s; is a worker running?")
    return False
