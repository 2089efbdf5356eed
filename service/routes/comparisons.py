"""Routes of comparisons across trials and studies: networks side by side, and several fronts in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query

from nas.errors import InputError
from nas.findings.candidates import choose_candidate
from nas.findings.side_by_side import Side, side_by_side
from nas.plots.fronts import Found, FrontsBy, fronts_figure, fronts_info
from nas.plots.methods import check_comparable
from nas.plots.side_by_side import curves_figure, curves_info, depth_figure, depth_info
from nas.store import Store
from nas.trial import TrialKind
from nas.wire.references import NetworkRef, parse_references
from nas.wire.side_by_side import SideBySideBody, side_by_side_from
from service.api_route import ApiRoute
from service.deps import StoreDep
from service.drawing import FigureResponse, drawn, figure_response
from service.routes.figures import Kind, LogX, LogY, X, Y

router = APIRouter(tags=["comparisons"], route_class=ApiRoute)

MOST_STUDIES = 8
_MOST_MARKS = 400
Trials = Annotated[
    list[str],
    Query(max_length=50, description="2 to 8 trials as STUDY:NUMBER; one of several networks as STUDY:NUMBER.NETWORK"),
]
Studies = Annotated[list[str], Query(min_length=1, max_length=MOST_STUDIES, description="studies of the same data")]


def sides_of(store: Store, refs: Sequence[NetworkRef]) -> list[Side]:
    """Return the networks that references name.

    Raises:
        NotFoundError: If there is no such study, trial or network.
        InputError: If a trial has several networks and none is named, or two references name one network.
    """
    sides = [_side_of(store, ref) for ref in refs]
    names = [side.name for side in sides]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"trial: {twice} is given twice")
    return sides


def _side_of(store: Store, ref: NetworkRef) -> Side:
    study = store.study(ref.study)
    trial = store.trial(study.id, ref.number)
    if not trial.candidates and ref.position is None:
        return Side(study, trial, None, None)
    wanted = None if ref.position is None else str(ref.position)
    position, candidate = choose_candidate(trial, study.name, wanted)
    return Side(study, trial, position if len(trial.candidates) > 1 else None, candidate)


@router.get("/compare")
def compare(store: StoreDep, trial: Trials) -> SideBySideBody:
    """Show trials of one study or several side by side: settings, scores with intervals, the split of each layer."""
    return side_by_side_from(side_by_side(sides_of(store, parse_references(trial))))


@router.get("/figures/compare/splits", response_class=FigureResponse, responses=drawn())
def compare_splits(store: StoreDep, trial: Trials) -> FigureResponse:
    """Draw the ratios of trials against the depth of their layers."""
    return figure_response(depth_figure(depth_info(sides_of(store, parse_references(trial)))))


@router.get("/figures/compare/history", response_class=FigureResponse, responses=drawn())
def compare_trainings(store: StoreDep, trial: Trials) -> FigureResponse:
    """Draw the trainings of trials over their epochs."""
    return figure_response(curves_figure(curves_info(sides_of(store, parse_references(trial)))))


@router.get("/figures/fronts", response_class=FigureResponse, responses=drawn())
def fronts_of_studies(
    store: StoreDep,
    study: Studies,
    x: X = "macs",
    y: Y = "top1",
    evaluation: Kind = None,
    by: Annotated[FrontsBy, Query(description="group of networks with a front of its own")] = FrontsBy.STUDY,
    log_x: LogX = False,
    log_y: LogY = False,
) -> FigureResponse:
    """Draw the fronts of several studies of the same data; without ``evaluation``, the first one decides on it."""
    studies = [store.study(ref) for ref in study]
    names = [found.name for found in studies]
    if len(set(names)) < len(names):
        raise InputError(f"study: each study can be given once, but got {', '.join(names)}")
    check_comparable(studies)
    kind = evaluation or store.usual_evaluation(studies[0].id)
    found = []
    for one in studies:
        front = store.front(one.id, (x, y), kind, dominated=tuple(TrialKind), most=_MOST_MARKS)
        found.append(Found(one, front.points, front.several))
    return figure_response(fronts_figure(fronts_info(found, x, y, by=by, log=(log_x, log_y))))
