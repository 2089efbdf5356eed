"""The requests of both clients: one function for each action, which returns what to send and what comes back."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from nas.definition.requested_training import RequestedTraining
from nas.definition.study import StudyDefinition
from nas.errors import InputError
from nas.metrics import EvaluationKind
from nas.tokens import Scope
from nas.wire.architectures import ArchitectureBody, ExportList
from nas.wire.bodies import (
    ControlBody,
    JobBody,
    LaunchBody,
    ParetoBody,
    StudyDetail,
    StudyList,
    TrialDetail,
    TrialList,
)
from nas.wire.checks import CheckBody
from nas.wire.events import EventList
from nas.wire.side_by_side import ImportancesBody, SideBySideBody
from nas.wire.tokens import NewTokenBody, TokenBody, TokenList, TokenRequest
from nas.wire.trainings import CheckpointList, DeletedTraining, TrainingDetail, TrainingHistoryBody, TrainingList

MOST_LINES = 1000
"""Largest number of lines of a page of trials."""
Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True)
class Call(Generic[Body]):
    """A request and the type of its answer.

    Args:
        body: Type of the answer.
        method: HTTP method of the request.
        path: Path below the API's prefix.
        params: Query parameters.
        content: Body of the request.
        headers: Headers of the request.
    """

    body: type[Body]
    method: str
    path: str
    params: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does what sending it once does: it reads, or carries a key for its one effect."""
        return self.method == "GET" or "Idempotency-Key" in self.headers


def launch(definition: StudyDefinition | Mapping[str, Any] | str) -> Call[LaunchBody]:
    """Launch a study; the key lets a repeated request create it once."""
    if isinstance(definition, str):
        kind, content = "application/yaml", definition.encode()
    else:
        data = definition.to_dict() if isinstance(definition, StudyDefinition) else dict(definition)
        kind, content = "application/json", json.dumps(data).encode()
    headers = {"Content-Type": kind, "Idempotency-Key": str(uuid.uuid4())}
    return Call(LaunchBody, "POST", "/studies", content=content, headers=headers)


def check(text: str, data: bool) -> Call[CheckBody]:
    """Check the text of a definition without launching it."""
    headers = {"Content-Type": "application/yaml"}
    return Call(CheckBody, "POST", "/definitions/check", given(data=data or None), text.encode(), headers)


def studies(after: str | None = None) -> Call[StudyList]:
    """List the studies, a page behind the mark ``after``."""
    return Call(StudyList, "GET", "/studies", given(limit=500, after=after))


def study(ref: str) -> Call[StudyDetail]:
    """Show a study."""
    return Call(StudyDetail, "GET", path_of("studies", ref))


def trial_page(
    ref: str, limit: int, after: str | None, sort: str | None, descending: bool, evaluation: EvaluationKind | None
) -> Call[TrialList]:
    """List a page of the trials of a study."""
    params = given(limit=limit, after=after, sort=sort, descending=descending or None, evaluation=evaluation)
    return Call(TrialList, "GET", path_of("studies", ref, "trials"), params)


def trial(ref: str, number: int) -> Call[TrialDetail]:
    """Show a trial."""
    return Call(TrialDetail, "GET", path_of("studies", ref, "trials", number))


def pareto(ref: str, **params: object) -> Call[ParetoBody]:
    """Show a front; ``params`` are those of the route, without those that are None."""
    return Call(ParetoBody, "GET", path_of("studies", ref, "pareto"), given(**params))


def importances(ref: str) -> Call[ImportancesBody]:
    """Show how important the sampled parameters of a study are."""
    return Call(ImportancesBody, "GET", path_of("studies", ref, "importances"))


def compare(trials: Sequence[str]) -> Call[SideBySideBody]:
    """Show trials side by side."""
    return Call(SideBySideBody, "GET", "/compare", {"trial": list(trials)})


def pause(ref: str) -> Call[ControlBody]:
    """Request a search to pause."""
    return Call(ControlBody, "POST", path_of("studies", ref, "pause"))


def stop(ref: str) -> Call[ControlBody]:
    """Request a search to end for good."""
    return Call(ControlBody, "POST", path_of("studies", ref, "stop"))


def resume(ref: str, retry_failed: bool) -> Call[LaunchBody]:
    """Resume a study."""
    return Call(LaunchBody, "POST", path_of("studies", ref, "resume"), given(retry_failed=retry_failed or None))


