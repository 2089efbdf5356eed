"""The JSON of an archive of a study, checked while it is read. Loads neither torch nor ray.

An archive comes from anybody: what it says is checked as strictly as what a user types.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Annotated, Any, NoReturn, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from nas.candidate import Split
from nas.errors import InputError
from nas.metrics import Evaluation, Measurement
from nas.study import StudyState
from nas.trial import EpochRecord, TrialKind, TrialState
from partialnet.json_text import unique_keys

FORMAT = 1
STUDY, TRIALS = "study.json", "trials.jsonl"
Scalar = bool | int | float | str
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Entry = TypeVar("Entry", bound=BaseModel)


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WeightsEntry(_Entry):
    """The weights of a network within the archive."""

    sha256: Hash
    size: Annotated[int, Field(ge=0)]


class CandidateEntry(_Entry):
    """A network that a trial settled on; without ``weights`` if they do not travel."""

    architecture: dict[str, Any]
    splits: tuple[Split, ...]
    evaluations: tuple[Evaluation, ...]
    measurements: tuple[Measurement, ...]
    within_budget: bool
    note: str | None
    target: float | None
    measured_within_budget: bool | None = None
    trainings: tuple[Evaluation, ...] = ()
    pinned: bool = False
    weights: WeightsEntry | None = None


class RungEntry(_Entry):
    """A decision of early stopping."""

    epoch: Count
    scores: tuple[float, ...]
    kept: bool


class FidelityEntry(_Entry):
    """Epochs of a trial that was stopped early."""

    epochs: Count
    budget: Count


class TrialEntry(_Entry):
    """A trial with its networks and its history."""

    number: Count
    kind: TrialKind
    state: TrialState
    parameters: dict[str, Scalar]
    seed: Seed
    reason: str | None
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    ended_at: AwareDatetime | None
    placement: dict[str, Any] | None
    fidelity: FidelityEntry | None
    rungs: tuple[RungEntry, ...]
    history: tuple[EpochRecord, ...]
    candidates: tuple[CandidateEntry, ...]


class StudyEntry(_Entry):
    """A study without its trials.

    Args:
        format: Version of the archive's form.
        made_by: Version of the program that wrote it.
        trials: Number of trials in the archive.
    """

    format: int
    made_by: str
    id: UUID
    name: str
    state: StudyState
    reason: str | None
    report: tuple[str, ...]
    definition: dict[str, Any]
    reference_point: dict[str, float]
    data: dict[str, Any] | None
    prior: tuple[dict[str, Any], ...] | None
    latency_table: dict[str, Any] | None
    comparison_plan: dict[str, Any] | None = None
    tags: Annotated[tuple[Annotated[str, StringConstraints(max_length=64)], ...], Field(max_length=100)] = ()
    note: Annotated[str, StringConstraints(max_length=20_000)] = ""
    archived: bool = False
    extended: Count
    created_by: Annotated[str, StringConstraints(max_length=80)] | None
    created_at: AwareDatetime
    trials: Count


def weights_name(number: int, position: int) -> str:
    """Return the name of a network's weights within an archive."""
    return f"weights/{number}-{position}.safetensors"


def read_entry(kind: type[Entry], text: bytes, where: str) -> Entry:
    """Read an entry.

    Args:
        kind: Type of the entry.
        text: Text of the entry as JSON.
        where: Place of the entry, for messages.

    Raises:
        InputError: If it is not JSON, has a number that is not finite, or is not of ``kind``; the message says where.
    """
    try:
        data = json.loads(
            text.decode(), object_pairs_hook=unique_keys, parse_constant=_refuse, parse_float=_finite
        )
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where}: {place}: {first['msg']} (got {first['input']!r:.80})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON ({error})") from None


def checked(build: Callable[[], Any], where: str) -> Any:
    """Return the result of ``build``, which makes a domain value from JSON.

    Raises:
        InputError: If the JSON does not fit; the message says where.
    """
    try:
        return build()
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{where}: {type(error).__name__}: {error}") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large")
    return value
