"""Routes of trainings: launch, list, show, follow, stop, resume, delete, download."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse
from starlette.responses import Response

from nas.definition.requested_training import schema
from nas.definition.text import dump_yaml
from nas.errors import ConflictError
from nas.housekeeping.trainings import delete_training
from nas.plots.history import history_figure, history_info
from nas.training.files import stored_checkpoints
from nas.trainings import TrainingQuery, TrainingState
from nas.wire.builders import epoch_from
from nas.wire.trainings import (
    CheckpointList,
    DeletedTraining,
    TrainingDetail,
    TrainingHistoryBody,
    TrainingList,
    checkpoint_from,
    training_detail_from,
    training_from,
)
from service.answers import LONGEST_REF, Until, kept
from service.api_route import ApiRoute
from service.deps import ArtifactsDep, DefinitionText, LaunchCheckDep, StoreDep, parse_requested_training
from service.drawing import FigureResponse, drawn, figure_response
from service.routes.studies import RequestKey
from service.zips import zip_response, zip_responses

router = APIRouter(tags=["trainings"], prefix="/trainings", route_class=ApiRoute)

MOST_TRAININGS = 500
TrainingRef = Annotated[str, Path(max_length=LONGEST_REF, description="id, or its first 6 or more characters")]
States = Annotated[list[TrainingState] | None, Query(description="states of the trainings; all if absent")]


def _content() -> dict[str, Any]:
    """Return the types of a launch's body with an example of each, for the description of the API."""
    settings = {"epochs": 20}
    example = {"study": "digits-quickstart", "trial": 3, "recipe": "small_images", "settings": settings, "seed": 1}
    text = {"type": "string", "description": "the same as YAML"}
    return {
        "application/json": {"schema": schema(), "example": example},
        "application/yaml": {"schema": text, "example": dump_yaml(example)},
    }


@router.post("", status_code=201, openapi_extra={"requestBody": {"required": True, "content": _content()}})
def launch(text: DefinitionText, store: StoreDep, check: LaunchCheckDep, key: RequestKey = None) -> TrainingDetail:
    """Check a request, its data and its network, and queue the training; on a fault, do nothing.

    The network comes from a trial of a study, from an architecture, or from a package under a data root. When the
    training ends, its package can be downloaded, and its score goes back to the trial's network as an evaluation of
    kind ``retrained``, with recipe and seed.
    """
    wanted = parse_requested_training(*text)
    check.check_training(wanted, store.training_data(wanted))
    return training_detail_from(store.submit_training(wanted, key=key))


@router.get("")
@kept(Until.TRAININGS)
def list_trainings(
    store: StoreDep,
    limit: Annotated[int, Query(ge=1, le=MOST_TRAININGS, description="largest number of trainings")] = 100,
    after: Annotated[str | None, Query(max_length=200, description="mark that the previous page ended with")] = None,
    state: States = None,
    study: Annotated[
        str | None, Query(max_length=LONGEST_REF, description="study of the networks; all if absent")
    ] = None,
    trial: Annotated[int | None, Query(ge=0, lt=2**31, description="trial of that study; all if absent")] = None,
    architecture: Annotated[
        str | None, Query(min_length=6, max_length=64, description="id of an architecture, or its beginning")
    ] = None,
    recipe: Annotated[str | None, Query(max_length=200, description="recipe; all if absent")] = None,
) -> TrainingList:
    """List trainings in pages, newest first."""
    asked = TrainingQuery(
        limit,
        after,
        tuple(state or ()),
        None if study is None else store.study(study).id,
        trial,
        architecture,
        recipe,
    )
    page, mark = store.training_page(asked)
    bodies = tuple(map(training_from, page))
    return TrainingList(trainings=bodies, count=len(bodies), after=mark)


@router.get("/{training_ref}")
@kept(Until.TRAINING)
def show(training_ref: TrainingRef, store: StoreDep) -> TrainingDetail:
    """Show a training with its settings, and its result when it has finished."""
    return training_detail_from(store.training(training_ref))


@router.get("/{training_ref}/history")
@kept(Until.TRAINING)
def show_history(training_ref: TrainingRef, store: StoreDep) -> TrainingHistoryBody:
    """Show the reports of a training after its epochs."""
    training = store.training(training_ref)
    epochs = tuple(map(epoch_from, store.training_history(training.id)))
    return TrainingHistoryBody(id=training.id, epochs=epochs, count=len(epochs))


@router.get("/{training_ref}/checkpoints")
def list_checkpoints(training_ref: TrainingRef, store: StoreDep, artifacts: ArtifactsDep) -> CheckpointList:
    """List the checkpoints from which a training can continue, and that of its best epoch."""
    found = tuple(map(checkpoint_from, stored_checkpoints(artifacts, store.training(training_ref))))
    return CheckpointList(checkpoints=found, count=len(found))


@router.get("/{training_ref}/figures/history", response_class=FigureResponse, responses=drawn())
@kept(Until.TRAINING)
def training_history_figure(training_ref: TrainingRef, store: StoreDep) -> FigureResponse:
    """Draw the losses and the validation top-1 of a training over its epochs."""
    training = store.training(training_ref)
    return figure_response(history_figure(history_info(store.training_history(training.id))))


@router.post("/{training_ref}/stop", status_code=202)
def stop(training_ref: TrainingRef, store: StoreDep) -> TrainingDetail:
    """Request a training to write a checkpoint and end; it can be resumed."""
    return training_detail_from(store.stop_training(training_ref))


@router.post("/{training_ref}/resume", status_code=202)
def resume(training_ref: TrainingRef, store: StoreDep) -> TrainingDetail:
    """Queue a stopped or failed training again; it continues from its newest checkpoint."""
    return training_detail_from(store.resume_training(training_ref))


@router.delete("/{training_ref}")
def delete(training_ref: TrainingRef, store: StoreDep, artifacts: ArtifactsDep) -> DeletedTraining:
    """Delete a training that has ended, with its checkpoints and packages; its score stays with the trial's network."""
    found, files, size = delete_training(store, artifacts, training_ref)
    return DeletedTraining(id=found, files=files, size=size)


@router.get("/{training_ref}/package", response_class=FileResponse, responses=zip_responses())
def download(
    request: Request,
    training_ref: TrainingRef,
    store: StoreDep,
    artifacts: ArtifactsDep,
    last: Annotated[bool, Query(description="the last weights, where those of the package are averaged")] = False,
) -> Response:
    """Send the package of a finished training as a zip, or a range of it; its checksum is verified before that.

    The ETag is the SHA-256 of the file, as in ``Repr-Digest``.
    """
    training = store.training(training_ref)
    result = training.result
    if result is None:
        raise ConflictError(f"training {training.id[:8]} is {training.state.value}: it has no package to download yet")
    artifact = result.last if last else result.package
    if artifact is None:
        raise ConflictError(f"training {training.id[:8]}: its recipe averages no weights, so there is one package only")
    ending = "-last" if last else ""
    return zip_response(request, artifacts, artifact, f"{training.package_name}{ending}.zip")
