"""Routes of studies: launch, list, show, describe, clone, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query

from nas.definition.study import StudyDefinition
from nas.housekeeping.garbage import files_of
from nas.store import Store
from nas.store.study_lists import MOST_STUDIES, StudyOrder, StudyQuery
from nas.study import StudyState
from nas.wire.bodies import LaunchBody, StudyBody, StudyDetail, StudyList
from nas.wire.builders import job_from, study_detail_from, study_from
from nas.wire.requests import DeletedBody, DescriptionBody
from service.answers import Until, kept
from service.api_route import ApiRoute
from service.auth import others_may
from service.deps import ArtifactsDep, DefinitionText, LaunchCheckDep, StoreDep, StudyRef, parse_definition
from service.examples import definition_content
from service.launch_check import LaunchCheck

router = APIRouter(tags=["studies"], route_class=ApiRoute)

RequestKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="key of the request: sent again with an equal key and definition, it creates nothing",
    ),
]
NewName = Annotated[str | None, Query(max_length=64, description="name of the new study; by default the old one's")]


@router.post(
    "/studies",
    status_code=201,
    openapi_extra={"requestBody": {"required": True, "content": definition_content()}},
)
def launch(text: DefinitionText, store: StoreDep, check: LaunchCheckDep, key: RequestKey = None) -> LaunchBody:
    """Check a definition, its data and its targets, store the study and queue its search; on a fault, do nothing."""
    return _launched(store, check, parse_definition(*text), None, key)


@router.post("/studies/{study_ref}/clone", status_code=201)
@others_may
def clone(
    study_ref: StudyRef, store: StoreDep, check: LaunchCheckDep, name: NewName = None, key: RequestKey = None
) -> LaunchBody:
    """Launch a new study from the definition of an old one."""
    old = store.study(study_ref)
    return _launched(store, check, old.definition, name or old.name, key)


def _launched(
    store: Store, check: LaunchCheck, definition: StudyDefinition, name: str | None, key: str | None
) -> LaunchBody:
    # Where nothing was checked, the worker completes the point before the first trial.
    point = check.reference_point(definition) or {"top1": 0.0}
    study, job = store.submit_study(definition, point, name=name, key=key)
    return LaunchBody(study=study_from(study, {}, None), job=job_from(job))


@router.get("/studies")
@kept(Until.LIST)
def list_studies(
    store: StoreDep,
    limit: Annotated[int, Query(ge=1, le=MOST_STUDIES, description="largest number of studies")] = 100,
    after: Annotated[str | None, Query(max_length=400, description="mark that the previous page ended with")] = None,
    sort: Annotated[StudyOrder, Query(description="order of the list")] = StudyOrder.CREATED,
    descending: Annotated[bool | None, Query(description="whether it descends; names ascend if absent")] = None,
    state: Annotated[list[StudyState] | None, Query(description="states of the studies; all if absent")] = None,
    tag: Annotated[list[str] | None, Query(description="tags that each study has")] = None,
    text: Annotated[str, Query(max_length=200, description="text in name, note or definition")] = "",
    archived: Annotated[bool | None, Query(description="only archived ones, or only others; both if absent")] = None,
) -> StudyList:
    """List studies in pages, newest first unless another order is requested."""
    down = sort is not StudyOrder.NAME if descending is None else descending
    asked = StudyQuery(limit, after, sort, down, tuple(state or ()), tuple(tag or ()), text, archived)
    page = store.study_list(asked)
    bodies = tuple(study_from(row.study, row.counts, row.best_top1) for row in page.rows)
    return StudyList(studies=bodies, count=len(bodies), after=page.after)


@router.get("/studies/{study_ref}")
@kept(Until.RESULT)
def show_study(study_ref: StudyRef, store: StoreDep) -> StudyDetail:
    """Show one study with its definition."""
    row = store.study_row(study_ref)
    return study_detail_from(row.study, row.counts, row.best_top1, store.growths(row.study.id))


@router.patch("/studies/{study_ref}")
def describe(study_ref: StudyRef, body: DescriptionBody, store: StoreDep) -> StudyBody:
    """Rename, tag or archive a study, or put a note on it."""
    study = store.study(study_ref)
    store.describe(study.id, name=body.name, tags=body.tags, note=body.note, archived=body.archived)
    row = store.study_row(study.id)
    return study_from(row.study, row.counts, row.best_top1)


@router.delete("/studies/{study_ref}")
def delete(
    study_ref: StudyRef,
    store: StoreDep,
    artifacts: ArtifactsDep,
    confirm: Annotated[str, Query(max_length=100, description="name of the study, to show that it is meant")],
    files: Annotated[bool, Query(description="whether its stored files are deleted, too")] = True,
) -> DeletedBody:
    """Delete a study whose jobs have ended, with its trials, and with its files."""
    study = store.study(study_ref)
    store.delete_study(study.id, confirm)
    found = files_of(artifacts, study.id) if files else []
    for file in found:
        artifacts.remove(file.uri)
    return DeletedBody(id=study.id, name=study.name, files=len(found), size=sum(file.size for file in found))