def extend(ref: str, number: int) -> Call[LaunchBody]:
    """Add search trials to a study."""
    return Call(LaunchBody, "POST", path_of("studies", ref, "extend"), given(trials=number))


def export(
    ref: str, number: int, candidate: str | int | None, onnx: bool, program: bool, int8_max_drop: float | None
) -> Call[JobBody]:
    """Queue the export of a network; one that is under way is not queued again."""
    int8 = None if int8_max_drop is None else True
    params = given(
        candidate=candidate, onnx=onnx or None, program=program or None, int8=int8, int8_max_drop=int8_max_drop
    )
    return Call(JobBody, "POST", path_of("studies", ref, "trials", number, "exports"), params)


def tokens(everything: bool) -> Call[TokenList]:
    """List the tokens."""
    return Call(TokenList, "GET", "/tokens", given(everything=everything or None))


def create_token(name: str, scope: Scope, days: float | None) -> Call[NewTokenBody]:
    """Create a token."""
    content = TokenRequest(name=name, scope=scope, days=days).model_dump_json(exclude_none=True).encode()
    return Call(NewTokenBody, "POST", "/tokens", content=content, headers={"Content-Type": "application/json"})


def revoke_token(ref: str) -> Call[TokenBody]:
    """Revoke a token."""
    return Call(TokenBody, "DELETE", path_of("tokens", ref))


def newest_event(ref: str) -> Call[EventList]:
    """Show the first event of a study, with the number of its newest one."""
    return Call(EventList, "GET", path_of("studies", ref, "events"), given(limit=1))


def job(job_id: str) -> Call[JobBody]:
    """Show a job."""
    return Call(JobBody, "GET", path_of("jobs", job_id))


def train(wanted: RequestedTraining | Mapping[str, Any] | str) -> Call[TrainingDetail]:
    """Launch a training; the key lets a repeated request create it once."""
    if isinstance(wanted, str):
        kind, content = "application/yaml", wanted.encode()
    else:
        data = wanted.model_dump(mode="json") if isinstance(wanted, RequestedTraining) else dict(wanted)
        kind, content = "application/json", json.dumps(data).encode()
    headers = {"Content-Type": kind, "Idempotency-Key": str(uuid.uuid4())}
    return Call(TrainingDetail, "POST", "/trainings", content=content, headers=headers)


def trainings(after: str | None, **params: object) -> Call[TrainingList]:
    """List a page of trainings; ``params`` are those of the route."""
    return Call(TrainingList, "GET", "/trainings", given(limit=500, after=after, **params))


def training(ref: str) -> Call[TrainingDetail]:
    """Show a training."""
    return Call(TrainingDetail, "GET", path_of("trainings", ref))


def training_history(ref: str) -> Call[TrainingHistoryBody]:
    """Show the epochs of a training."""
    return Call(TrainingHistoryBody, "GET", path_of("trainings", ref, "history"))


def training_checkpoints(ref: str) -> Call[CheckpointList]:
    """List the checkpoints of a training."""
    return Call(CheckpointList, "GET", path_of("trainings", ref, "checkpoints"))


def stop_training(ref: str) -> Call[TrainingDetail]:
    """Request a training to end, with a checkpoint."""
    return Call(TrainingDetail, "POST", path_of("trainings", ref, "stop"))


def resume_training(ref: str) -> Call[TrainingDetail]:
    """Queue a training again."""
    return Call(TrainingDetail, "POST", path_of("trainings", ref, "resume"))


def delete_training(ref: str) -> Call[DeletedTraining]:
    """Delete a training with its files."""
    return Call(DeletedTraining, "DELETE", path_of("trainings", ref))


def architectures(after: str | None, study: str | None) -> Call[ExportList]:
    """List a page of exported architectures."""
    return Call(ExportList, "GET", "/architectures", given(limit=500, after=after, study=study))


def architecture(ref: str) -> Call[ArchitectureBody]:
    """Show an architecture."""
    return Call(ArchitectureBody, "GET", path_of("architectures", ref))


def given(**params: object) -> dict[str, str]:
    """Return query parameters without those that are None; truth values as ``true``."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in params.items()
        if value is not None
    }


def path_of(*parts: str | int) -> str:
    """Return a path with each part escaped.

    Raises:
        InputError: If a part would lead to another path.
    """
    for part in parts:
        if part in ("", ".", ".."):
            raise InputError(f"{part!r} is neither an id nor a name")
    return "".join(f"/{quote(str(part), safe='')}" for part in parts)
