"""Routes for definitions that are being written: check one, and change values in its text."""

from __future__ import annotations

from typing import Annotated, Any

import yaml
from fastapi import APIRouter, Query

from nas.definition.checking import check_text
from nas.definition.editing import edit_yaml
from nas.definition.example import EXAMPLE
from nas.definition.faults import read_fault
from nas.definition.study import StudyDefinition
from nas.definition.text import explain_yaml
from nas.errors import DefinitionError
from nas.findings.pace import estimate
from nas.store import Store
from nas.wire.checks import CheckBody, EditedBody, EditRequest, EstimateBody, estimate_from, faults_from
from service.api_route import ApiRoute
from service.deps import DefinitionText, LaunchCheckDep, StoreDep
from service.examples import definition_content

router = APIRouter(tags=["definitions"], route_class=ApiRoute)


def _edit_content() -> dict[str, Any]:
    """Return the description of a body with changes, with an example."""
    example = {"text": EXAMPLE, "changes": {"training.epochs": 12, "sweep.seed": None}}
    return {"application/json": {"example": example}}


@router.post(
    "/definitions/check",
    openapi_extra={"requestBody": {"required": True, "content": definition_content()}},
)
def check(
    text: DefinitionText,
    store: StoreDep,
    launch_check: LaunchCheckDep,
    data: Annotated[bool, Query(description="whether data and targets are checked, which takes seconds")] = False,
) -> CheckBody:
    """Check a definition without launching it: all faults with keys and lines, its cost, and the reachable targets."""
    checked = check_text(text[0])  # JSON is YAML as well
    if checked.definition is None:
        return CheckBody(valid=False, faults=faults_from(checked, checked.faults), written=dict(checked.written))
    found = launch_check.look(checked.definition) if data else None
    faults = () if found is None else tuple(map(read_fault, found.faults))
    return CheckBody(
        valid=not faults,
        faults=faults_from(checked, faults),
        written=dict(checked.written),
        complete=checked.definition.to_dict(),
        data_checked=found is not None,
        notes=() if found is None else found.notes,
        estimate=_estimate(store, checked.definition),
    )


@router.post(
    "/definitions/edit",
    openapi_extra={"requestBody": {"content": _edit_content()}},
)
def edit(body: EditRequest) -> EditedBody:
    """Change values in the text of a definition; comments, order and all other values stay as they were written."""
    try:
        return EditedBody(text=edit_yaml(body.text, body.changes))
    except yaml.YAMLError as error:
        raise DefinitionError(f"definition: not valid YAML: {explain_yaml(error)}") from None
    except RecursionError:
        raise DefinitionError("definition: nested too deeply") from None


def _estimate(store: Store, definition: StudyDefinition) -> EstimateBody:
    known, ended = store.comparable(definition) or (None, [])
    return estimate_from(estimate(definition, known, ended))
