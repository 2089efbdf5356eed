"""Routes of fronts: of one study, of several beside each other, and the hypervolume over time."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from nas.errors import InputError
from nas.metrics import EvaluationKind
from nas.store import Store
from nas.trial import TrialKind
from nas.wire.bodies import GrowthBody, ParetoBody
from nas.wire.builders import pareto_from
from nas.wire.fronts import FrontsBody, GrowthsBody
from service.answers import Until, kept
from service.api_route import ApiRoute
from service.deps import StoreDep, StudyRef

router = APIRouter(tags=["fronts"], route_class=ApiRoute)

MOST_POINTS = 100_000
MOST_FRONTS = 20
X = Annotated[str, Query(description="metric, such as macs, params, latency_ms")]
Y = Annotated[str, Query(description="metric, such as top1")]
Z = Annotated[str | None, Query(description="third metric, if the front has three objectives")]
Kind = Annotated[EvaluationKind | None, Query(description="kind of the scores; that of most networks if absent")]
Dominated = Annotated[bool, Query(description="whether dominated networks are among the points")]
Baselines = Annotated[bool, Query(description="whether dominated uniform and random networks are among the points")]
Infeasible = Annotated[bool, Query(description="whether networks that break a constraint may be on the front")]
Fingerprint = Annotated[
    str | None, Query(max_length=255, description="circumstances of measured metrics; the usual ones if absent")
]
Most = Annotated[
    int,
    Query(ge=0, le=MOST_POINTS, description="largest number of dominated networks; of more, a selection"),
]


@router.get("/studies/{study_ref}/pareto")
@kept(Until.RESULT)
def show_front(
    study_ref: StudyRef,
    store: StoreDep,
    x: X = "macs",
    y: Y = "top1",
    z: Z = None,
    evaluation: Kind = None,
    dominated: Dominated = True,
    baselines: Baselines = True,
    infeasible: Infeasible = False,
    fingerprint: Fingerprint = None,
    most: Most = 1000,
) -> ParetoBody:
    """Place each scored network in the plane or space of two or three metrics, and mark the front."""
    axes = (x, y) if z is None else (x, y, z)
    return _front(store, study_ref, axes, evaluation, _kinds(dominated, baselines), infeasible, fingerprint, most)


@router.get("/fronts")
@kept(Until.NOW)
def compare_fronts(
    store: StoreDep,
    study: Annotated[list[str], Query(min_length=1, max_length=MOST_FRONTS, description="studies to compare")],
    x: X = "macs",
    y: Y = "top1",
    z: Z = None,
    evaluation: Kind = None,
    baselines: Baselines = True,
) -> FrontsBody:
    """Return the fronts of several studies in the same metrics, each without its dominated networks."""
    axes = (x, y) if z is None else (x, y, z)
    kinds = _kinds(False, baselines)
    fronts = [_front(store, ref, axes, evaluation, kinds, False, None, None) for ref in study]
    names = [front.study for front in fronts]
    if len(set(names)) < len(names):
        raise InputError(f"study: each study can be given once, but got {', '.join(names)}")
    return FrontsBody(fronts=tuple(fronts), count=len(fronts))


@router.get("/studies/{study_ref}/hypervolumes")
@kept(Until.RESULT)
def show_hypervolumes(study_ref: StudyRef, store: StoreDep) -> GrowthsBody:
    """Return how the hypervolume of the study's objectives grew with its trials."""
    study = store.study(study_ref)
    growths = tuple(GrowthBody(**vars(growth)) for growth in store.growths(study.id))
    return GrowthsBody(
        study_id=study.id,
        study=study.name,
        objectives=study.definition.objectives,
        reference_point=dict(study.reference_point),
        growths=growths,
    )


def _kinds(dominated: bool, baselines: bool) -> tuple[TrialKind, ...]:
    rare = (TrialKind.BASELINE, TrialKind.RANDOM)
    if dominated:
        return tuple(kind for kind in TrialKind if baselines or kind not in rare)
    return rare if baselines else ()


def _front(
    store: Store,
    ref: str,
    axes: tuple[str, ...],
    evaluation: EvaluationKind | None,
    kinds: tuple[TrialKind, ...],
    infeasible: bool,
    fingerprint: str | None,
    most: int | None,
) -> ParetoBody:
    study = store.study(ref)
    front = store.front(
        study.id, axes, evaluation, dominated=kinds, infeasible=infeasible, most=most, fingerprint=fingerprint
    )
    thinned = TrialKind.SEARCH in kinds and len(front.points) < front.scored
    return pareto_from(study, front, axes, thinned=thinned)
