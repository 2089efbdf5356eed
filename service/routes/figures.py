"""Figures as plotly JSON, drawn by the functions that also draw the pictures of the commands."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from nas.findings.candidates import choose_candidate
from nas.metrics import EvaluationKind
from nas.plots.growth import growth_figure, growth_info
from nas.plots.history import history_figure, history_info
from nas.plots.importance import importance_figure, importance_info
from nas.plots.layers import layers_of
from nas.plots.parallel import MOST_LINES, parallel_figure, parallel_info
from nas.plots.pareto import Look, pareto_figure, pareto_info
from nas.plots.ratios import map_numbers, ratios_info, ratios_map_figure
from nas.plots.splits import splits_figure, splits_info
from nas.plots.trajectories import trajectories_figure, trajectories_info
from nas.store import Store
from nas.study import Study
from nas.trial import Trial, TrialKind
from service.answers import Until, kept, settle
from service.api_route import ApiRoute
from service.deps import CandidateRef, StoreDep, StudyRef, TrialNumber
from service.drawing import FigureResponse, a_complete_trial, drawn, figure_response, shades_of
from service.routes.importances import importances_of

router = APIRouter(tags=["figures"], prefix="/studies/{study_ref}", route_class=ApiRoute)

_MOST_MARKS = 1200
X = Annotated[str, Query(max_length=100, description="metric of the horizontal axis")]
Y = Annotated[str, Query(max_length=100, description="metric of the vertical axis")]
LogX = Annotated[bool, Query(description="whether the horizontal axis is logarithmic")]
LogY = Annotated[bool, Query(description="whether the vertical axis is logarithmic")]
Kind = Annotated[EvaluationKind | None, Query(description="kind of the scores; that of most networks if absent")]
Color = Annotated[
    str | None,
    Query(
        max_length=200,
        description="what colours mean: kind (the default), number, seed, a metric, a sampled parameter "
        "(parameters.target), or the ratio of a layer by its index (ratio.3)",
    ),
]


@router.get("/figures/front", response_class=FigureResponse, responses=drawn())
@kept(Until.RESULT)
def front_figure(
    study_ref: StudyRef,
    store: StoreDep,
    x: X = "macs",
    y: Y = "top1",
    evaluation: Kind = None,
    color: Color = None,
    log_x: LogX = False,
    log_y: LogY = False,
) -> FigureResponse:
    """Draw the front of a study; the ``customdata`` of a mark begins with the trial's number."""
    study = store.study(study_ref)
    front = store.front(study.id, (x, y), evaluation, dominated=tuple(TrialKind), most=_MOST_MARKS)
    look = Look(front.parameters, front.several, shades_of(store, study, front, color), log_x, log_y)
    return figure_response(pareto_figure(pareto_info(front.points, x, y, look=look)))


@router.get("/figures/ratios", response_class=FigureResponse, responses=drawn())
@kept(Until.RESULT)
def ratios_map(
    study_ref: StudyRef,
    store: StoreDep,
    front: Annotated[bool, Query(description="whether only the networks on the front are shown")] = False,
    x: X = "macs",
    y: Y = "top1",
    evaluation: Kind = None,
) -> FigureResponse:
    """Draw the ratio of each layer of the learned networks of a study, by target; ``x`` and ``y`` name the front."""
    study = store.study(study_ref)
    if front:
        points = store.front(study.id, (x, y), evaluation).points
        only = {(point.number, point.position) for point in points}
        trials = store.trials(study.id, numbers=sorted({number for number, _ in only}))
        return figure_response(ratios_map_figure(ratios_info(study.definition, trials, only=only)))
    return figure_response(ratios_map_figure(ratios_info(study.definition, _by_target(store, study))))


def _by_target(store: Store, study: Study) -> list[Trial]:
    """Return the trials whose networks a map by target shows."""
    targets = {} if study.definition.search_method.yields_front else store.sampled(study.id, "target")
    numbers = map_numbers(study.definition.budget, targets) if targets else None
    return store.trials(study.id, numbers=numbers)


@router.get("/figures/hypervolume", response_class=FigureResponse, responses=drawn())
@kept(Until.RESULT)
def hypervolume_figure(study_ref: StudyRef, store: StoreDep) -> FigureResponse:
    """Draw how the hypervolume of a study's objectives grew; the ``customdata`` of a mark is its trial's number."""
    study = store.study(study_ref)
    info = growth_info(store.growths(study.id), study.definition.objectives, store.results(study.id))
    return figure_response(growth_figure(info))


@router.get("/figures/importance", response_class=FigureResponse, responses=drawn())
@kept(Until.RESULT)
def importance_of_parameters(study_ref: StudyRef, store: StoreDep) -> FigureResponse:
    """Draw the importance of each sampled parameter for each objective, beside what chance reaches."""
    return figure_response(importance_figure(importance_info(importances_of(store, store.study(study_ref)))))


@router.get("/figures/parallel", response_class=FigureResponse, responses=drawn())
@kept(Until.RESULT)
def parallel_coordinates(
    study_ref: StudyRef,
    store: StoreDep,
    color: Annotated[str | None, Query(max_length=100, description="objective of the colours; the first if absent")]
    = None,
    evaluation: Kind = None,
) -> FigureResponse:
    """Draw a line for each searched network through its parameters and objectives; of many, a selection."""
    study = store.study(study_ref)
    front = store.front(study.id, (), evaluation, dominated=(TrialKind.SEARCH,), most=MOST_LINES)
    info = parallel_info(study.definition, front.points, front.parameters, color, several=front.several)
    return figure_response(parallel_figure(info))


@router.get("/trials/{number}/figures/splits", response_class=FigureResponse, responses=drawn())
@kept(Until.RESULT)
def trial_splits_figure(
    study_ref: StudyRef, number: TrialNumber, store: StoreDep, candidate: CandidateRef = None
) -> FigureResponse:
    """Draw the ratio of each layer of a trial's network."""
    study = store.study(study_ref)
    trial = store.trial(study.id, number)
    _, chosen = choose_candidate(trial, study.name, candidate)
    return figure_response(splits_figure(splits_info(chosen.splits)))


@router.get("/trials/{number}/figures/history", response_class=FigureResponse, responses=drawn())
@kept(Until.EVENT)
def trial_history_figure(request: Request, study_ref: StudyRef, number: TrialNumber, store: StoreDep) -> FigureResponse:
    """Draw the training of a trial."""
    study = store.study(study_ref)
    trial = store.trial(study.id, number)
    settle(request, when=trial.state.ended)
    return figure_response(history_figure(history_info(trial.history)))


@router.get("/trials/{number}/figures/levels", response_class=FigureResponse, responses=drawn())
@kept(Until.EVENT)
def trial_levels_figure(
    request: Request,
    study_ref: StudyRef,
    number: TrialNumber,
    store: StoreDep,
    as_map: Annotated[
        bool, Query(description="whether few layers are drawn as a map, too; many layers always are")
    ] = False,
) -> FigureResponse:
    """Draw the active channels of each layer over a trial's training."""
    study = store.study(study_ref)
    trial = store.trial(study.id, number)
    settle(request, when=trial.state.ended)
    # while the trial has no network, other trials tell the widths of its layers
    layers = layers_of([trial]) or layers_of(a_complete_trial(store, study.id))
    return figure_response(trajectories_figure(trajectories_info(trial, layers), as_map=as_map))
