"""The pages of architectures and trainings; scripts add the form, the figure and refresh the ``data-live`` parts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from nas.metrics import METRICS
from nas.store import Store
from nas.tokens import Scope
from nas.training.files import stored_checkpoints
from nas.trainings import TrainingAction, TrainingQuery, allows
from nas.wire.architectures import export_from
from nas.wire.builders import epoch_from
from nas.wire.trainings import training_detail_from, training_from
from partialnet.data.catalog import DATASETS
from partialnet.train.named_recipes import recipe_names
from service.answers import LONGEST_REF
from service.deps import ArtifactsDep, StoreDep
from service.pages.rendering import may_change, render
from service.routes.catalog import shown_architecture
from service.routes.trainings import TrainingRef

router = APIRouter(include_in_schema=False, default_response_class=Response)

_PAGE = 100
_EPOCHS = 20
"""Newest epochs in the table of a training."""

After = Annotated[str | None, Query(max_length=200)]


@router.get("/architectures")
def architectures_page(request: Request, store: StoreDep, after: After = None) -> Response:
    """The exported architectures."""
    rows, mark = store.exports(limit=_PAGE, after=after)
    return render(request, "architectures.html", {"exports": tuple(map(export_from, rows)), "after": mark})


@router.get("/architectures/{architecture_ref}")
def architecture_page(
    request: Request,
    store: StoreDep,
    architecture_ref: Annotated[str, Path(max_length=64)],
    study: Annotated[str | None, Query(max_length=LONGEST_REF)] = None,
    trial: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
    position: Annotated[int, Query(ge=0, lt=2**31)] = 0,
) -> Response:
    """One architecture: provenance, files, how to load it, where it was measured, trainings, a form to train it."""
    found = shown_architecture(store, architecture_ref)
    context = {
        "architecture": found,
        "origin": _origin(store, found.id, study, trial, position),
        "datasets": list(DATASETS),
        "recipes": recipe_names(),
        "metrics": METRICS,
        "may_train": request.state.identity.scope.allows(Scope.WRITE),
    }
    return render(request, "architecture.html", context)


def _origin(
    store: Store, architecture_id: str, study: str | None, trial: int | None, position: int
) -> dict[str, Any] | None:
    """Return the network of a trial that the form trains; None to leave the choice of the trial to the service."""
    if study is None or trial is None:
        return None
    found = store.study(study)
    candidates = store.trial(found.id, trial).candidates
    if position >= len(candidates) or candidates[position].architecture.id != architecture_id:
        return None
    has_weights = candidates[position].weights is not None
    return {"study": found.id, "name": found.name, "trial": trial, "candidate": position, "has_weights": has_weights}


@router.get("/trainings")
def trainings_page(request: Request, store: StoreDep, after: After = None) -> Response:
    """All trainings."""
    page, mark = store.training_page(TrainingQuery(_PAGE, after))
    return render(request, "trainings.html", {"trainings": tuple(map(training_from, page)), "after": mark})


@router.get("/trainings/{training_ref}")
def training_page(
    request: Request, training_ref: TrainingRef, store: StoreDep, artifacts: ArtifactsDep
) -> Response:
    """One training: state, curves, checkpoints, result."""
    training = store.training(training_ref)
    mine = may_change(training.created_by, request.state.identity)
    epochs = tuple(map(epoch_from, store.training_history(training.id)))
    context = {
        "training": training_detail_from(training),
        "epochs": epochs[-_EPOCHS:][::-1],
        "checkpoints": stored_checkpoints(artifacts, training),
        "stoppable": mine and allows(training.state, TrainingAction.STOP) and not training.stopping,
        "resumable": mine and allows(training.state, TrainingAction.RESUME),
        "deletable": mine and allows(training.state, TrainingAction.DELETE),
        "ended": training.state.ended,
        "metrics": METRICS,
    }
    return render(request, "training.html", context)
