"""Figures as plotly JSON, drawn by the functions that also draw the pictures of the commands."""

from __future__ import annotations

from typing import Annotated, Any

import plotly.graph_objects as go
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from nas.findings.candidates import choose_candidate
from nas.metrics import EvaluationKind
from nas.plots.history import history_figure, history_info
from nas.plots.layers import layers_of
from nas.plots.pareto import pareto_figure, pareto_info
from nas.plots.ratios import map_numbers, ratios_info, ratios_map_figure
from nas.plots.splits import splits_figure, splits_info
from nas.plots.trajectories import trajectories_figure, trajectories_info
from nas.store import Store
from nas.trial import Trial, TrialKind
from service.answers import Until, kept, settle
from service.api_route import ApiRoute
from service.deps import CandidateRef, StoreDep, StudyRef, TrialNumber

router = APIRouter(tags=["figures"], prefix="/studies/{study_ref}", route_class=ApiRoute)

_MOST_MARKS = 1200


def _drawn() -> dict[int | str, dict[str, Any]]:
    """Return the answer of a figure's route, for the description of the API."""
    return {
        200: {
            "description": "a figure for plotly.js",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "data": {"type": "array", "items": {"type": "object"}},
                            "layout": {"type": "object"},
                        },
                        "required": ["data", "layout"],
                    }
                }
            },
        }
    }


class FigureResponse(Response):
    """A plotly figure: ``data`` and ``layout``."""

    media_type = "application/json"


def _a_complete_trial(store: Store, study_id: str) -> list[Trial]:
    number = store.first_complete(study_id)
    return [] if number is None else store.trials(study_id, numbers=[number])


def _figure(figure: go.Figure) -> FigureResponse:
    figure.update_layout(template=None)
    return FigureResponse(figure.to_json())


@router.get("/figures/front", response_class=FigureResponse, responses=_drawn())
@kept(Until.RESULT)
def front_figure(
    study_ref: StudyRef,
    store: StoreDep,
    x: Annotated[str, Query()] = "macs",
    y: Annotated[str, Query()] = "top1",
    evaluation: Annotated[EvaluationKind | None, Query()] = None,
) -> FigureResponse:
    """Draw the front of a study; the ``customdata`` of a mark begins with the trial's number."""
    front = store.front(store.study(study_ref).id, (x, y), evaluation, dominated=tuple(TrialKind), most=_MOST_MARKS)
    return _figure(pareto_figure(pareto_info(front.points, x, y)))


@router.get("/figures/ratios", response_class=FigureResponse, responses=_drawn())
@kept(Until.RESULT)
def ratios_map(study_ref: StudyRef, store: StoreDep) -> FigureResponse:
    """Draw the ratio of each layer of each learned network of a study, by target."""
    study = store.study(study_ref)
    targets = {} if study.definition.search_method.yields_front else store.sampled(study.id, "target")
    numbers = map_numbers(study.definition.budget, targets) if targets else None
    return _figure(ratios_map_figure(ratios_info(study.definition, store.trials(study.id, numbers=numbers))))


@router.get("/trials/{number}/figures/splits", response_class=FigureResponse, responses=_drawn())
@kept(Until.RESULT)
def trial_splits_figure(
    study_ref: StudyRef, number: TrialNumber, store: StoreDep, candidate: CandidateRef = None
) -> FigureResponse:
    """Draw the ratio of each layer of a trial's network."""
    study = store.study(study_ref)
    trial = store.trial(study.id, number)
    _, chosen = choose_candidate(trial, study.name, candidate)
    return _figure(splits_figure(splits_info(chosen.splits)))


@router.get("/trials/{number}/figures/history", response_class=FigureResponse, responses=_drawn())
@kept(Until.EVENT)
def trial_history_figure(request: Request, study_ref: StudyRef, number: TrialNumber, store: StoreDep) -> FigureResponse:
    """Draw the training of a trial."""
    study = store.study(study_ref)
    trial = store.trial(study.id, number)
    settle(request, when=trial.state.ended)
    return _figure(history_figure(history_info(trial.history)))


@router.get("/trials/{number}/figures/levels", response_class=FigureResponse, responses=_drawn())
@kept(Until.EVENT)
def trial_levels_figure(request: Request, study_ref: StudyRef, number: TrialNumber, store: StoreDep) -> FigureResponse:
    """Draw the active channels of each layer over a trial's training."""
    study = store.study(study_ref)
    trial = store.trial(study.id, number)
    settle(request, when=trial.state.ended)
    # while the trial has no network, other trials tell the widths of its layers
    layers = layers_of([trial]) or layers_of(_a_complete_trial(store, study.id))
    return _figure(trajectories_figure(trajectories_info(trial, layers)))
