"""Dependencies of the routes: the store, the artifacts, a body of limited size. The lifespan creates them once."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, HTTPException, Path, Query, Request

from nas.artifacts import Artifacts
from nas.definition.requested_training import RequestedTraining, parse_training
from nas.definition.study import StudyDefinition, read_study
from nas.definition.text import parse_yaml, read_value
from nas.errors import DefinitionError
from nas.store import Store
from nas.tokens import Scope
from partialnet.json_text import parse_json
from service.answers import LONGEST_REF
from service.event_hub import EventHub
from service.identity import Identity
from service.launch_check import LaunchCheck
from service.settings import ServiceSettings

DEFINITION_BYTES = 64 * 1024
YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})
JSON_TYPES = frozenset({"application/json"})


def get_store(request: Request) -> Store:
    """Return the store that the lifespan opened, acting for the sender of the request."""
    store: Store = request.app.state.store
    identity: Identity | None = getattr(request.state, "identity", None)
    if identity is None:
        return store
    service: ServiceSettings = request.app.state.service
    admin = identity.scope.allows(Scope.ADMIN)
    return store.acting(identity.name, searches=service.searches, admin=admin)


def get_artifacts(request: Request) -> Artifacts:
    """Return the storage of files."""
    artifacts: Artifacts = request.app.state.artifacts
    return artifacts


def get_hub(request: Request) -> EventHub:
    """Return what tells listeners of events."""
    hub: EventHub = request.app.state.hub
    return hub


def get_launch_check(request: Request) -> LaunchCheck:
    """Return the check of definitions before a launch."""
    check: LaunchCheck = request.app.state.launch_check
    return check


HubDep = Annotated[EventHub, Depends(get_hub)]
LaunchCheckDep = Annotated[LaunchCheck, Depends(get_launch_check)]
StoreDep = Annotated[Store, Depends(get_store)]
ArtifactsDep = Annotated[Artifacts, Depends(get_artifacts)]
StudyRef = Annotated[str, Path(max_length=LONGEST_REF, description="id, the beginning of one (6 or more), or name")]
CandidateRef = Annotated[
    str | None,
    Query(max_length=64, description="network of the trial: its index, or the beginning of its id"),
]
TrialNumber = Annotated[int, Path(ge=0, lt=2**31, description="within the study")]


async def definition_text(request: Request) -> tuple[str, bool]:
    """Read the body of a launch; return it, and whether it is YAML."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in YAML_TYPES | JSON_TYPES:
        raise HTTPException(415, f"send application/json or application/yaml, but got {media_type or 'no type'!r}")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > DEFINITION_BYTES:
            raise HTTPException(413, f"a definition has at most {DEFINITION_BYTES} bytes")
    try:
        return body.decode(), media_type in YAML_TYPES
    except UnicodeDecodeError as error:
        raise DefinitionError(f"definition: not UTF-8 (byte {error.start})") from None


DefinitionText = Annotated[tuple[str, bool], Depends(definition_text)]


def parse_definition(text: str, is_yaml: bool) -> StudyDefinition:
    """Check a definition given as text.

    Raises:
        DefinitionError: If there are faults, with one line for each.
    """
    if is_yaml:
        return read_study(lambda: parse_yaml(text, aliases=False))
    return read_study(lambda: parse_json(text), language="JSON")


def parse_requested_training(text: str, is_yaml: bool) -> RequestedTraining:
    """Check the request of a training given as text.

    Raises:
        DefinitionError: If there are faults, with one line for each.
    """
    if is_yaml:
        return parse_training(read_value(lambda: parse_yaml(text, aliases=False), "training"))
    return parse_training(read_value(lambda: parse_json(text), "training", "JSON"))
